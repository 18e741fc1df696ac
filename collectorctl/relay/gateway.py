"""Gateway: both vendors' WebSocket servers over one stream of records.

    records ─┬─> RelayFeed ──> ws://127.0.0.1:KIS_PORT       POST /oauth2/Approval /oauth2/tokenP
             └─> RelayFeed ──> ws://127.0.0.1:KIWOOM_PORT    POST /oauth2/token

Guarantees:
    * Whichever feed a Korean record came from, both vendors' forms have it; KIS's form has the US ones.
    * What is not served is refused in the vendor's form; nothing that was accepted stays silent for that reason.
    * The servers are those of the simulator, but for two rules: a key may have any number of sessions, and the above.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Set
from datetime import datetime
from random import Random
from typing import Any

import numpy as np
from aiohttp import web

from brokers.simulator.ground_truth import Stream
from brokers.simulator.kis import auth as kis_auth
from brokers.simulator.kis import overseas
from brokers.simulator.kis.encode import PROFILES
from brokers.simulator.kis.overseas_encode import RecordEncoder, format_key
from brokers.simulator.kis.record_encode import encode_record as encode_kis
from brokers.simulator.kis.websocket import DOMESTIC, KisRules, KisWebSocketServer, TrCatalog
from brokers.simulator.kiwoom import auth as kiwoom_auth
from brokers.simulator.kiwoom.record_encode import encode_record as encode_kiwoom
from brokers.simulator.kiwoom.websocket import KiwoomRules, KiwoomWebSocketServer
from collectorctl.relay.feed import RelayFeed
from collectorctl.relay.keys import Access, RelayKeyStore, RelayTokenStore
from conf.clock import SECOND_NS
from conf.instrument import Instrument
from conf.market import US
from conf.settings import Relay as RelaySettings

STOP_TIMEOUT_S = 3.0
NEWCOMER_NS = 2 * SECOND_NS
NORMAL_CLOSURE = 1000


class PortTaken(Exception):
    """An address that cannot be listened on; the message says which and what to do."""


class Gateway:
    """Both servers, their clients, and what is published to them."""

    def __init__(
        self,
        settings: RelaySettings,
        token: str,
        served: frozenset[tuple[Instrument, Stream]],
        add: Callable[[str], None],
        now: Callable[[], datetime],
        us_paid: bool,
    ) -> None:
        """What is served, and how.

        Args:
            settings: addresses, ports and widths.
            token: which clients must know; "" for none.
            served: what can be registered.
            add: counts `relayed` and `clients_cut`.
            now: the time in heartbeats.
            us_paid: whether US instruments have the keys of the paid feed; the other ones are refused.
        """
        self.served = served
        self.is_listening = False
        self.refusal = ""
        self._down: Set[str] = frozenset()
        self._us_paid = us_paid
        access, widths, encode_us = Access(token), PROFILES[settings.kis_widths], RecordEncoder(us_paid).encode
        korean = frozenset(one for one in served if one[0].market is not US)

        def encode(stream: str, record: Mapping[str, Any], instrument: Instrument) -> bytes:
            if instrument.market is US:
                return encode_us(stream, record, instrument)
            return encode_kis(stream, record, instrument, widths)

        kis_feed = RelayFeed("kis", encode, add)
        kiwoom_feed = RelayFeed("kiwoom", encode_kiwoom, add)
        self.feeds = (kis_feed, kiwoom_feed)
        self._markets = tuple({instrument.market.name for instrument, _ in each} for each in (served, korean))
        trs = DOMESTIC.trs | (overseas.STREAMS.keys() if served - korean else set())
        kis_keys, kiwoom_keys = RelayKeyStore(access), RelayTokenStore(access)
        kis_rules = KisRules(one_session_per_key=False, served_only=True)
        kis = KisWebSocketServer(kis_feed, kis_rules, kis_keys, Random(), now, TrCatalog(trs, self._resolve))
        kiwoom_rules = KiwoomRules(one_session_per_key=False, served_only=True)
        kiwoom = KiwoomWebSocketServer(kiwoom_feed, kiwoom_rules, kiwoom_keys, korean)
        kiwoom_routes = kiwoom_auth.AuthRoutes(kiwoom_keys, kiwoom_feed.faults).build_routes()
        self._address = settings.address
        self._sites = (
            (settings.kis_port, _build_runner([*kis_auth.AuthRoutes(kis_keys).build_routes(), *kis.build_routes()])),
            (settings.kiwoom_port, _build_runner([*kiwoom_routes, *kiwoom.build_routes()])),
        )

    @property
    def addresses(self) -> str:
        """Where it listens, in words."""
        return ", ".join(
            f"{feed.name} {self._address}:{port}" for feed, (port, _) in zip(self.feeds, self._sites, strict=True)
        )

    @property
    def clients(self) -> int:
        """How many clients are connected."""
        return sum(len(feed.connections) for feed in self.feeds)

    async def listen(self) -> None:
        """Open both ports. PortTaken."""
        for port, runner in self._sites:
            if runner.sites:
                continue
            await runner.setup()
            try:
                await web.TCPSite(runner, self._address, port).start()
            except OSError as error:
                reason = f"{self._address}:{port}: {error.strerror}"
                raise PortTaken(f"{reason}: set relay.address and its ports to free ones") from None
        self.is_listening = True

    def publish(self, stream: str, records: np.ndarray, form: str = "") -> None:
        """Queue `records` (ORDERBOOK or TICK) for the clients of both forms, or of the one named."""
        for feed in self.feeds:
            if form in ("", feed.name):
                feed.publish(stream, records)

    def refuse(self, down: Set[str]) -> None:
        """Let in nobody for whom nothing but the markets `down` is served, and cut who has nothing else."""
        self._down = down
        self.refusal = f"no collector of {' and '.join(sorted(down))} runs" if down else ""
        for feed, markets in zip(self.feeds, self._markets, strict=True):
            feed.refusal = self.refusal if markets <= down else ""
            if feed.refusal:
                feed.cut_all(self.refusal)
        self.cut_silent()

    def cut_silent(self) -> None:
        """Cut who has registered nothing but what nobody collects; a newcomer may have more to register."""
        newest_ns = time.monotonic_ns() - NEWCOMER_NS
        for connection in [one for feed in self.feeds for one in feed.connections.values()]:
            markets = {instrument.market.name for instrument, _ in connection.subscriptions}
            if markets and markets <= self._down and connection.opened_ns < newest_ns:
                connection.abort(self.refusal)

    async def finish(self, reason: str) -> None:
        """End every connection with a close frame, after what waits for it."""
        connections = [one for feed in self.feeds for one in feed.connections.values()]
        await asyncio.gather(*(one.close(reason, NORMAL_CLOSURE, b"Bye") for one in connections))

    async def close(self, reason: str) -> None:
        """End every connection, wait until each is accounted for, and close the ports."""
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        while self.clients and time.monotonic() < deadline_s:
            for feed in self.feeds:
                feed.cut_all(reason)
            await asyncio.sleep(0.01)
        for _, runner in self._sites:
            await runner.cleanup()

    def _resolve(self, kind: str, key: str) -> tuple[Instrument, Stream]:
        """What a registration of KIS's form means. ValueError for what is not served."""
        if kind in overseas.STREAMS:
            found = overseas.resolve_key(kind, key)
            is_served = found in self.served and key == format_key(found[0], self._us_paid)
        else:
            found = DOMESTIC.resolve(kind, key)
            is_served = found in self.served
        if not is_served:
            raise ValueError(f"{key} is not served")
        return found


def _build_runner(routes: list[web.RouteDef]) -> web.AppRunner:
    app = web.Application()
    app.add_routes(routes)
    return web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
