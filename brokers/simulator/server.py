"""All vendors, their lines and the market put together in one event loop.

    Pace ── step ──> Truth
              └────> Line kis ──> Kis (port)          or, with recorded frames:  Replay ──> Kis, Kiwoom
              ├────> Line kiwoom ──> Kiwoom (port)
              └────> Line us ──> Kis, overseas (port)

Promises: ready is said once, after all ports listen; the end cuts every connection and leaves the truth complete.
Leaves to others: the parts.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from aiohttp import web

from brokers.simulator import faults
from brokers.simulator.control import Steering, say
from brokers.simulator.exchange import backfill
from brokers.simulator.exchange.market import Market
from brokers.simulator.gateway.feed import Line, Options
from brokers.simulator.ground_truth import LineNumber, Truth
from brokers.simulator.kis import auth, overseas, overseas_encode
from brokers.simulator.kis import encode as kis_encode
from brokers.simulator.kis.rest import Quotations
from brokers.simulator.kis.websocket import Kis
from brokers.simulator.kis.websocket import Rules as KisRules
from brokers.simulator.kiwoom import encode as kiwoom_encode
from brokers.simulator.kiwoom import rest
from brokers.simulator.kiwoom.websocket import Kiwoom
from brokers.simulator.kiwoom.websocket import Rules as KiwoomRules
from brokers.simulator.replay import Recorded, Replay
from brokers.simulator.scenarios import Act
from brokers.simulator.scheduler import Pace
from conf.clock import SECOND_NS, korean
from conf.home import Home
from conf.instrument import Instrument
from conf.market import hours_of

HOST = "127.0.0.1"
CLEAR_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything a run is made from."""

    home: Home
    seed: int
    instruments: list[Instrument]
    truth: Path | None
    books_per_s: float
    always_open: bool
    recorded: list[Recorded] | None
    faults: list[tuple[faults.Fault, float]]
    acts: tuple[Act, ...]
    kis_port: int
    kis_widths: tuple[int, int]
    kis_options: Options
    kis_rules: KisRules
    kis_calls_per_s: float
    us_port: int
    us_options: Options
    kiwoom_port: int
    kiwoom_merge: float
    kiwoom_options: Options
    kiwoom_rules: KiwoomRules
    kiwoom_token_life_s: float
    kiwoom_rest_rules: rest.RestRules
    history: dict[str, int]
    earlier_days: int
    earlier_trades: dict[str, int]
    blocks: int

    def meta(self) -> dict[str, object]:
        """What the truth says about the run."""
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


class Server:
    """One run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.truth = Truth(plan.truth, plan.meta())
        clock = plan.home.clock()
        random = Random(f"{plan.seed}:lines")
        merging = Random(f"{plan.seed}:merge")
        kis_tokens = auth.Keys(random)
        kiwoom_tokens = rest.Keys(random, plan.kiwoom_token_life_s)
        kis_line = Line(
            LineNumber.KIS,
            plan.kis_options,
            self.truth,
            Random(f"{plan.seed}:kis"),
            lambda items: kis_encode.frames(items, kis_line.faults.widths or plan.kis_widths),
            kis_tokens.expire,
        )
        kiwoom_line = Line(
            LineNumber.KIWOOM,
            plan.kiwoom_options,
            self.truth,
            Random(f"{plan.seed}:kiwoom"),
            lambda items: kiwoom_encode.frames(items, plan.kiwoom_merge, merging),
            kiwoom_tokens.expire,
        )
        self.kis = Kis(kis_line, plan.kis_rules, kis_tokens, random, lambda: korean(clock.now_ns()))
        self.kiwoom = Kiwoom(kiwoom_line, plan.kiwoom_rules, kiwoom_tokens, plan.instruments)
        overseas_market = overseas.Overseas()
        us_tokens = auth.Keys(random)
        us_line = Line(
            LineNumber.US,
            plan.us_options,
            self.truth,
            Random(f"{plan.seed}:us"),
            lambda items: overseas_encode.frames(
                items, us_line.faults.widths or overseas_encode.WIDTHS, overseas_market.keys
            ),
            us_tokens.expire,
        )
        self.us = Kis(us_line, plan.kis_rules, us_tokens, random, lambda: korean(clock.now_ns()), overseas_market.feed)
        self.lines = {"kis": kis_line, "kiwoom": kiwoom_line, "us": us_line}
        self.market = Market(plan.instruments, plan.seed)
        self.pace = Pace(
            plan.home,
            self.market,
            list(self.lines.values()),
            self.truth,
            Random(f"{plan.seed}:pace"),
            plan.books_per_s,
            plan.always_open,
            self.kiwoom.announce,
        )
        quotations = Quotations(
            kis_tokens, self.market, plan.kis_calls_per_s, kis_line.faults, lambda: clock.now_ns() // SECOND_NS
        )
        desk = rest.Desk(
            kiwoom_tokens,
            self.market,
            plan.kiwoom_rest_rules,
            kiwoom_line.faults,
            Random(f"{plan.seed}:pages"),
            self.pace.move_late,
        )
        self._kis_routes = [*auth.Desk(kis_tokens).routes(), *quotations.routes(), *self.kis.routes()]
        self._kiwoom_routes = [*desk.routes(), *self.kiwoom.routes()]
        minutes = Quotations(
            us_tokens,
            self.market,
            plan.kis_calls_per_s,
            us_line.faults,
            lambda: clock.now_ns() // SECOND_NS,
            overseas.COUNTER,
        )
        self._us_routes = [*auth.Desk(us_tokens).routes(), *minutes.routes(), *self.us.routes()]
        vendors: dict[str, Kis | Kiwoom] = {"kis": self.kis, "kiwoom": self.kiwoom}
        if any(frame.line == "us" for frame in plan.recorded or ()):
            vendors["us"] = self.us
        self.replays = [Replay(name, plan.recorded or [], vendor.sessions) for name, vendor in vendors.items()]
        self._steering = Steering(self.lines, self.pace, self.truth, self._resend)
        self._stop = asyncio.Event()
        self._replaying: asyncio.Task[None] | None = None

    async def run(self, seconds: float) -> None:
        """Serve until a signal, or for `seconds` unless 0."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        if self.plan.recorded is None:
            self._make_history()
        kis_runner, kis_port = await _listen(self._kis_routes, self.plan.kis_port)
        kiwoom_runner, kiwoom_port = await _listen(self._kiwoom_routes, self.plan.kiwoom_port)
        us_runner, us_port = await _listen(self._us_routes, self.plan.us_port)
        say(
            {
                "kis": {"ws_url": f"ws://{HOST}:{kis_port}", "rest_url": f"http://{HOST}:{kis_port}"},
                "kiwoom": {
                    "ws_url": f"ws://{HOST}:{kiwoom_port}/api/dostk/websocket",
                    "rest_url": f"http://{HOST}:{kiwoom_port}",
                },
                "us": {"ws_url": f"ws://{HOST}:{us_port}", "rest_url": f"http://{HOST}:{us_port}"},
            }
        )
        threading.Thread(target=self._steering.listen, args=(loop,), daemon=True).start()
        for fault, after_s in self.plan.faults:
            loop.call_later(after_s, self.lines[fault.line].apply, fault)
        playing = asyncio.create_task(self._steering.play(self.plan.acts, self.plan.home.settings.clock.speed))
        moving = asyncio.create_task(self.pace.run() if self.plan.recorded is None else self._replay())
        self._replaying = moving if self.plan.recorded is not None else None
        if seconds:
            loop.call_later(seconds, self._stop.set)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([moving, stopping], return_when=asyncio.FIRST_COMPLETED)
            if playing.done():
                playing.result()
            if moving.done():
                moving.result()  # a bug in the market must not look like a quiet one
                await stopping
        finally:
            moving.cancel()
            playing.cancel()
            await self._clear()
            await kis_runner.cleanup()
            await kiwoom_runner.cleanup()
            await us_runner.cleanup()
            self.truth.close()

    def _make_history(self) -> None:
        """The days before, and today so far where that is asked for. HistoryError."""
        calendar, now_ns, earlier = self.pace.calendar, self.pace.clock.now_ns(), 0
        randoms = {one: Random(f"{self.plan.seed}:history:{one}") for one in self.market.traded}
        todays = {one: calendar.day(one.venue, now_ns) for one in self.market.traded}
        days = {
            one: backfill.earlier_days(calendar, today, self.plan.earlier_days, one.venue)
            for one, today in todays.items()
        }
        for day in sorted({day for each in days.values() for day in each}):
            for one, listing in self.market.traded.items():
                number = backfill.wanted(self.plan.earlier_trades, one)
                if number and day in days[one]:
                    end_s = backfill.midnight(day, hours_of(one.venue).zone) + backfill.DAY_S
                    phases = backfill.spans(calendar, one.venue, day, end_s)
                    backfill.make_day(listing, day, phases, end_s, number, randoms[one], self.plan.blocks)
            self.market.unify_day(day)
        before = {instrument: len(listing.tape) for instrument, listing in self.market.listings.items()}
        for one, listing in self.market.traded.items():
            if number := backfill.wanted(self.plan.history, one):
                phases = backfill.so_far(calendar, one.venue, now_ns, self.plan.always_open)
                backfill.make_day(
                    listing, todays[one], phases, now_ns // SECOND_NS, number, randoms[one], self.plan.blocks
                )
        for day in sorted(set(todays.values())):
            self.market.unify_day(day)
        mono_ns = time.monotonic_ns()
        for instrument, listing in self.market.listings.items():
            old, rows = before[instrument], listing.tape.rows()
            first_id = self.market.count_made(len(rows) - old)
            self.truth.made("earlier.bin", instrument, rows[:old], earlier + 1, mono_ns)
            earlier += old
            self.truth.made("trades.bin", instrument, rows[old:], first_id, mono_ns)
        self.truth.flush()

    async def _replay(self) -> None:
        sent: dict[str, int] = {}
        for done in asyncio.as_completed([replay.run() for replay in self.replays]):
            line, number = await done
            sent[line] = number
            say({"frames_sent": sent})

    async def _clear(self) -> None:
        """End every connection and wait until each has settled its records."""
        deadline_s = time.monotonic() + CLEAR_S
        while time.monotonic() < deadline_s and any(line.connections for line in self.lines.values()):
            for line in self.lines.values():
                for connection in list(line.connections.values()):
                    connection.cut("simulator stopped")
            await asyncio.sleep(0.01)

    def _resend(self) -> bool:
        """Send what was recorded once more, unless there is nothing or it is being sent."""
        if self._replaying is None or not self._replaying.done():
            return False
        self._replaying = asyncio.create_task(self._replay())
        return True


async def _listen(routes: list[web.RouteDef], port: int) -> tuple[web.AppRunner, int]:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, HOST, port)
    await site.start()
    return runner, runner.addresses[0][1]
