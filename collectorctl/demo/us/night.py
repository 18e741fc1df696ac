"""US part of a demo's end: the live rows compared, the minute bars recovered, the certificates judged.

    files after the stop ─> compare_us ─> DemoResult
                        └─> recover ─> minute bars, MINUTE_ONLY ─> equal to the trades, minute by minute

Guarantees:
    * A night in which us was not killed, or one o'clock did not come twice, does not pass.
"""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta

import msgspec
import numpy as np
import pandas as pd

from brokers.simulator.ground_truth import GroundTruth
from collectorctl.demo.result import DemoResult
from collectorctl.demo.us.oracle import US_FEED, compare_us
from collectorctl.recover import us_job
from collectorctl.recover.certificate.certify import Certificate, Grade
from collectorctl.terminal import TextConsole
from conf.clock import MINUTE_NS, SECOND_NS
from conf.home import Home
from conf.instrument import Instrument
from conf.market import US

MINUTE_S = 60
OFFSETS = {timedelta(hours=-4), timedelta(hours=-5)}


class UsOutcome(msgspec.Struct):
    """The live rows, the certificates by instrument, and what else is wrong."""

    result: DemoResult
    certificates: dict[str, str]
    failures: list[str]

    def problems(self) -> list[str]:
        """Violations, as messages."""
        return [f"us: {problem}" for problem in (*self.result.problems(), *self.failures)]

    def describe(self) -> list[str]:
        """What became of what was delivered, and of the day."""
        grades = ", ".join(f"{name} {grade}" for name, grade in self.certificates.items())
        return [*(f"us: {sentence}" for sentence in self.result.describe()), f"us after recovery: {grades}"]


def recover_and_compare_us(home: Home, day: date, truth: GroundTruth, console: TextConsole) -> UsOutcome:
    """Compare the night of a stopped home, recover its day, compare that. The errors of a recovery."""
    books, ticks = (pd.read_parquet(home.data / US.name / stream) for stream in ("orderbook", "tick"))
    is_us = [np.isin(table["venue"], [venue.encode() for venue in US.venues]) for table in (truth.books, truth.trades)]
    ended = {(c["line"], c["connection"]): c["ended_mono_ns"] for c in truth.connections if c["ended_mono_ns"]}
    trades = truth.trades[is_us[1]]
    result = compare_us(truth.books[is_us[0]], trades, truth.deliveries, ended, books, ticks)
    instruments = home.settings.instruments(US.name)
    certificates = us_job.recover(home, day, instruments, console.print)
    failures = check_night(books, truth.deliveries)
    for one in certificates:
        instrument = Instrument(one.symbol, one.venue)
        mine = trades[(trades["symbol"] == one.symbol.encode()) & (trades["venue"] == one.venue.encode())]
        rows = ticks[(ticks["symbol"] == one.symbol) & (ticks["venue"] == one.venue)]
        failures += check_certificate(one, mine, rows, us_job.load_bars(home.data, day, instrument))
    return UsOutcome(result, {f"{one.symbol} {one.venue}": one.certificate for one in certificates}, failures)


def check_night(books: pd.DataFrame, deliveries: np.ndarray) -> list[str]:
    """The feed was connected again, and both hours that are called one o'clock lie in one directory."""
    problems = []
    connections = set(deliveries["connection"][deliveries["line"] == US_FEED].tolist())
    if len(connections) < 2:
        problems.append("it was not connected again: it was not killed, or did not come back")
    offsets = {time.utcoffset() for time in books["exch_time"][books["hour"].astype(int) == 1]}
    if offsets != OFFSETS:
        problems.append(f"hour=01 has books of the UTC offsets {sorted(map(str, offsets))}, not of both hours")
    return problems


def check_certificate(one: Certificate, trades: np.ndarray, rows: pd.DataFrame, bars: np.ndarray) -> list[str]:
    """The bars are the trades' minutes; what the certificate says is missing is what the rows lack against them."""
    name = f"{one.symbol} {one.venue}"
    problems = [] if one.certificate == Grade.MINUTE_ONLY else [f"{name}: {one.certificate}: {'; '.join(one.reasons)}"]
    made, live = Counter[int](), Counter[int]()
    for exch_s, size in zip(trades["exch_s"].tolist(), trades["size"].tolist(), strict=True):
        made[exch_s // MINUTE_S * MINUTE_S * SECOND_NS] += size
    for exch_ns, size in zip(rows["exch_time"].astype("int64").tolist(), rows["size"].tolist(), strict=True):
        live[exch_ns // MINUTE_NS * MINUTE_NS] += size
    stored = Counter(dict(bars.tolist()))
    if stored != made:
        lacking, other = (made - stored).total(), (stored - made).total()
        problems.append(f"{name}: minute bars lack {lacking} shares of the market and have {other} of nobody")
    elif one.missing_shares != (made - live).total():
        lacks = (made - live).total()
        problems.append(f"{name}: {one.missing_shares} shares are certified as missing, the rows lack {lacks}")
    return problems
