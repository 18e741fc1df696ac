"""Plain clients for the simulator: the process, and the least of each vendor's protocol over websocket-client and requests.

Nothing here is shared with the collectors: a mistake made twice must not agree with itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import requests
import websocket

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT.parent / "shared/specs/samples"
WAIT_S = 20.0


class SimulatorHandle:
    """A running `python -m brokers.simulator`, its addresses, and the line to steer it by."""

    def __init__(self, home: Path, *options: str) -> None:
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "brokers.simulator", "--home", str(home), "--die-with-parent", *options]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environ,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self.errors: list[str] = []
        threading.Thread(target=self._collect, args=(self.process.stdout, self._lines.put), daemon=True).start()
        threading.Thread(target=self._collect, args=(self.process.stderr, self.errors.append), daemon=True).start()
        self.ready = self.read_response()

    @staticmethod
    def _collect(stream: Any, put: Callable[[str], None]) -> None:
        for line in stream:
            put(line)
        put("")  # it will say no more

    def read_response(self) -> dict[str, Any]:
        """The next JSON line of its stdout."""
        try:
            return json.loads(self._lines.get(timeout=WAIT_S))
        except (queue.Empty, json.JSONDecodeError):
            raise AssertionError(f"the simulator said nothing; stderr: {''.join(self.errors)}") from None

    def send_command(self, command: str) -> dict[str, Any]:
        """Give a command; its answer."""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.read_response()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(WAIT_S)


@contextlib.contextmanager
def start_simulator(home: Path, *options: str) -> Iterator[SimulatorHandle]:
    """A simulator that is gone afterwards."""
    running = SimulatorHandle(home, *options)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def post(url: str, body: Any, headers: dict[str, str] | None = None) -> requests.Response:
    """POST JSON past any proxy."""
    with requests.Session() as session:
        session.trust_env = False
        return session.post(url, json=body, headers=headers, timeout=WAIT_S)


def connect(url: str) -> websocket.WebSocket:
    """A WebSocket past any proxy, not yet judging UTF-8."""
    host, port = url.split("//")[1].split("/")[0].split(":")
    plain = socket.create_connection((host, int(port)))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return websocket.create_connection(url, timeout=WAIT_S, skip_utf8_validation=True, socket=plain)


class WebSocketClient:
    """A WebSocket whose text frames can be waited for; `frames` keeps all that came."""

    def __init__(self, url: str) -> None:
        self.ws = connect(url)
        self.frames: list[bytes] = []
        self.end_reason: str | None = None

    def send(self, message: dict[str, Any] | str) -> None:
        """Send JSON, or text as it is."""
        self.ws.send(message if isinstance(message, str) else json.dumps(message))

    def receive(self, within_s: float = WAIT_S) -> bytes | None:
        """The next text frame; None when the connection has ended (see `ended`). TimeoutError."""
        self.ws.settimeout(within_s)
        try:
            opcode, data = self.ws.recv_data(control_frame=True)
        except websocket.WebSocketTimeoutException:
            raise TimeoutError(f"nothing within {within_s} s") from None
        except (websocket.WebSocketConnectionClosedException, ConnectionError):
            self.end_reason = "cut"
            return None
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            self.end_reason = f"{int.from_bytes(data[:2], 'big')} {data[2:].decode()}"
            return None
        if opcode != websocket.ABNF.OPCODE_TEXT:
            return self.receive(within_s)
        self.frames.append(data)
        return data

    def await_frame(self, wanted: Callable[[bytes], bool], within_s: float = WAIT_S) -> bytes:
        """The next frame that is `wanted`; others are kept in `frames`."""
        deadline_s = time.monotonic() + within_s
        while time.monotonic() < deadline_s:
            frame = self.receive(max(deadline_s - time.monotonic(), 0.01))
            if frame is None:
                raise AssertionError(f"ended ({self.end_reason}) before the frame came; last: {self.frames[-3:]}")
            if wanted(frame):
                return frame
        raise TimeoutError(f"not among {len(self.frames)} frames")

    def await_end(self, within_s: float = WAIT_S) -> str:
        """Read until the connection ends; how it did: "cut", or the close frame's code and reason."""
        deadline_s = time.monotonic() + within_s
        while self.end_reason is None:
            self.receive(max(deadline_s - time.monotonic(), 0.01))
        return self.end_reason

    def read_for(self, seconds: float) -> None:
        """Keep what comes for a while."""
        deadline_s = time.monotonic() + seconds
        while self.end_reason is None and time.monotonic() < deadline_s:
            with contextlib.suppress(TimeoutError):
                self.receive(max(deadline_s - time.monotonic(), 0.01))

    def close(self) -> None:
        """Close properly."""
        self.ws.close(timeout=2)

    def vanish(self) -> None:
        """Leave without a close frame."""
        self.ws.shutdown()


class KisClient(WebSocketClient):
    """A KIS session: approval key, registrations."""

    def __init__(
        self, ready: dict[str, Any], app_key: str = "A" * 36, path: str = "/tryitout", approval: str = ""
    ) -> None:
        self.approval = approval or request_kis_approval(ready, app_key)
        super().__init__(ready["kis"]["ws_url"] + path)

    def request(self, tr_type: str, tr_id: str, tr_key: str) -> dict[str, Any]:
        """Register or release; the acknowledgement."""
        self.send(
            {
                "header": {
                    "approval_key": self.approval,
                    "custtype": "P",
                    "tr_type": tr_type,
                    "content-type": "utf-8",
                },
                "body": {"input": {"tr_id": tr_id, "tr_key": tr_key}},
            }
        )
        return json.loads(self.await_frame(lambda frame: frame.startswith(b'{"header"') and b"PINGPONG" not in frame))

    def subscribe(self, tr_id: str, *tr_keys: str) -> None:
        """Register all keys, each with success."""
        for tr_key in tr_keys:
            assert self.request("1", tr_id, tr_key)["body"]["msg_cd"] == "OPSP0000"

    def collect_records(self, tr_id: str) -> list[list[str]]:
        """The records of all frames of one TR that came so far, as fields."""
        found = []
        for frame in self.frames:
            parts = frame.split(b"|", 3)
            if len(parts) == 4 and parts[1].decode() == tr_id:
                fields = parts[3].decode().split("^")
                count = int(parts[2])
                width = len(fields) // count
                assert width * count == len(fields)
                found += [fields[start : start + width] for start in range(0, len(fields), width)]
        return found


class KiwoomClient(WebSocketClient):
    """A Kiwoom session: token, LOGIN, REG, PING echoed."""

    def __init__(self, ready: dict[str, Any], app_key: str = "B" * 43, token: str = "", login: bool = True) -> None:
        self.token = token or request_kiwoom_token(ready, app_key)["token"]
        self.echo = True
        super().__init__(ready["kiwoom"]["ws_url"])
        if login:
            self.send({"trnm": "LOGIN", "token": self.token})
            assert json.loads(self.await_trnm("LOGIN"))["return_code"] == 0

    def receive(self, within_s: float = WAIT_S) -> bytes | None:
        """As above, PING answered."""
        frame = super().receive(within_s)
        if frame == b'{"trnm":"PING"}' and self.echo:
            self.ws.send(frame.decode())
        return frame

    def await_trnm(self, trnm: str) -> bytes:
        """The next message of a kind."""
        return self.await_frame(lambda frame: json.loads(frame)["trnm"] == trnm)

    def request(
        self, trnm: str, items: list[str], types: list[str], group: str = "1", refresh: str = "1"
    ) -> dict[str, Any]:
        """REG or REMOVE; the reply."""
        self.send({"trnm": trnm, "grp_no": group, "refresh": refresh, "data": [{"item": items, "type": types}]})
        return json.loads(self.await_trnm(trnm))

    def collect_entries(self, kind: str) -> list[dict[str, Any]]:
        """The entries of a type in all frames that came so far."""
        found = []
        for frame in self.frames:
            message = json.loads(frame)
            found += [entry for entry in message.get("data", []) if entry["type"] == kind]
        return found


def request_kis_approval(ready: dict[str, Any], app_key: str = "A" * 36) -> str:
    """A fresh approval key."""
    body = {"grant_type": "client_credentials", "appkey": app_key, "secretkey": "S" * 180}
    return post(ready["kis"]["rest_url"] + "/oauth2/Approval", body).json()["approval_key"]


def request_kiwoom_token(ready: dict[str, Any], app_key: str = "B" * 43, secret: str = "S" * 43) -> dict[str, Any]:
    """The answer of the token endpoint."""
    body = {"grant_type": "client_credentials", "appkey": app_key, "secretkey": secret}
    return post(ready["kiwoom"]["rest_url"] + "/oauth2/token", body).json()


class KiwoomRest:
    """Kiwoom's TRs with one app key, over one connection."""

    PATHS: ClassVar = dict.fromkeys(
        ("ka10001", "ka10003", "ka10055", "ka10084", "ka10095", "ka10099", "ka10100"), "stkinfo"
    ) | dict.fromkeys(("ka10004", "ka10087"), "mrkcond")

    def __init__(self, ready: dict[str, Any], app_key: str = "R" * 43) -> None:
        self.url = ready["kiwoom"]["rest_url"] + "/api/dostk/"
        self.token = request_kiwoom_token(ready, app_key)["token"]
        self.session = requests.Session()
        self.session.trust_env = False

    def call(self, tr: str, key: str = "", path: str = "", **body: str) -> requests.Response:
        """One call; `key` asks for the page it stands for."""
        headers = {"authorization": f"Bearer {self.token}", "api-id": tr}
        headers |= {"cont-yn": "Y", "next-key": key} if key else {}
        url = self.url + (path or self.PATHS.get(tr, "chart"))
        return self.session.post(url, json=body, headers=headers, timeout=WAIT_S)

    def iterate_pages(self, tr: str, **body: str) -> Iterator[list[dict[str, str]]]:
        """The rows of one page after another, to the end."""
        key = ""
        while True:
            answer = self.call(tr, key, **body)
            yield extract_rows(answer)
            if answer.headers["cont-yn"] != "Y":
                return
            key = answer.headers["next-key"]


def extract_rows(answer: requests.Response) -> list[dict[str, str]]:
    """The list of a successful answer."""
    body = answer.json()
    assert (answer.status_code, body["return_code"]) == (200, 0), body
    (rows,) = (value for value in body.values() if isinstance(value, list))
    return rows


class KisRest:
    """KIS's quotations with one appkey, over one connection."""

    TRS: ClassVar = {
        "inquire-ccnl": "FHKST01010300",
        "inquire-time-itemconclusion": "FHPST01060000",
        "inquire-time-itemchartprice": "FHKST03010200",
        "inquire-time-dailychartprice": "FHKST03010230",
        "inquire-asking-price-exp-ccn": "FHKST01010200",
        "inquire-price": "FHKST01010100",
        "search-info": "CTPF1604R",
        "chk-holiday": "CTCA0903R",
    }

    def __init__(self, ready: dict[str, Any], app_key: str = "R" * 36) -> None:
        self.url = ready["kis"]["rest_url"]
        self.app_key = app_key
        self.session = requests.Session()
        self.session.trust_env = False
        self.renew_token()

    def renew_token(self) -> None:
        """Ask for a token."""
        body = {"grant_type": "client_credentials", "appkey": self.app_key, "appsecret": "S" * 180}
        self.token = post(self.url + "/oauth2/tokenP", body).json()["access_token"]

    def call(self, name: str, symbol: str, division: str = "J", **more: str) -> requests.Response:
        """One call about a stock."""
        return self.get(name, {"FID_COND_MRKT_DIV_CODE": division, "FID_INPUT_ISCD": symbol, **more})

    def get(self, name: str, query: dict[str, str], slashes: str = "/", tr_cont: str = "") -> requests.Response:
        """One call."""
        headers = {"authorization": f"Bearer {self.token}", "appkey": self.app_key, "tr_id": self.TRS[name]}
        url = f"{self.url}{slashes}uapi/domestic-stock/v1/quotations/{name}"
        return self.session.get(url, params=query, headers=headers | {"tr_cont": tr_cont}, timeout=WAIT_S)
