"""Simulator process: market, feeds and vendor servers in one event loop.

    Scheduler ── step ──> ground truth
                   ├────> feed kis ──> KIS server            or, with recorded frames:  Replay ──> KIS, Kiwoom
                   ├────> feed kiwoom ──> Kiwoom server
                   └────> feed us ──> KIS overseas server

Guarantees:
    * Readiness is reported once, after all ports listen.
    * A stop disconnects every client and leaves the ground truth complete.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from random import Random, SystemRandom

from aiohttp import web

from brokers.simulator import faults
from brokers.simulator.addresses import HOST, build_addresses, explain_port
from brokers.simulator.control import ControlChannel, print_response
from brokers.simulator.exchange import backfill
from brokers.simulator.exchange.market import SimulatedMarket
from brokers.simulator.gateway.feed import FeedOptions, SimulatedFeed
from brokers.simulator.gateway.middleware import build_fault_middleware
from brokers.simulator.ground_truth import FeedId, GroundTruthWriter, Stream
from brokers.simulator.kis import auth, overseas, overseas_encode
from brokers.simulator.kis import encode as kis_encode
from brokers.simulator.kis.holidays import HolidayTable
from brokers.simulator.kis.rest import DOMESTIC, QuotationRoutes
from brokers.simulator.kis.websocket import KisRules, KisWebSocketServer
from brokers.simulator.kiwoom import auth as kiwoom_auth
from brokers.simulator.kiwoom import encode as kiwoom_encode
from brokers.simulator.kiwoom import rest
from brokers.simulator.kiwoom.websocket import KiwoomRules, KiwoomWebSocketServer
from brokers.simulator.masters.kis_files import MasterRoutes
from brokers.simulator.replay import Pace, Recording, Replay
from brokers.simulator.scenarios import TimedCommand
from brokers.simulator.scheduler import MarketScheduler
from conf.clock import SECOND_NS, to_kst
from conf.home import Home
from conf.instrument import Instrument
from conf.market import hours_of

DISCONNECT_TIMEOUT_S = 3.0


@dataclass(frozen=True, kw_only=True)
class SimulatorConfig:
    """Everything a run is made from."""

    home: Home
    seed: int
    instruments: list[Instrument]
    truth_dir: Path | None
    books_per_s: float
    always_open: bool
    recording: Recording | None
    frames_speed: float
    faults: list[tuple[faults.Fault, float]]
    commands: tuple[TimedCommand, ...]
    ports: dict[str, int]
    kis_widths: tuple[int, int]
    kis_options: FeedOptions
    kis_rules: KisRules
    kis_calls_per_s: float
    us_options: FeedOptions
    kiwoom_merge: float
    kiwoom_options: FeedOptions
    kiwoom_rules: KiwoomRules
    kiwoom_token_life_s: float
    kiwoom_rest_rules: rest.KiwoomRestRules
    history: dict[str, int]
    earlier_days: int
    earlier_trades: dict[str, int]
    blocks: int

    def build_metadata(self) -> dict[str, object]:
        """The run, as described in the ground truth."""
        return {
            "seed": self.seed,
            "symbols": [str(instrument) for instrument in self.instruments],
            "started_mono_ns": time.monotonic_ns(),
            "options": {
                "books_per_s": self.books_per_s,
                "always_open": self.always_open,
                "history": self.history,
                "earlier_days": self.earlier_days,
                "earlier_trades": self.earlier_trades,
                "blocks": self.blocks,
                "kis": self.kis_options._asdict() | vars(self.kis_rules) | {"widths": self.kis_widths},
                "us": self.us_options._asdict(),
                "kiwoom": self.kiwoom_options._asdict() | vars(self.kiwoom_rules) | {"merge": self.kiwoom_merge},
            },
        }


class SimulatorServer:
    """One run."""

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        self.truth = GroundTruthWriter(config.truth_dir, config.build_metadata())
        clock = config.home.load_clock()
        random = Random(f"{config.seed}:lines")
        merge_random = Random(f"{config.seed}:merge")
        credentials = SystemRandom()  # no two runs issue the same ones, whatever their seed
        kis_tokens = auth.KeyStore(credentials)
        kiwoom_tokens = kiwoom_auth.TokenStore(credentials, config.kiwoom_token_life_s)
        kis_feed = SimulatedFeed(
            FeedId.KIS,
            config.kis_options,
            self.truth,
            Random(f"{config.seed}:kis"),
            lambda items: kis_encode.encode_frames(items, kis_feed.faults.widths or config.kis_widths),
        )
        kiwoom_feed = SimulatedFeed(
            FeedId.KIWOOM,
            config.kiwoom_options,
            self.truth,
            Random(f"{config.seed}:kiwoom"),
            lambda items: kiwoom_encode.encode_frames(items, config.kiwoom_merge, merge_random),
        )
        self.kis = KisWebSocketServer(kis_feed, config.kis_rules, kis_tokens, random, lambda: to_kst(clock.now_ns()))
        served = {(instrument, stream) for instrument in config.instruments for stream in Stream}
        self.kiwoom = KiwoomWebSocketServer(kiwoom_feed, config.kiwoom_rules, kiwoom_tokens, served)
        overseas_subscriptions = overseas.OverseasSubscriptions()
        us_tokens = auth.KeyStore(credentials)
        us_feed = SimulatedFeed(
            FeedId.US,
            config.us_options,
            self.truth,
            Random(f"{config.seed}:us"),
            lambda items: overseas_encode.encode_frames(
                items, us_feed.faults.widths or overseas_encode.WIDTHS, overseas_subscriptions.keys
            ),
        )
        self.us = KisWebSocketServer(
            us_feed, config.kis_rules, us_tokens, random, lambda: to_kst(clock.now_ns()), overseas_subscriptions.catalog
        )
        self.feeds = {"kis": kis_feed, "kiwoom": kiwoom_feed, "us": us_feed}
        self.market = SimulatedMarket(config.instruments, config.seed)
        self.scheduler = MarketScheduler(
            config.home,
            self.market,
            list(self.feeds.values()),
            self.truth,
            Random(f"{config.seed}:pace"),
            config.books_per_s,
            config.always_open,
            self.kiwoom.send_phase_change,
        )
        quotations = QuotationRoutes(
            kis_tokens,
            self.market,
            config.kis_calls_per_s,
            kis_feed.faults,
            lambda: clock.now_ns() // SECOND_NS,
            DOMESTIC._replace(market_calls={"chk-holiday": ("CTCA0903R", HolidayTable(self._is_open).chk_holiday)}),
        )
        kiwoom_rest = rest.RestRoutes(
            kiwoom_tokens,
            self.market,
            config.kiwoom_rest_rules,
            kiwoom_feed.faults,
            Random(f"{config.seed}:pages"),
            self.scheduler.force_trades,
        )
        us_quotations = QuotationRoutes(
            us_tokens,
            self.market,
            config.kis_calls_per_s,
            us_feed.faults,
            lambda: clock.now_ns() // SECOND_NS,
            overseas.CALLS,
        )
        self._routes = {
            "kis": [
                *auth.AuthRoutes(kis_tokens).build_routes(),
                *quotations.build_routes(),
                *MasterRoutes(self.market.listings.values).build_routes(),
                *self.kis.build_routes(),
            ],
            "kiwoom": [
                *kiwoom_auth.AuthRoutes(kiwoom_tokens, kiwoom_feed.faults).build_routes(),
                *kiwoom_rest.build_routes(),
                *self.kiwoom.build_routes(),
            ],
            "us": [
                *auth.AuthRoutes(us_tokens).build_routes(),
                *us_quotations.build_routes(),
                *self.us.build_routes(),
            ],
        }
        vendors: dict[str, KisWebSocketServer | KiwoomWebSocketServer] = {"kis": self.kis, "kiwoom": self.kiwoom}
        self.replays: list[Replay] = []
        if recording := config.recording:
            if "us" in recording.feeds:
                vendors["us"] = self.us
            pace = Pace(config.frames_speed, recording.first_ns)
            self.replays = [Replay(name, recording, pace, vendor.sessions) for name, vendor in vendors.items()]
        self._control = ControlChannel(self.feeds, self.scheduler, self.truth, self._resend)
        self._stop = asyncio.Event()
        self._replay_task: asyncio.Task[None] | None = None

    async def run(self, seconds: float) -> None:
        """Serve until a signal, or for `seconds` unless 0. PortError."""
        loop = asyncio.get_running_loop()
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, self._stop.set)
        if self.config.recording is None:
            self._generate_history()
        runners, ports = list[web.AppRunner](), dict[str, int]()
        try:
            for name, port in self.config.ports.items():
                runner, ports[name] = await _listen(self._routes[name], port, self.feeds[name])
                runners.append(runner)
            print_response(build_addresses(ports))
            await self._serve(loop, seconds)
        finally:
            await self._disconnect_all()
            for runner in runners:
                await runner.cleanup()
            self.truth.close()

    async def _serve(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """Play the market, or the recorded frames, until a signal or for `seconds`."""
        threading.Thread(target=self._control.read_stdin, args=(loop,), daemon=True).start()
        for fault, after_s in self.config.faults:
            loop.call_later(after_s, self.feeds[fault.feed].apply_fault, fault)
        script_task = asyncio.create_task(
            self._control.run_script(self.config.commands, self.config.home.settings.clock.speed)
        )
        market_task = asyncio.create_task(self.scheduler.run() if self.config.recording is None else self._replay())
        self._replay_task = market_task if self.config.recording is not None else None
        if seconds:
            loop.call_later(seconds, self._stop.set)
        stop_task = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([market_task, stop_task], return_when=asyncio.FIRST_COMPLETED)
            if script_task.done():
                script_task.result()
            if market_task.done():
                market_task.result()  # a bug in the market must not look like a quiet market
                await stop_task
        finally:
            market_task.cancel()
            script_task.cancel()

    def _is_open(self, day: date) -> bool:
        """Whether the Korean exchange trades on a day."""
        return self.config.always_open or not self.scheduler.calendar.closed_reason("KRX", day)

    def _generate_history(self) -> None:
        """The days before, and today so far where that is asked for. HistoryError."""
        calendar, now_ns, earlier = self.scheduler.calendar, self.scheduler.clock.now_ns(), 0
        randoms = {one: Random(f"{self.config.seed}:history:{one}") for one in self.market.primary_listings}
        todays = {one: calendar.trading_day(one.venue, now_ns) for one in self.market.primary_listings}
        days = {
            one: backfill.find_earlier_days(calendar, today, self.config.earlier_days, one.venue)
            for one, today in todays.items()
        }
        for day in sorted({day for each in days.values() for day in each}):
            for one, listing in self.market.primary_listings.items():
                number = backfill.requested_trade_count(self.config.earlier_trades, one)
                if number and day in days[one]:
                    end_s = backfill.compute_midnight(day, hours_of(one.venue).zone) + backfill.DAY_S
                    phases = backfill.find_intervals(calendar, one.venue, day, end_s)
                    backfill.generate_day(listing, day, phases, end_s, number, randoms[one], self.config.blocks)
            self.market.consolidate_day(day)
        before = {instrument: len(listing.history) for instrument, listing in self.market.listings.items()}
        for one, listing in self.market.primary_listings.items():
            if number := backfill.requested_trade_count(self.config.history, one):
                phases = backfill.find_elapsed_intervals(calendar, one.venue, now_ns, self.config.always_open)
                backfill.generate_day(
                    listing, todays[one], phases, now_ns // SECOND_NS, number, randoms[one], self.config.blocks
                )
        for day in sorted(set(todays.values())):
            self.market.consolidate_day(day)
        mono_ns = time.monotonic_ns()
        for instrument, all_trades in ((one, each.history.read_rows()) for one, each in self.market.listings.items()):
            old, rows = before[instrument], all_trades
            first_id = self.market.allocate_trade_ids(len(rows) - old)
            self.truth.record_generated_trades("earlier.bin", instrument, rows[:old], earlier + 1, mono_ns)
            earlier += old
            self.truth.record_generated_trades("trades.bin", instrument, rows[old:], first_id, mono_ns)
        self.truth.flush()

    async def _replay(self) -> None:
        sent: dict[str, int] = {}
        for done in asyncio.as_completed([replay.run() for replay in self.replays]):
            feed, number = await done
            sent[feed] = number
            print_response({"frames_sent": sent})

    async def _disconnect_all(self) -> None:
        """End every connection and wait until each has settled its records."""
        deadline_s = time.monotonic() + DISCONNECT_TIMEOUT_S
        while time.monotonic() < deadline_s and any(line.connections for line in self.feeds.values()):
            for feed in self.feeds.values():
                for connection in list(feed.connections.values()):
                    connection.abort("simulator stopped")
            await asyncio.sleep(0.01)

    def _resend(self) -> bool:
        """Send the recorded frames once more, unless there are none or they are being sent."""
        if self._replay_task is None or not self._replay_task.done():
            return False
        self._replay_task = asyncio.create_task(self._replay())
        return True


async def _listen(routes: list[web.RouteDef], port: int, feed: SimulatedFeed) -> tuple[web.AppRunner, int]:
    app = web.Application(middlewares=[build_fault_middleware(feed.name, feed.faults)])
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
    except OSError as error:
        await runner.cleanup()
        raise explain_port(feed.name, port, error) from None
    return runner, runner.addresses[0][1]
