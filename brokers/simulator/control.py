"""Commands to a running simulator: typed on stdin, or played from a script by the time of day.

    stdin ── a line ──> obey ──> a JSON line on stdout           faults: kis drop, kiwoom limit 3 ... (faults.py)
    script ── its time ─> obey ──> the truth                     market rest | move | pace 10 | block 005930 5000
                                                                 status, resend

Promises: what cannot be understood changes nothing and is answered in words; an act of a script is written into the truth with the
instant it happened.
Leaves to others: doing it (line.py, pace.py, market.py), scripts (scenario.py).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterable

import click

from brokers.simulator import faults
from brokers.simulator.gateway.feed import Line
from brokers.simulator.ground_truth import Truth
from brokers.simulator.scenarios import Act, in_real_seconds
from brokers.simulator.scheduler import Pace
from conf.clock import SECOND_NS, korean

ACT_S = 0.01
"""How often a script looks at the clock."""

Answer = dict[str, object]


class Steering:
    """What can be told to one run."""

    def __init__(self, lines: dict[str, Line], pace: Pace, truth: Truth, resend: Callable[[], bool]) -> None:
        """`resend` begins to send what was recorded once more; False when it cannot."""
        self._lines = lines
        self._pace = pace
        self._truth = truth
        self._resend = resend

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Obey stdin, line by line, until it ends; for a thread."""
        for line in sys.stdin:
            if line.strip():
                loop.call_soon_threadsafe(self._answer, line)

    def _answer(self, command: str) -> None:
        say(self.obey(command))

    async def play(self, acts: Iterable[Act], speed: float) -> None:
        """Give each command of a script when its time of the trading day has come. ValueError for one that is none."""
        for act in sorted(acts):
            while f"{korean(self._pace.clock.now_ns()):%H:%M:%S}" < act.at:
                await asyncio.sleep(ACT_S)
            answer = self.obey(in_real_seconds(act.command, speed))
            if not answer["ok"]:
                raise ValueError(answer["error"])
            self._truth.act(act.at, act.command, time.monotonic_ns())

    def obey(self, command: str) -> Answer:
        """Carry out one command; what became of it."""
        match command.split():
            case ["status"]:
                return {"ok": True} | self.status()
            case ["market", "rest" | "move" as word]:
                self._pace.resting = word == "rest"
                return {"ok": True, "resting": self._pace.resting}
            case ["market", "pace", *words]:
                return self._quicken(words)
            case ["market", "block", *words]:
                return self._block(words)
            case ["resend"]:
                if self._resend():
                    return {"ok": True, "resend": True}
                return {"ok": False, "error": "resend: there is nothing recorded, or it is being sent"}
        try:
            fault = faults.parse(command)
        except faults.FaultError as error:
            return {"ok": False, "error": str(error)}
        self._lines[fault.line].apply(fault)
        return {"ok": True} | fault._asdict()

    def _quicken(self, words: list[str]) -> Answer:
        if len(words) != 1 or not words[0].isdigit() or not int(words[0]):
            return {"ok": False, "error": "market pace: write how many times as much as usual is to happen"}
        self._pace.times = int(words[0])
        return {"ok": True, "times": self._pace.times}

    def _block(self, words: list[str]) -> Answer:
        market = self._pace.market
        listed = {str(instrument): instrument for instrument in market.listings}
        if len(words) != 2 or words[0] not in listed or not words[1].isdigit() or not int(words[1]):
            return {"ok": False, "error": "market block: write a symbol that is listed, and a number of shares"}
        instrument, shares = market.origin(listed[words[0]]), int(words[1])
        price = market.block(instrument, shares)
        exch_s = self._pace.clock.now_ns() // SECOND_NS
        for seen in market.seen_as(instrument):
            self._truth.block(seen.instrument, exch_s, price, shares, seen.day.cum_volume)
        volume = market.traded[instrument].day.cum_volume
        return {"ok": True, "price": price, "shares": shares, "cum_volume": volume}

    def status(self) -> Answer:
        """Counters of the market and of the lines."""
        return {
            "exch_s": self._pace.clock.now_ns() // SECOND_NS,
            "books": self._pace.market.books,
            "trades": self._pace.market.trades,
            **{name: line.status() for name, line in self._lines.items()},
        }


def say(answer: Answer) -> None:
    """One JSON line to whoever steers."""
    click.echo(json.dumps(answer, ensure_ascii=False))
