"""Relay process: the rings of a home read beside the writer, served as both vendors' WebSockets.

    rings ──Live──> books, ticks ──Gateway──> clients

Guarantees:
    * A collector cannot notice it: rings are read as in reader/tap.py.
    * Whichever feed a Korean record came from, both vendors' forms have it; KIS's form has the US ones.
    * What is not collected is refused in the vendor's form; nothing that was accepted stays silent for that reason.
    * What this process lost, and shares that no tick covers, are logged and counted: the vendors' protocols have no word for it.
    * While no collector lives of all that a client has registered, it is cut, and while none lives nobody is let in: a connection
      that is up has data behind it.

Not handled here:
    * Order notices and REST calls other than those of authentication.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from loguru import logger

from brokers.allocation.allocate import plan_connections
from brokers.allocation.credentials import key_counts
from brokers.simulator.ground_truth import Stream
from collectorctl.reader.live import Live, RecordBatch
from collectorctl.reader.messages import FeedDown, FeedUp, Gap, Lost, Phase
from collectorctl.relay.feed import STREAM_OF
from collectorctl.relay.gateway import Gateway, PortTaken
from conf.clock import to_kst
from conf.home import Home
from conf.instrument import Instrument
from conf.market import MARKETS
from conf.process import ShutdownSignal
from ringbuf.ring_file import RingError
from ringbuf.vitals import ProcessState, Vitals

RETRY_S = 2.0
GAP_LOG_S = 10.0
MAX_NAMED = 5


class Relay:
    """Both vendors' servers of one home."""

    def __init__(self, home: Home, token: str, vitals: Vitals) -> None:
        self._home = home
        self._vitals = vitals
        clock = home.load_clock()
        settings, served = home.settings, find_collected(home)
        self._gateway = Gateway(
            settings.relay, token, served, vitals.add, lambda: to_kst(clock.now_ns()), settings.us.paid
        )
        self._served_markets = {instrument.market.name for instrument, _ in served}
        self._is_up: dict[str, bool] = {}
        self._gaps: Counter[str] = Counter()
        self._gaps_logged_s = 0.0

    async def run(self, stop: ShutdownSignal) -> None:
        """Serve until asked to stop."""
        try:
            while not stop.requested and not self._gateway.is_listening:
                try:
                    await self._gateway.listen()
                except PortTaken as error:
                    await self._fail(f"{error}; tried again by itself", stop)
            while not stop.requested:
                try:
                    await self._follow(stop)
                except (RingError, OSError) as error:
                    await self._fail(f"{error}: the rings cannot be read; tried again by itself", stop)
        finally:
            await self._gateway.close("the relay stops")

    async def _fail(self, detail: str, stop: ShutdownSignal) -> None:
        """Be FAILING for a while, with heartbeats."""
        logger.error("{}", detail)
        self._vitals.set_state(ProcessState.FAILING, detail)
        deadline_s = time.monotonic() + RETRY_S
        while not stop.requested and time.monotonic() < deadline_s:
            self._vitals.heartbeat()
            await asyncio.sleep(0.1)

    async def _follow(self, stop: ShutdownSignal) -> None:
        """Read the rings and hand everything on."""
        symbols = sorted({str(instrument) for instrument, _ in self._gateway.served})
        state = (ProcessState.STARTING, "")
        with Live(self._home, symbols) as live:
            while not stop.requested:
                found = live.read_batches()
                for message in found:
                    self._take(message)
                if self._gateway.refusal:
                    self._gateway.cut_silent()
                self._report_gaps()
                self._vitals.set("clients", self._gateway.clients)
                self._vitals.heartbeat()
                if state != (state := self._describe()):
                    self._vitals.set_state(*state)
                await asyncio.sleep(live.next_pause(bool(found)))

    def _describe(self) -> tuple[ProcessState, str]:
        refusal = self._gateway.refusal
        what = f"{refusal}: clients are refused" if refusal else f"{self._gateway.clients} clients"
        return ProcessState.RUNNING, f"{self._gateway.addresses}; {what}"

    def _take(self, message: RecordBatch | Gap | Lost | FeedDown | FeedUp | Phase) -> None:
        match message:
            case RecordBatch(stream, records):
                self._gateway.publish(stream, records)
            case Lost(last=int(last)):
                self._vitals.add("lost_records", last - message.first + 1)
                logger.warning(
                    "{} {}: records {} to {} were {} before the relay had read them: no client got them, the files have them",
                    message.feed,
                    message.stream,
                    message.first,
                    last,
                    "damaged" if message.is_damage else "overwritten",
                )
            case Gap():
                self._vitals.set("gap_count", self._vitals.get("gap_count") + 1)
                self._vitals.set("gap_shares", self._vitals.get("gap_shares") + message.shares)
                self._gaps[f"{message.symbol} {message.venue}"] += message.shares
            case FeedDown(feed, connection, reason, _):
                logger.warning("{}: connection {} is down: {}", feed, connection or "of the process", reason)
                self._note_process(feed, connection, is_up=False)
            case FeedUp(feed, connection):
                self._note_process(feed, connection, is_up=True)

    def _note_process(self, feed: str, connection: int, is_up: bool) -> None:
        """Cut and refuse clients for whom no collector lives."""
        if connection:
            return
        self._is_up[feed] = is_up
        known = {
            name: [self._is_up[feed] for feed in MARKETS[name].feeds if feed in self._is_up]
            for name in self._served_markets
        }
        self._gateway.refuse({name for name, states in known.items() if states and not any(states)})

    def _report_gaps(self) -> None:
        """Log the gaps of a while in one line."""
        if not self._gaps or time.monotonic() - self._gaps_logged_s < GAP_LOG_S:
            return
        named = ", ".join(f"{name}: {shares}" for name, shares in self._gaps.most_common(MAX_NAMED))
        more = ", ..." * (len(self._gaps) > MAX_NAMED)
        logger.warning("shares that were traded and are in no tick of the live stream: {}{}", named, more)
        self._gaps.clear()
        self._gaps_logged_s = time.monotonic()


def find_collected(home: Home) -> frozenset[tuple[Instrument, Stream]]:
    """What the collectors subscribe, by the allocation that they use. SettingsError."""
    allocation = plan_connections(home.settings, key_counts(home))
    return frozenset(
        (subscription.instrument, STREAM_OF[subscription.stream])
        for connections in allocation.connections.values()
        for connection in connections
        for subscription in connection.subscriptions
    )


def serve(home: Home, stop: ShutdownSignal, vitals: Vitals, token: str) -> None:
    """Relay until asked to stop."""
    asyncio.run(Relay(home, token, vitals).run(stop))
