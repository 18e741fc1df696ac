"""CPU per message of a collector's connection, from a loopback socket into the ring: in a flood and at a steady pace.

    python -m benchmarks.receive [--against CHECKOUT] [--runs 5] [--messages 4000]
    python -m benchmarks.receive --profile "kis book"          # at 5,000/s, by function, under the profiler

    server process --frames, paced--> WebSocketConnection --> FeedConnection's loop --> decode --> RingPublisher --> ring

What is measured is the process's CPU time, user and system, divided by the messages; the server's is not in it. With --against,
runs of this checkout and of another one take turns, so that both have the same load beside them; the ratio travels between
machines, the figures do not. Not handled here: the writer, and a real vendor's TLS.
"""

from __future__ import annotations

import argparse
import cProfile
import multiprocessing
import os
import pstats
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import nullcontext, suppress
from pathlib import Path

from benchmarks.decode import (
    accept_client,
    build_kis_book_frame,
    build_kis_tick_frame,
    build_kiwoom_book_message,
    build_kiwoom_tick_message,
    build_text_frame,
)
from brokers.allocation.allocate import PlannedConnection
from brokers.feed.capture import FrameCapture
from brokers.feed.connection import ConnectionContext, FeedConnection
from brokers.feed.heartbeat import HeartbeatAggregator
from brokers.feed.publisher import RingPublisher
from brokers.feed.quarantine import Quarantine
from brokers.registry import load_broker
from brokers.subscription import Subscription, SubscriptionTable
from brokers.transport.websocket import WebSocketConnection
from collectorctl.init import create_home
from conf.home import Home
from conf.instrument import Instrument
from conf.process import ShutdownSignal
from ringbuf.vitals import Vitals

FRAMES = {
    "kis book": build_kis_book_frame,
    "kis tick": lambda: build_kis_tick_frame(1),
    "kiwoom 0D": build_kiwoom_book_message,
    "kiwoom 0B": build_kiwoom_tick_message,
}
FLOOD = 0
CASES = [(name, rate) for name in FRAMES for rate in (FLOOD, 5000, 1000)]
FLOOD_FACTOR = 5
"""A flood takes this many times the messages of a paced run, which take a second or more anyway."""
SUBSCRIPTIONS = 20
"""Instruments with book and tick, as many as a KIS key has; the frames are of the first."""


def serve(port_queue: multiprocessing.Queue, payload: bytes, rate: int, messages: int) -> None:
    """Serve one connection: so many messages a second, or all at once; then wait for its end."""
    frame = build_text_frame(payload)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port_queue.put(listener.getsockname()[1])
        peer = accept_client(listener)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError), peer:
            begin, sent = time.monotonic(), 0
            while sent < messages:
                due = messages if rate == FLOOD else min(messages, int((time.monotonic() - begin) * rate) + 1)
                for _ in range(due - sent):
                    peer.sendall(frame)  # each a packet of its own, as a vendor's is
                sent = due
                if rate != FLOOD:
                    time.sleep(max(0.0, begin + sent / rate - time.monotonic()))
            while peer.recv(4096):
                pass


class StopAfter(WebSocketConnection):
    """A connection that requests the stop once so many messages were read; counts the polls that brought some."""

    def arm(self, stop: ShutdownSignal, messages: int) -> None:
        """From here on."""
        self._stop, self._left, self.polls = stop, messages, 0

    def poll(self, timeout_s: float) -> list[tuple[bytes, int]]:
        """As its base."""
        found = super().poll(timeout_s)
        self._left -= len(found)
        self.polls += bool(found)
        if self._left <= 0:
            self._stop.requested = True
        return found


def measure(name: str, rate: int, messages: int, profile: cProfile.Profile | None = None) -> tuple[float, float]:
    """CPU us a message, and messages a poll."""
    broker, payload = load_broker(name.split()[0]), FRAMES[name]()
    root = Path(tempfile.mkdtemp(prefix="cb-"))
    os.environ |= {f"{broker.name.upper()}_APP_{part}": "benchmark" for part in ("KEY", "SECRET")}
    create_home(root)
    home = Home(root)
    home.create_directories()
    port_queue: multiprocessing.Queue = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(port_queue, payload, rate, messages), daemon=True)
    server.start()
    try:
        codes = ["005930", *(f"{number:06}" for number in range(100, 99 + SUBSCRIPTIONS))]
        subscriptions = [
            Subscription(Instrument(code, "KRX"), stream) for code in codes for stream in ("orderbook", "tick")
        ]
        vitals, clock, stop = (
            Vitals.create(home.vitals_path(broker.name), broker.name),
            home.load_clock(),
            ShutdownSignal(),
        )
        heartbeats = HeartbeatAggregator(vitals)
        heartbeats.add_thread()
        context = ConnectionContext(
            home,
            stop,
            broker,
            clock,
            home.load_calendar(),
            RingPublisher(home, broker.name, vitals, clock),
            Quarantine(home.quarantine_directory(), broker.name, 1 << 20),
            FrameCapture(home, broker.name, vitals, clock),
            broker.subscriptions_by_code(subscriptions),
        )
        planned = PlannedConnection(1, tuple(subscriptions), ())
        connection = FeedConnection(context, planned, heartbeats.add_thread("key 1"))
        table = SubscriptionTable(subscriptions)
        connection._subscription_table = table
        connection._session = broker.create_session(home.settings, "benchmark", table)
        for subscription in subscriptions:
            table.on_requested(subscription, 1)
            table.on_acknowledged(subscription, 2)
        vars(connection._session).update({"_login": "done"} if broker.name == "kiwoom" else {})
        for queue in vars(connection._session).values():
            if isinstance(queue, deque):
                queue.clear()  # registered already
        connection._liveness.on_connected(clock.mono_ns())
        websocket = StopAfter.connect(f"ws://127.0.0.1:{port_queue.get()}/", 1 << 22)
        websocket.arm(stop, messages)
        begin_s = time.process_time()
        with profile or nullcontext():
            connection._message_loop(websocket)
        elapsed_s = time.process_time() - begin_s
        books_or_ticks = vitals.get("books") + vitals.get("ticks")
        assert books_or_ticks == messages, f"{books_or_ticks} records of {messages} messages"
        return elapsed_s / messages * 1e6, messages / websocket.polls
    finally:
        server.kill()
        shutil.rmtree((root / "run" / "ring").resolve(), ignore_errors=True)
        shutil.rmtree(root)


def run_child(checkout: Path, name: str, rate: int, messages: int) -> tuple[float, float]:
    """One run in a process of its own, with the modules of a checkout and this benchmark."""
    mine = Path(__file__).parents[1]
    code = f"import sys; sys.path[:0] = [{str(checkout)!r}]; sys.path.append({str(mine)!r})\n"
    code += f"import runpy; sys.argv = ['receive', '--child', {name!r}, '{rate}', '{messages}']\n"
    code += "import benchmarks\n"
    code += f"benchmarks.__path__ = [{str(mine / 'benchmarks')!r}]\nrunpy.run_module('benchmarks.receive', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=checkout)
    if done.returncode:
        sys.exit(f"{name} at {rate}/s in {checkout} failed:\n{done.stderr}")
    cpu_us, per_poll = done.stdout.split()[-2:]
    return float(cpu_us), float(per_poll)


def print_profile(name: str, messages: int) -> None:
    """The functions that take the most time by themselves, waiting for the next message left out."""
    profile = cProfile.Profile()
    cpu_us, _ = measure(name, 5000, messages, profile)
    print(f"{name} at 5,000/s: {cpu_us:.1f} us of CPU a message under the profiler; own time and calls a message")
    found = pstats.Stats(profile).get_stats_profile().func_profiles
    for function, cost in sorted(found.items(), key=lambda item: -item[1].tottime)[:25]:
        calls = int(str(cost.ncalls).split("/")[0]) / messages
        file = cost.file_name if cost.file_name == "~" else "/".join(Path(cost.file_name).parts[-2:])
        print(f"{cost.tottime / messages * 1e6:7.2f} us {calls:6.1f}  {function:<50} {file}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout, whose runs take turns with this one's")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--only", default="", help="cases whose name begins so: 'kis', 'kiwoom 0D'")
    parser.add_argument("--profile", help="print where the time of one case goes, by function")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, rate, messages = options.child
        print(*measure(name, int(rate), int(messages)))
        return
    if options.profile:
        print_profile(options.profile, options.messages)
        return
    checkouts = [Path(__file__).parents[1], *([options.against.resolve()] if options.against else [])]
    print(f"CPU us a message, socket to ring: median (min to max) of {options.runs} runs in turn")
    print(
        f"{'frame':<10} {'pace':>8} {'a poll':>7} {'this':>22}" + f" {'other':>22} {'ratio':>6}" * (len(checkouts) - 1)
    )
    for name, rate in CASES:
        if not name.startswith(options.only):
            continue
        messages = options.messages * (FLOOD_FACTOR if rate == FLOOD else 1)
        found: list[list[tuple[float, float]]] = [[] for _ in checkouts]
        for _ in range(options.runs):
            for runs, checkout in zip(found, checkouts, strict=True):
                runs.append(run_child(checkout, name, rate, messages))
        costs = [[cpu_us for cpu_us, _ in runs] for runs in found]
        shown = [f"{statistics.median(c):7.1f} ({min(c):5.1f} to {max(c):5.1f})" for c in costs]
        pace = "flood" if rate == FLOOD else f"{rate:,}/s"
        per_poll = statistics.median(each for _, each in found[0])
        ratio = f" {statistics.median(costs[0]) / statistics.median(costs[1]):6.2f}" if len(costs) > 1 else ""
        print(
            f"{name:<10} {pace:>8} {per_poll:7.1f} {shown[0]:>22}" + (f" {shown[1]:>22}" if ratio else "") + ratio,
            flush=True,
        )


if __name__ == "__main__":
    main()
