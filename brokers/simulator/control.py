"""Control channel of a running simulator: commands from stdin, or from a scenario by the time of day.

    stdin ── a line ──> execute ──> a JSON line on stdout           faults: kis drop, kiwoom limit 3 ... (faults.py)
    scenario ─ time ──> execute ──> ground truth                     market rest | move | pace 10 | block 005930 5000
                                                                 status, resend

Guarantees:
    * A command that cannot be parsed changes nothing and is answered with an error message.
    * A command of a scenario is written to the ground truth with the instant it was executed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping

import click

from brokers.simulator import faults
from brokers.simulator.gateway.feed import SimulatedFeed
from brokers.simulator.ground_truth import GroundTruthWriter
from brokers.simulator.scenarios import TimedCommand, to_real_seconds
from brokers.simulator.scheduler import MarketScheduler
from conf.clock import SECOND_NS, to_kst
from conf.text.escape import escape_controls

POLL_S = 0.01
"""How often a scenario checks the clock."""

Response = dict[str, object]


class ControlChannel:
    """The commands of one run."""

    def __init__(
        self,
        feeds: dict[str, SimulatedFeed],
        scheduler: MarketScheduler,
        truth: GroundTruthWriter,
        resend: Callable[[], bool],
    ) -> None:
        """`resend` begins to send what was recorded once more; False when it cannot."""
        self._feeds = feeds
        self._scheduler = scheduler
        self._truth = truth
        self._resend = resend

    def read_stdin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Execute the commands on stdin, line by line, until it ends; runs in a thread."""
        for line in sys.stdin:
            if line.strip():
                loop.call_soon_threadsafe(self._respond, line)

    def _respond(self, command: str) -> None:
        print_response(self.execute(command))

    async def run_script(self, commands: Iterable[TimedCommand], speed: float) -> None:
        """Give each command of a script when its time of the trading day has come. ValueError for one that is none."""
        for timed in sorted(commands):
            while f"{to_kst(self._scheduler.clock.now_ns()):%H:%M:%S}" < timed.at:
                await asyncio.sleep(POLL_S)
            response = self.execute(to_real_seconds(timed.command, speed))
            if not response["ok"]:
                raise ValueError(response["error"])
            self._truth.record_command(timed.at, timed.command, time.monotonic_ns())

    def execute(self, command: str) -> Response:
        """Execute one command; the response."""
        match command.split():
            case ["status"]:
                return {"ok": True} | self.collect_status()
            case ["market", "rest" | "move" as mode]:
                self._scheduler.paused = mode == "rest"
                return {"ok": True, "paused": self._scheduler.paused}
            case ["market", "pace", *arguments]:
                return self._set_rate(arguments)
            case ["market", "block", *arguments]:
                return self._trade_block(arguments)
            case ["resend"]:
                if self._resend():
                    return {"ok": True, "resend": True}
                return {"ok": False, "error": "resend: there is nothing recorded, or it is being sent"}
        try:
            fault = faults.parse(command)
        except faults.FaultError as error:
            return {"ok": False, "error": str(error)}
        self._feeds[fault.feed].apply_fault(fault)
        return {"ok": True, **fault._asdict()}

    def _set_rate(self, arguments: list[str]) -> Response:
        if len(arguments) != 1 or not arguments[0].isdigit() or not int(arguments[0]):
            return {"ok": False, "error": "market pace: write how many times as much as usual is to happen"}
        self._scheduler.rate_factor = int(arguments[0])
        return {"ok": True, "rate_factor": self._scheduler.rate_factor}

    def _trade_block(self, arguments: list[str]) -> Response:
        market = self._scheduler.market
        listed = {str(instrument): instrument for instrument in market.listings}
        if len(arguments) != 2 or arguments[0] not in listed or not arguments[1].isdigit() or not int(arguments[1]):
            return {"ok": False, "error": "market block: write a symbol that is listed, and a number of shares"}
        instrument, shares = market.find_origin(listed[arguments[0]]), int(arguments[1])
        price = market.trade_block(instrument, shares)
        exch_s = self._scheduler.clock.now_ns() // SECOND_NS
        for listing in market.affected_listings(instrument):
            self._truth.record_block(listing.instrument, exch_s, price, shares, listing.day.cum_volume)
        volume = market.primary_listings[instrument].day.cum_volume
        return {"ok": True, "price": price, "shares": shares, "cum_volume": volume}

    def collect_status(self) -> Response:
        """Counters of the market and of the feeds."""
        return {
            "exch_s": self._scheduler.clock.now_ns() // SECOND_NS,
            "books": self._scheduler.market.book_count,
            "trades": self._scheduler.market.trade_count,
            **{name: feed.collect_status() for name, feed in self._feeds.items()},
        }


def print_response(response: Mapping[str, object]) -> None:
    """Write one JSON line to stdout."""
    click.echo(escape_controls(json.dumps(response, ensure_ascii=False)))
