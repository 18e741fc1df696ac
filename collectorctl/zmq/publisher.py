"""ZeroMQ publisher: the rings of a home read beside the writer, published under a topic for each stream and symbol.

    rings ──Live──> messages ──History──> XPUB    tcp://127.0.0.1:PORT           topic, JSON
                                  └─────> ROUTER  tcp://127.0.0.1:RESEND_PORT    messages that somebody missed

Guarantees:
    * A collector cannot notice it: rings are read as in reader/tap.py. It waits for no subscriber.
    * Each message has the next number of its topic, and every HEADS_S the newest number of every topic is published: a subscriber
      recognises each message that ZeroMQ dropped for it.
    * Whoever subscribes has the last books and states of feeds that match, and the numbers, ahead of what comes later.
    * Where the rings had to be opened again, an epoch begins, as after a restart.

Not handled here:
    * Other hosts: both ports are on loopback.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import msgspec
import zmq
from loguru import logger

from collectorctl.reader.live import Live
from collectorctl.reader.messages import Lost, Message
from collectorctl.zmq.envelope import HEADS
from collectorctl.zmq.history import History
from conf.home import Home
from conf.process import ShutdownSignal
from conf.settings import Zmq as ZmqSettings
from ringbuf.ring_file import RingError
from ringbuf.vitals import ProcessState, Vitals

HOST = "127.0.0.1"
HEADS_S = 1.0
RETRY_S = 2.0
MAX_RESENT = 1000
"""Messages in one answer."""

MAX_REQUESTS = 100
"""Subscriptions and requests that are answered between two looks at the rings."""

SUBSCRIBED = b"\x01"
MEGABYTE = 1 << 20


class PortTaken(Exception):
    """An address that cannot be listened on; the message says which and what to do."""


class ResendRequest(msgspec.Struct, frozen=True):
    """What somebody missed: messages `first` to `last` of a topic."""

    epoch: int
    topic: str
    first: int
    last: int


class Sockets:
    """XPUB of the stream and ROUTER of what was missed."""

    def __init__(
        self, settings: ZmqSettings, count: Callable[[str, int], None], *, waits_for_subscribers: bool = False
    ) -> None:
        """Nothing is opened yet.

        Args:
            settings: ports and high-water mark.
            count: called with the name of a counter and by how much it grows.
            waits_for_subscribers: `send` refuses what a subscriber has no room for, instead of dropping it for that one.
        """
        self._settings = settings
        self._count = count
        self._heads_s = 0.0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._stream = self._context.socket(zmq.XPUB)
        self._stream.sndhwm = settings.high_water
        self._stream.setsockopt(zmq.XPUB_VERBOSER, 1)  # a second subscriber to a topic wants its last value too
        self._stream.setsockopt(zmq.XPUB_NODROP, int(waits_for_subscribers))
        self._resend = self._context.socket(zmq.ROUTER)
        self._bound: list[zmq.Socket[bytes]] = []
        self.subscribers = 0
        """How many are subscribed to the heads, as everybody is who wants to know what was missed."""

    def listen(self) -> None:
        """Open the ports that are not open yet. PortTaken."""
        for name, socket in (("port", self._stream), ("resend_port", self._resend)):
            if socket in self._bound:
                continue
            address = f"{HOST}:{getattr(self._settings, name)}"
            try:
                socket.bind(f"tcp://{address}")
            except zmq.ZMQError as error:
                raise PortTaken(f"{address}: {os.strerror(error.errno or 0)}: set zmq.{name} to a free one") from None
            self._bound.append(socket)

    def send(self, parts: tuple[bytes, bytes]) -> bool:
        """Publish a topic's payload; whether it was: see `waits_for_subscribers`."""
        try:
            self._stream.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def send_heads(self, history: History, at_ns: int) -> None:
        """Publish the heads if HEADS_S passed since the last ones."""
        if time.monotonic() - self._heads_s >= HEADS_S and self.send((HEADS, history.make_heads(at_ns))):
            self._heads_s = time.monotonic()

    def answer(self, history: History, at_ns: int) -> None:
        """Answer subscriptions and requests that wait."""
        self._answer_subscriptions(history, at_ns)
        self._answer_requests(history)

    def close(self, linger_s: float = 0.0) -> None:
        """Close the ports; what was sent and not taken yet is waited for so long."""
        self._context.destroy(linger=round(linger_s * 1000))

    def _answer_subscriptions(self, history: History, at_ns: int) -> None:
        """Publish the last values of topics that somebody subscribed just now, and the heads behind them."""
        for frames in _read_waiting(self._stream):
            prefix, is_new = frames[0][1:], frames[0][:1] == SUBSCRIBED
            if HEADS.startswith(prefix):
                self.subscribers += 1 if is_new else -1
            if not is_new:
                continue
            for parts in history.make_snapshots(prefix):
                self.send(parts)
            if HEADS.startswith(prefix):
                self.send((HEADS, history.make_heads(at_ns)))

    def _answer_requests(self, history: History) -> None:
        """Send again what is kept of the messages that somebody missed: the epoch, then at most MAX_RESENT payloads."""
        for frames in _read_waiting(self._resend):
            payloads: list[bytes] = []
            try:
                request = msgspec.json.decode(frames[-1], type=ResendRequest)
            except msgspec.DecodeError as error:
                logger.warning("a request to resend that cannot be read: {}", error)
            else:
                if request.epoch == history.epoch:
                    topic = request.topic.encode(errors="replace")
                    payloads, gone = history.read(topic, request.first, request.last, MAX_RESENT)
                    self._count("resent", len(payloads))
                    self._count("resend_gone", gone)
            self._resend.send_multipart([*frames[:-1], msgspec.json.encode(history.epoch), *payloads])


def _read_waiting(socket: zmq.Socket[bytes]) -> Iterator[list[bytes]]:
    """The messages that wait on a socket."""
    for _ in range(MAX_REQUESTS):
        try:
            yield socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return


class Publisher:
    """The rings of one home, published."""

    def __init__(self, home: Home, vitals: Vitals, sockets: Sockets) -> None:
        self._home = home
        self._vitals = vitals
        self._settings = home.settings.zmq
        self._clock = home.load_clock()
        self._sockets = sockets

    def run(self, stop: ShutdownSignal) -> None:
        """Publish until asked to stop."""
        while not stop.requested:
            try:
                self._sockets.listen()
                self._follow(stop)
            except PortTaken as error:
                self._fail(f"{error}; tried again by itself", stop)
            except (RingError, OSError) as error:
                self._fail(f"{error}: the rings cannot be read; tried again by itself", stop)

    def _fail(self, detail: str, stop: ShutdownSignal) -> None:
        """Be FAILING for a while, with heartbeats."""
        logger.error("{}", detail)
        self._vitals.set_state(ProcessState.FAILING, detail)
        deadline_s = time.monotonic() + RETRY_S
        while not stop.requested and time.monotonic() < deadline_s:
            self._vitals.heartbeat()
            stop.wait(0.1)

    def _follow(self, stop: ShutdownSignal) -> None:
        """Read the rings and publish everything: one epoch."""
        history = History(self._clock.now_ns(), self._settings.resend_mb * MEGABYTE)
        with Live(self._home) as live:
            detail = f"tcp://{HOST}:{self._settings.port}, what was missed at {self._settings.resend_port}"
            self._vitals.set_state(ProcessState.RUNNING, detail)
            while not stop.requested:
                at_ns = self._clock.now_ns()
                messages = live.read()
                self._publish(history, messages, at_ns)
                self._sockets.answer(history, at_ns)
                self._vitals.heartbeat()
                time.sleep(live.next_pause(bool(messages)))

    def _publish(self, history: History, messages: list[Message], at_ns: int) -> None:
        for message in messages:
            if isinstance(message, Lost) and message.last is not None:
                self._vitals.add("lost_records", message.last - message.first + 1)
                logger.warning("{}: the publisher was too late for these records, the files have them", message)
            self._sockets.send(history.add(message, at_ns))
        if messages:
            self._vitals.add("published", len(messages))
        self._sockets.send_heads(history, at_ns)


def serve(home: Home, stop: ShutdownSignal, vitals: Vitals) -> None:
    """Publish until asked to stop."""
    sockets = Sockets(home.settings.zmq, vitals.add)
    try:
        Publisher(home, vitals, sockets).run(stop)
    finally:
        sockets.close()
