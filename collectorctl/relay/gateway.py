"""Gateway: both vendors' WebSocket servers over one stream of records.

    records ─┬─> RelayFeed ──> ws://127.0.0.1:KIS_PORT       POST /oauth2/Approval /oauth2/tokenP
             └─> RelayFeed ──> ws://127.0.0.1:KIWOOM_PORT    POST /oauth2/token

Guarantees:
    * Whichever feed a record came from, both vendors' forms have it.
    * What is not served is refused in the vendor's form; nothing that was accepted stays silent for that reason.
    * The servers are those of the simulator, but for two rules: a key may have any number of sessions, and the above.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from random import Random

import numpy as np
from aiohttp import web

from brokers.simulator.ground_truth import Stream
from brokers.simulator.kis import auth as kis_auth
from brokers.simulator.kis.encode import PROFILES
from brokers.simulator.kis.record_encode import encode_record as encode_kis
from brokers.simulator.kis.websocket import DOMESTIC, KisRules, KisWebSocketServer, TrCatalog
from brokers.simulator.kiwoom import auth as kiwoom_auth
from brokers.simulator.kiwoom.record_encode import encode_record as encode_kiwoom
from brokers.simulator.kiwoom.websocket import KiwoomRules, KiwoomWebSocketServer
from collectorctl.relay.feed import RelayFeed
from collectorctl.relay.keys import Access, RelayKeyStore, RelayTokenStore
from conf.instrument import Instrument
from conf.settings import Relay as RelaySettings

STOP_TIMEOUT_S = 3.0
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
    ) -> None:
        """`served`: what can be registered; `add`: counts `relayed` and `clients_cut`; `now`: the time in heartbeats."""
        self.served = served
        self.is_listening = False
        self.refusal = ""
        access, widths = Access(token), PROFILES[settings.kis_widths]
        kis_feed = RelayFeed(
            "kis", lambda stream, record, instrument: encode_kis(stream, record, instrument, widths), add
        )
        kiwoom_feed = RelayFeed("kiwoom", encode_kiwoom, add)
        self.feeds = (kis_feed, kiwoom_feed)
        kis_keys, kiwoom_keys = RelayKeyStore(access), RelayTokenStore(access)
        kis_rules = KisRules(one_session_per_key=False, served_only=True)
        kis = KisWebSocketServer(kis_feed, kis_rules, kis_keys, Random(), now, TrCatalog(DOMESTIC.trs, self._resolve))
        kiwoom_rules = KiwoomRules(one_session_per_key=False, served_only=True)
        kiwoom = KiwoomWebSocketServer(kiwoom_feed, kiwoom_rules, kiwoom_keys, served)
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

    def publish(self, stream: str, records: np.ndarray) -> None:
        """Queue `records` (ORDERBOOK or TICK) for the clients of both forms."""
        for feed in self.feeds:
            feed.publish(stream, records)

    def refuse(self, reason: str) -> None:
        """Cut and let in nobody while there is a reason ("": none)."""
        self.refusal = reason
        for feed in self.feeds:
            feed.refusal = reason
            if reason:
                feed.cut_all(reason)

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
        found = DOMESTIC.resolve(kind, key)
        if found not in self.served:
            raise ValueError(f"{key} is not served")
        return found


def _build_runner(routes: list[web.RouteDef]) -> web.AppRunner:
    app = web.Application()
    app.add_routes(routes)
    return web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
