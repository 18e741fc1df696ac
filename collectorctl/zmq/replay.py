"""`collectorctl replay --zmq`: a stored day on the sockets of the publisher, in the foreground.

    data/, journal ──reader/replay.py──> messages, each when it is due ──History──> XPUB, ROUTER

Guarantees:
    * Every message of `home.replay` comes once to each who subscribed before it, in receive order, numbered as by the publisher.
    * It plays while as many are subscribed as wanted, and waits otherwise, also for one that does not read: nothing is dropped.
    * It writes nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from collectorctl.reader.messages import Book, Gap, Message, Tick
from collectorctl.reader.replay import Replay, report_not_received
from collectorctl.zmq.envelope import HEADS
from collectorctl.zmq.history import History
from collectorctl.zmq.publisher import HOST, MEGABYTE, Sockets
from conf.settings import Zmq as ZmqSettings

POLL_S = 0.005
SETTLE_S = 1.0
"""How long no further subscriber has come when it begins."""

LINGER_S = 30.0
"""How long what was sent may be on its way to those that read slowly."""


def run_replay(
    replay: Replay, settings: ZmqSettings, report: Callable[[str], None], begin_ns: int, clients: int = 1
) -> None:
    """Publish a stored day. PortTaken; OSError, PartitionWriteError: an unreadable file.

    Args:
        replay: of the day, with its span and speed.
        settings: ports, kept messages and high-water mark.
        report: called with lines for the user.
        begin_ns: of the span.
        clients: how many must be subscribed.
    """
    sockets = Sockets(settings, lambda counter, count: None, waits_for_subscribers=True)
    session = _Session(replay, sockets, settings, begin_ns, clients)
    try:
        sockets.listen()
        who = "a subscriber has" if clients == 1 else f"{clients} subscribers have"
        report(f"tcp://{HOST}:{settings.port}, what was missed at {settings.resend_port}: begins when {who} come")
        session.run()
    finally:
        sockets.close(LINGER_S)
    report(f"played {session.played[Book]} books and {session.played[Tick]} ticks")
    report_not_received(report, session.gap_shares, replay.count_fetched())


class _Session:
    """A replay on its way to the subscribers."""

    def __init__(self, replay: Replay, sockets: Sockets, settings: ZmqSettings, begin_ns: int, clients: int) -> None:
        self._replay, self._sockets, self._clients = replay, sockets, clients
        self._history = History(time.time_ns(), settings.resend_mb * MEGABYTE)
        self._reached_ns = begin_ns
        self.played: Counter[type[Message]] = Counter()
        self.gap_shares = 0

    def run(self) -> None:
        """Publish everything, and the heads behind it."""
        while (due := self._replay_due()) is not None:
            for at_ns, message in due:
                self._reached_ns = at_ns
                numbered = self._history.number(message, at_ns)
                self._send(numbered.parts)
                self._history.keep(numbered)  # not before: while it waits for room, heads would name it
                self.played[type(message)] += 1
                if isinstance(message, Gap):
                    self.gap_shares += message.shares
            self._answer()
            if not due:
                time.sleep(POLL_S)
        self._send((HEADS, self._history.make_heads(self._reached_ns)))

    def _replay_due(self) -> list[tuple[int, Message]] | None:
        """What is due, once there are subscribers; no time of the day passes while there are not enough."""
        if self._sockets.subscribers < self._clients:
            self._replay.pause()
            known, settled_s = self._sockets.subscribers, time.monotonic()
            while self._sockets.subscribers < self._clients or time.monotonic() - settled_s < SETTLE_S:
                if known != self._sockets.subscribers:
                    known, settled_s = self._sockets.subscribers, time.monotonic()
                self._answer()
                time.sleep(POLL_S)
            self._replay.resume()
        return self._replay.read_due()

    def _send(self, parts: tuple[bytes, bytes]) -> None:
        """Publish once there is room at every subscriber."""
        while not self._sockets.send(parts):
            self._answer()
            time.sleep(POLL_S)

    def _answer(self) -> None:
        self._sockets.answer(self._history, self._reached_ns)
        self._sockets.send_heads(self._history, self._reached_ns)
