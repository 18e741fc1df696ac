"""A vendor written for these tests alone, after the specs: REST and WebSocket on one port, steered from the test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSCloseCode, WSMsgType, web
from support.process_tree import temporary_home, wait_until

from conf.home import Home
from ringbuf.records import RINGS
from ringbuf.ring import Consumer
from ringbuf.vitals import VitalsSnapshot, read_snapshot

ROOT = Path(__file__).parents[2]


class Vendor:
    """The other side of one broker. `answer(connection, message)` returns what to send back; replace it to misbehave."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.answer: Callable[[int, dict[str, Any]], list[str]] = getattr(self, f"_{kind}")
        self.rest: Callable[[str, dict[str, Any]], tuple] = self._issue  # status, body, perhaps headers
        self.quotation: Callable[[str, dict[str, str]], tuple] = lambda path, query: (404, {})
        self.texts: list[tuple[int, str, float]] = []  # connection, text, monotonic seconds
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.opened: list[float] = []
        self.closed: dict[int, int | None] = {}  # connection -> close code the client sent
        self._sockets: dict[int, web.WebSocketResponse] = {}
        self._requests: dict[int, web.Request] = {}
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_get("/uapi/{path:.*}", self._get)
        app.router.add_get("/{path:.*}", self._websocket)
        app.router.add_post("/{path:.*}", self._post)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        self._loop.run_until_complete(self._runner.setup())
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.port = site._server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()

    def stop(self) -> None:
        """Shut the server."""
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.posts.append((request.path, body))
        status, answer, *headers = self.rest(request.path, body)
        if isinstance(answer, bytes):
            return web.Response(body=answer, status=status, content_type="application/json")
        return web.json_response(answer, status=status, headers=headers[0] if headers else None)

    async def _get(self, request: web.Request) -> web.Response:
        status, answer = self.quotation(request.path, dict(request.query))
        return web.json_response(answer, status=status)

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=True)
        await socket.prepare(request)
        number = len(self.opened)
        self.opened.append(time.monotonic())
        self._sockets[number], self._requests[number] = socket, request
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                self.texts.append((number, message.data, time.monotonic()))
                for text in self.answer(number, json.loads(message.data)):
                    if text == "DROP":
                        request.transport.abort()
                    else:
                        await socket.send_str(text)
        self.closed[number] = socket.close_code
        return socket

    def send(self, text: str | bytes, connection: int = -1) -> None:
        """Send a text frame on a connection, by default the latest; bytes go out as they are."""
        number = connection if connection >= 0 else len(self.opened) - 1
        socket = self._sockets[number]
        payload = text.encode() if isinstance(text, str) else text
        sending = socket._writer.send_frame(payload, WSMsgType.TEXT)
        asyncio.run_coroutine_threadsafe(sending, self._loop).result(10)

    def send_together(self, *texts: str) -> None:
        """Send several text frames in one segment."""
        payloads = [text.encode() for text in texts]
        frames = b"".join(b"\x81\x7e" + len(payload).to_bytes(2) + payload for payload in payloads)
        self._loop.call_soon_threadsafe(self._requests[len(self.opened) - 1].transport.write, frames)

    def drop(self) -> None:
        """Break the latest connection without a close frame."""
        self._loop.call_soon_threadsafe(self._requests[len(self.opened) - 1].transport.abort)

    def close(self) -> None:
        """Close the latest connection properly."""
        socket = self._sockets[len(self.opened) - 1]
        asyncio.run_coroutine_threadsafe(socket.close(code=WSCloseCode.OK, message=b"Bye"), self._loop).result(10)

    def messages(self, connection: int | None = None) -> list[dict[str, Any]]:
        """What the client sent, decoded."""
        return [json.loads(text) for number, text, _ in list(self.texts) if connection in (None, number)]

    def _issue(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path == "/oauth2/Approval":
            return 200, {"approval_key": f"approval-{len(self.posts)}"}
        assert path == "/oauth2/token"
        return 200, {
            "expires_dt": "20301231235959",
            "token_type": "bearer",
            "token": f"token-{len(self.posts)}",
            "return_code": 0,
            "return_msg": "정상적으로 처리되었습니다",
        }

    def _kis(self, number: int, message: dict[str, Any]) -> list[str]:
        if "body" not in message:
            return []  # the echo of a PINGPONG
        asked = message["body"]["input"]
        code, words = {"1": ("OPSP0000", "SUBSCRIBE SUCCESS"), "2": ("OPSP0001", "UNSUBSCRIBE SUCCESS")}[
            message["header"]["tr_type"]
        ]
        return [kis_reply(asked["tr_id"], asked["tr_key"], "0", code, words)]

    def _kiwoom(self, number: int, message: dict[str, Any]) -> list[str]:
        if message["trnm"] == "LOGIN":
            return ['{"trnm":"LOGIN","return_code":0,"return_msg":"","sor_yn":"Y"}']
        if message["trnm"] in ("REG", "REMOVE"):
            return [json.dumps({"trnm": message["trnm"], "return_code": 0, "return_msg": ""})]
        return []


def kis_reply(tr_id: str, tr_key: str, rt_cd: str, code: str, words: str) -> str:
    """A KIS control message, docs/wire/kis.md 2.3."""
    body = {"rt_cd": rt_cd, "msg_cd": code, "msg1": words, "output": {"iv": "96de248bda413d58", "key": "n" * 32}}
    return json.dumps({"header": {"tr_id": tr_id, "tr_key": tr_key, "encrypt": "N"}, "body": body})


class Process:
    """`python -m brokers NAME` in a home of its own."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.home = Home(root)
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "brokers", name],
            cwd=ROOT,
            env=os.environ | {"COLLECTOR_HOME": str(root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def vitals(self) -> VitalsSnapshot | None:
        """Its page, None before there is one."""
        try:
            return read_snapshot(self.home.vitals_path(self.name))
        except FileNotFoundError:
            return None

    def until_state(self, state: str, most_s: float = 20) -> VitalsSnapshot:
        """Wait for a state of its vitals."""

        def there() -> VitalsSnapshot | None:
            assert self.popen.poll() is None, self.popen.stdout.read().decode()
            vitals = self.vitals()
            return vitals if vitals and vitals.pid == self.popen.pid and vitals.state == state else None

        return wait_until(f"{self.name} {state}", there, most_s)

    def records(self, stream: str, count: int) -> Any:
        """The ring's records from the first on, once there are `count`."""
        ring = Consumer.open(self.home.ring_path(self.name, stream), RINGS[stream])
        try:
            wait_until(f"{count} {stream} records", lambda: ring.head >= count)
            return ring.read(1, 1 << 20).records
        finally:
            ring.close()

    def log(self) -> str:
        """Its log file."""
        return (self.home.log / f"{self.name}.log").read_text()

    def stop(self) -> float:
        """SIGTERM; seconds until it ended, which it must have done with 0."""
        begin = time.monotonic()
        self.popen.send_signal(signal.SIGTERM)
        assert self.popen.wait(10) == 0, self.popen.stdout.read().decode()
        return time.monotonic() - begin


@pytest.fixture
def make_vendor() -> Iterator[Callable[[str], Vendor]]:
    """Start vendors: make_vendor("kis")."""
    with ExitStack() as stack:

        def make(kind: str) -> Vendor:
            vendor = Vendor(kind)
            stack.callback(vendor.stop)
            return vendor

        yield make


@pytest.fixture
def make_process() -> Iterator[Callable[[str, Path], Process]]:
    """Start collectors: make_process("kis", home)."""
    with ExitStack() as stack:

        def make(name: str, root: Path) -> Process:
            process = Process(name, root)
            stack.callback(_kill, process.popen)
            return process

        yield make


@pytest.fixture
def run(make_vendor: Callable[[str], Vendor]) -> Iterator[Callable[..., tuple[Vendor, Process]]]:
    """Start a vendor and the collector that talks to it: run("kis", more_settings, prepare=...)."""
    with ExitStack() as stack:

        def start(
            kind: str, settings: str = "", prepare: Callable[[Vendor], None] | None = None, universe: str = '"005930"'
        ) -> tuple[Vendor, Process]:
            vendor = make_vendor(kind)
            if prepare:
                prepare(vendor)
            other = "kiwoom" if kind == "kis" else "kis"
            text = f"""
            [universe]
            kr = [{universe}]
            [clock]
            start = "2026-11-20T10:00:00+09:00"
            [ring]
            orderbook_capacity = 4096
            tick_capacity = 4096
            [{other}]
            enabled = false
            [{kind}]
            ws_url = "ws://127.0.0.1:{vendor.port}/api/dostk/websocket"
            rest_url = "http://127.0.0.1:{vendor.port}"
            subscribe_spacing_ms = 20
            {"" if "cut_wait_s" in settings else "cut_wait_s = 0.0"}
            {settings}
            """
            process = Process(kind, stack.enter_context(temporary_home(text)))
            stack.callback(_kill, process.popen)
            return vendor, process

        yield start


class Market:
    """A simulator without loss and collectors on it."""

    def __init__(self, simulator: subprocess.Popen[str], processes: dict[str, Process]) -> None:
        self.simulator = simulator
        self.processes = processes

    def __iter__(self) -> Iterator[Any]:
        return iter((self.simulator, self.processes))

    def command(self, *lines: str) -> None:
        """Give the simulator commands."""
        self.simulator.stdin.write("".join(f"{line}\n" for line in lines))
        self.simulator.stdin.flush()


@pytest.fixture
def make_market(make_process: Callable[[str, Path], Process]) -> Iterator[Callable[..., Market]]:
    """Start a simulator and both collectors on it, and wait until they stream: make_market(settings, *more_options)."""
    with ExitStack() as stack:

        def make(settings: str, *options: str) -> Market:
            root = stack.enter_context(temporary_home(settings))
            simulator = subprocess.Popen(
                [
                    sys.executable,
                    *("-m", "brokers.simulator", "--home", str(root), "--always-open", "--books-per-s", "20"),
                    *("--kis-loss", "0", "--kiwoom-loss", "0", *options),
                ],
                cwd=ROOT,
                env=os.environ | {"COLLECTOR_HOME": str(root)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(_kill, simulator)
            addresses = json.loads(simulator.stdout.readline())
            text = settings
            for name, urls in addresses.items():
                if f"[{name}]" not in text:
                    text += f"[{name}]\ncut_wait_s = 0.0\n" if name != "us" else ""
                text = text.replace(
                    f"[{name}]\n", f'[{name}]\nws_url = "{urls["ws_url"]}"\nrest_url = "{urls["rest_url"]}"\n'
                )
            (root / "collector.toml").write_text(text)
            processes = {name: make_process(name, root) for name in ("kis", "kiwoom")}
            for process in processes.values():
                process.until_state("streaming")
            return Market(simulator, processes)

        yield make


def _kill(popen: subprocess.Popen[bytes]) -> None:
    if popen.poll() is None:
        popen.kill()
    else:
        said = popen.stdout.read()
        sys.stdout.write(said if isinstance(said, str) else said.decode())
    popen.wait(10)
