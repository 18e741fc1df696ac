"""The receive path beside what others would use: `python -m benchmarks.peers [--only "kis book"]`, with the extra `[bench]`.

    server process --frames, in a flood or 5,000/s--> a peer, a process of its own: socket, frame, text, its objects

Each way does less than ours, which ends with checked records in a ring, flags and counters:

    this           socket to ring (receive.py)
    websockets     the frame, text split at its separators; JSON for Kiwoom's form
    picows         the same with another library
    mojito2        its own client class, as it is; its queue to another process is left out (no pickling)
    python-kis     its own response classes under websocket-client, which it uses; its event dispatch is left out
    pandas         a DataFrame a message, as the vendor's official sample builds one, under websockets

CPU is user and system of the peer's process divided by the messages, the import left out; medians of runs in turns. Peers that are
not installed are left out. Not measured here: what a peer would pay for conversion, checks and storing, where it does neither.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.receive import FLOOD, FLOOD_FACTOR, FRAMES, measure, serve

RATES = (FLOOD, 5000)
OLD_WIDTHS = {"kis tick": 46, "kis book": 59}
"""Fields a record that python-kis knows; it refuses more."""


class _EnoughError(Exception):
    """All messages were read."""


def _split(text: str) -> object:
    return json.loads(text) if text[0] == "{" else text.split("|", 3)[3].split("^")


def run_websockets(url: str, payload: bytes, messages: int, convert: Callable[[str], object] = _split) -> None:
    """`recv` in a loop."""
    import websockets

    async def read() -> None:
        async with websockets.connect(url, ping_interval=None) as connection:
            for _ in range(messages):
                convert(str(await connection.recv()))

    asyncio.run(read())


def run_pandas(url: str, payload: bytes, messages: int) -> None:
    """A table of one row a message."""
    import pandas as pd

    columns = [f"field_{number}" for number in range(len(payload.decode().split("^")))]
    run_websockets(
        url, payload, messages, lambda text: pd.DataFrame([text.split("|", 3)[3].split("^")], columns=columns)
    )


def run_picows(url: str, payload: bytes, messages: int) -> None:
    """A listener of its own kind."""
    import picows

    class Listener(picows.WSListener):  # type: ignore[misc]
        left = messages

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            _split(frame.get_payload_as_utf8_text())
            self.left -= 1
            if not self.left:
                transport.disconnect()

    async def read() -> None:
        transport, _ = await picows.ws_connect(Listener, url)
        await transport.wait_disconnected()

    asyncio.run(read())


def run_mojito2(url: str, payload: bytes, messages: int) -> None:
    """Its WebSocket process, run in this one; host, key and queue are replaced."""
    module = importlib.import_module("mojito.koreainvestment")

    class Queue:
        left = messages

        def put(self, _: object) -> None:
            self.left -= 1
            if not self.left:
                raise _EnoughError

    connect = module.websockets.connect
    module.websockets.connect = lambda _, **options: connect(url, **options)
    client = module.KoreaInvestmentWS("key", "secret", ["H0STCNT0", "H0STASP0"], ["005930"])
    client.queue, client.get_approval = Queue(), lambda: "approval"
    try:
        client.run()
    except _EnoughError:
        return
    raise SystemExit("mojito2 ended before all messages were read")


def run_python_kis(url: str, payload: bytes, messages: int) -> None:
    """Its response objects."""
    import websocket
    from pykis.api.websocket import WEBSOCKET_RESPONSES_MAP
    from pykis.responses.websocket import KisWebsocketResponse

    left = messages

    def on_message(app: Any, text: str) -> None:
        nonlocal left
        _, name, count, body = text.split("|", 3)
        found = list(KisWebsocketResponse.parse(body, count=int(count), response_type=WEBSOCKET_RESPONSES_MAP[name]))
        left -= len(found)
        if not left:
            app.close()

    websocket.WebSocketApp(url, on_message=on_message).run_forever()
    if left:
        raise SystemExit(f"python-kis: {left} messages were not read")


PEERS: dict[str, tuple[tuple[str, ...], Callable[[str, bytes, int], None]]] = {
    "websockets": (("websockets",), run_websockets),
    "picows": (("picows",), run_picows),
    "mojito2": (("mojito",), run_mojito2),
    "python-kis": (("pykis",), run_python_kis),
    "pandas": (("pandas", "websockets"), run_pandas),
}
KIS_ONLY = ("mojito2", "python-kis", "pandas")


def build_payload(peer: str, name: str) -> bytes:
    """The frame as this peer can read it."""
    payload = FRAMES[name]()
    if peer != "python-kis":
        return payload
    head, _, body = payload.rpartition(b"|")
    return head + b"|" + b"^".join(body.split(b"^")[: OLD_WIDTHS[name]])


def run_child(peer: str, name: str, rate: int, messages: int) -> float:
    """CPU us a message of a peer, in this process."""
    if peer == "this":
        return measure(name, rate, messages)[0]
    modules, run = PEERS[peer]
    for module in modules:
        importlib.import_module(module)
    payload = build_payload(peer, name)
    port_queue: multiprocessing.Queue = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(port_queue, payload, rate, messages), daemon=True)
    server.start()
    url = f"ws://127.0.0.1:{port_queue.get()}/"
    begin_s = time.process_time()
    run(url, payload, messages)
    elapsed_s = time.process_time() - begin_s
    server.kill()
    return elapsed_s / messages * 1e6


def main() -> None:
    """Print a line for each peer, frame and pace."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--only", default="", help="frames whose name begins so: 'kis', 'kiwoom 0D'")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        peer, name, rate, messages = options.child
        print(run_child(peer, name, int(rate), int(messages)))
        return
    installed = ["this", *(peer for peer, (modules, _) in PEERS.items() if all(map(importlib.util.find_spec, modules)))]
    print(f"CPU us a message: median (min to max) of {options.runs} runs in turns; x = times this")
    for name in (each for each in FRAMES if each.startswith(options.only)):
        peers = [peer for peer in installed if name.startswith("kis") or peer not in KIS_ONLY]
        for rate in RATES:
            messages = options.messages * (FLOOD_FACTOR if rate == FLOOD else 1)
            found: dict[str, list[float]] = {peer: [] for peer in peers}
            for _ in range(options.runs):
                for peer in peers:
                    command = [
                        sys.executable,
                        "-m",
                        "benchmarks.peers",
                        "--child",
                        peer,
                        name,
                        str(rate),
                        str(messages),
                    ]
                    ran = subprocess.run(command, capture_output=True, text=True, check=False)
                    if ran.returncode:
                        sys.exit(f"{peer}, {name} at {rate}/s failed:\n{ran.stderr}")
                    found[peer].append(float(ran.stdout.split()[-1]))
            mine = statistics.median(found["this"])
            for peer, costs in found.items():
                pace, median = "flood" if rate == FLOOD else f"{rate:,}/s", statistics.median(costs)
                spread = f"({min(costs):7.1f} to {max(costs):7.1f})"
                print(
                    f"{name:<10} {pace:>8} {peer:<11} {median:8.1f} {spread} {median / mine:7.2f} x",
                    flush=True,
                )


if __name__ == "__main__":
    main()
