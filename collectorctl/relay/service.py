"""Relay process: the rings of a home read beside the writer, served as both vendors' WebSockets.

    rings ──Live──> books, ticks ─┬─> RelayFeed ──> ws://127.0.0.1:KIS_PORT       POST /oauth2/Approval /oauth2/tokenP
                                  └─> RelayFeed ──> ws://127.0.0.1:KIWOOM_PORT    POST /oauth2/token

Guarantees:
    * A collector cannot notice it: rings are read as in reader/tap.py.
    * Whichever feed a record came from, both vendors' forms have it.
    * What is not collected is refused in the vendor's form; nothing that was accepted stays silent for that reason.
    * What this process lost, and shares that no tick covers, are logged and counted: the vendors' protocols have no word for it.
    * While no collector lives, clients are cut and nobody is let in: a connection that is up has data behind it.

Not handled here:
    * US instruments, order notices and REST calls other than those of authentication.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from random import Random

from aiohttp import web
from loguru import logger

from brokers.allocation.allocate import plan_connections
from brokers.allocation.credentials import key_counts
from brokers.simulator.ground_truth import Stream
from brokers.simulator.kis import auth as kis_auth
from brokers.simulator.kis.encode import PROFILES
from brokers.simulator.kis.record_encode import encode_record as encode_kis
from brokers.simulator.kis.websocket import DOMESTIC, KisRules, KisWebSocketServer, TrCatalog
from brokers.simulator.kiwoom import auth as kiwoom_auth
from brokers.simulator.kiwoom.record_encode import encode_record as encode_kiwoom
from brokers.simulator.kiwoom.websocket import KiwoomRules, KiwoomWebSocketServer
from collectorctl.reader.live import Live, RecordBatch
from collectorctl.reader.messages import FeedDown, FeedUp, Gap, Lost, Phase
from collectorctl.relay.feed import STREAM_OF, RelayFeed
from collectorctl.relay.keys import Access, RelayKeyStore, RelayTokenStore
from conf.clock import to_kst
from conf.home import Home
from conf.instrument import Instrument
from conf.market import KR
from conf.process import ShutdownSignal
from ringbuf.ring import RingError
from ringbuf.vitals import ProcessState, Vitals

RETRY_S = 2.0
GAP_LOG_S = 10.0
MAX_NAMED = 5
STOP_TIMEOUT_S = 3.0
NO_FEED = "no collector of this home runs"


class Relay:
    """Both vendors' servers of one home."""

    def __init__(self, home: Home, token: str, vitals: Vitals) -> None:
        self._home = home
        self._vitals = vitals
        table, clock, access = home.settings.relay, home.load_clock(), Access(token)
        self.served = find_collected(home)
        widths = PROFILES[table.kis_widths]
        kis_feed = RelayFeed(
            "kis", lambda stream, record, instrument: encode_kis(stream, record, instrument, widths), vitals
        )
        kiwoom_feed = RelayFeed("kiwoom", encode_kiwoom, vitals)
        self._feeds = (kis_feed, kiwoom_feed)
        kis_keys, kiwoom_keys = RelayKeyStore(access), RelayTokenStore(access)
        kis = KisWebSocketServer(
            kis_feed,
            KisRules(one_session_per_key=False, served_only=True),
            kis_keys,
            Random(),
            lambda: to_kst(clock.now_ns()),
            TrCatalog(DOMESTIC.trs, self._resolve),
        )
        kiwoom_rules = KiwoomRules(one_session_per_key=False, served_only=True)
        kiwoom = KiwoomWebSocketServer(kiwoom_feed, kiwoom_rules, kiwoom_keys, self.served)
        self._sites = (
            (table.kis_port, [*kis_auth.AuthRoutes(kis_keys).build_routes(), *kis.build_routes()]),
            (
                table.kiwoom_port,
                [*kiwoom_auth.AuthRoutes(kiwoom_keys, kiwoom_feed.faults).build_routes(), *kiwoom.build_routes()],
            ),
        )
        self._is_up: dict[str, bool] = {}
        self._gaps: Counter[str] = Counter()
        self._gaps_logged_s = 0.0

    def _resolve(self, kind: str, key: str) -> tuple[Instrument, Stream]:
        """What a registration of KIS's form means. ValueError for what is not collected."""
        found = DOMESTIC.resolve(kind, key)
        if found not in self.served:
            raise ValueError(f"{key} is not collected")
        return found

    async def run(self, stop: ShutdownSignal) -> None:
        """Serve until asked to stop."""
        runners = [
            web.AppRunner(_build_app(routes), access_log=None, shutdown_timeout=0.5) for _, routes in self._sites
        ]
        try:
            for runner, (port, _) in zip(runners, self._sites, strict=True):
                await runner.setup()
                await self._listen(runner, port, stop)
            while not stop.requested:
                try:
                    await self._follow(stop)
                except (RingError, OSError) as error:
                    await self._fail(f"{error}: the rings cannot be read; tried again by itself", stop)
        finally:
            await self._disconnect_all()
            for runner in runners:
                await runner.cleanup()

    async def _listen(self, runner: web.AppRunner, port: int, stop: ShutdownSignal) -> None:
        address = self._home.settings.relay.address
        while not stop.requested:
            try:
                await web.TCPSite(runner, address, port).start()
                return
            except OSError as error:
                await self._fail(
                    f"{address}:{port}: {error.strerror}: set relay.address and the ports to free ones; tried again by itself",
                    stop,
                )

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
        symbols = sorted({str(instrument) for instrument, _ in self.served})
        state = (ProcessState.STARTING, "")
        with Live(self._home, symbols) as live:
            while not stop.requested:
                found = live.read_batches()
                for message in found:
                    self._take(message)
                self._report_gaps()
                self._vitals.set("clients", sum(len(feed.connections) for feed in self._feeds))
                self._vitals.heartbeat()
                if state != (state := self._describe()):
                    self._vitals.set_state(*state)
                await asyncio.sleep(live.next_pause(bool(found)))

    def _describe(self) -> tuple[ProcessState, str]:
        table = self._home.settings.relay
        names = ", ".join(
            f"{feed.name} {table.address}:{port}" for feed, (port, _) in zip(self._feeds, self._sites, strict=True)
        )
        clients = sum(len(feed.connections) for feed in self._feeds)
        refusal = self._feeds[0].refusal
        return (
            ProcessState.RUNNING,
            f"{names}; {f'{refusal}: clients are refused' if refusal else f'{clients} clients'}",
        )

    def _take(self, message: RecordBatch | Gap | Lost | FeedDown | FeedUp | Phase) -> None:
        match message:
            case RecordBatch(stream, records):
                for feed in self._feeds:
                    feed.publish(stream, records)
            case Lost():
                self._vitals.add("lost_records", message.last - message.first + 1)
                logger.warning(
                    "{} {}: records {} to {} were {} before the relay had read them: no client got them, the files have them",
                    message.feed,
                    message.stream,
                    message.first,
                    message.last,
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
        """Cut and refuse clients while no collector lives."""
        if connection or feed not in KR.feeds:
            return
        self._is_up[feed] = is_up
        refusal = "" if any(self._is_up.values()) else NO_FEED
        for source in self._feeds:
            source.refusal = refusal
            if refusal:
                source.cut_all(refusal)

    def _report_gaps(self) -> None:
        """Log the gaps of a while in one line."""
        if not self._gaps or time.monotonic() - self._gaps_logged_s < GAP_LOG_S:
            return
        named = ", ".join(f"{name}: {shares}" for name, shares in self._gaps.most_common(MAX_NAMED))
        more = ", ..." * (len(self._gaps) > MAX_NAMED)
        logger.warning("shares that were traded and are in no tick of the live stream: {}{}", named, more)
        self._gaps.clear()
        self._gaps_logged_s = time.monotonic()

    async def _disconnect_all(self) -> None:
        """End every connection and wait until each is accounted for."""
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        while any(feed.connections for feed in self._feeds) and time.monotonic() < deadline_s:
            for feed in self._feeds:
                feed.cut_all("the relay stops")
            await asyncio.sleep(0.01)


def find_collected(home: Home) -> frozenset[tuple[Instrument, Stream]]:
    """What the collectors of the Korean feeds subscribe, by the allocation that they use. SettingsError."""
    allocation = plan_connections(home.settings, key_counts(home))
    return frozenset(
        (subscription.instrument, STREAM_OF[subscription.stream])
        for connections in allocation.connections.values()
        for connection in connections
        for subscription in connection.subscriptions
        if subscription.instrument.market is KR
    )


def _build_app(routes: Iterable[web.RouteDef]) -> web.Application:
    app = web.Application()
    app.add_routes(routes)
    return app


def serve(home: Home, stop: ShutdownSignal, vitals: Vitals, token: str) -> None:
    """Relay until asked to stop."""
    asyncio.run(Relay(home, token, vitals).run(stop))
