"""The ending of a rehearsal: what the market's day lacks is recovered, and the certificates are compared.

    files as they were stopped ─> certificates: INCOMPLETE ─> recover ─> certificates: PROVEN
                                                                 └─> every trade is in exactly one row (tiling.py)

Promises: the same code that `collectorctl recover` runs, on the home as a user would leave it.
Leaves to others: recovering (collectorctl/recover), the truth (tiling.py), the table (report.py).
"""

from __future__ import annotations

import time
from datetime import date

import msgspec
import numpy as np
import pandas as pd
from rich.console import Console

from collectorctl.demo.tiling import Tiling, tile
from collectorctl.recover.certify import Certificate, Grade
from collectorctl.recover.run import Request, recovering
from collectorctl.recover.show import Shown
from conf.home import Home


class Regained(msgspec.Struct):
    """One instrument: its certificates before and after, what was missing before, in shares and, by the truth, in trades that
    were in no row, and its ticks against the truth."""

    before: str
    after: str
    missing_shares: int
    lacked: int
    reasons: list[str]
    ticks: Tiling


class Recovery(msgspec.Struct):
    """The whole day; `seconds` as recovery took."""

    seconds: float
    instruments: list[Regained]

    def complaints(self) -> list[str]:
        """In words what is not proven, or proven and not so."""
        said = []
        for one in self.instruments:
            name = f"{one.ticks.symbol} {one.ticks.venue}"
            if one.after != Grade.PROVEN:
                said.append(f"{name}: {one.after} after recovery: {'; '.join(one.reasons)}")
            if one.before == Grade.PROVEN and one.lacked:
                said.append(f"{name}: was PROVEN with {one.lacked} trades missing")
            said += one.ticks.complaints()
        if not any(one.ticks.recovered for one in self.instruments):
            said.append("ticks: none was missing, so nothing was proven of recovery")
        return said


def recover(home: Home, day: date, trades: np.ndarray, console: Console) -> Recovery:
    """Recover the day of a stopped home and judge it; `trades`: the truth's TRADES. The errors of a recovery."""
    stood = tile(trades, pd.read_parquet(home.data / "kr" / "tick"))
    began = time.monotonic()
    with Shown(console) as shown, recovering(home, Request(day), shown) as run:
        items = run.plan()
        before = {_name(one): one for one in run.as_it_stands(items)}
        after = {_name(one): one for one in run.recover(items)}
    seconds = time.monotonic() - began
    tilings = tile(trades, pd.read_parquet(home.data / "kr" / "tick"))
    pairs = zip(stood, tilings, strict=True)
    return Recovery(seconds, [_regained(was.lacking, ticks, before, after) for was, ticks in pairs])


def _regained(lacked: int, ticks: Tiling, before: dict[str, Certificate], after: dict[str, Certificate]) -> Regained:
    then, now = before[f"{ticks.symbol} {ticks.venue}"], after[f"{ticks.symbol} {ticks.venue}"]
    return Regained(then.certificate, now.certificate, then.missing_shares, lacked, now.reasons, ticks)


def _name(one: Certificate) -> str:
    return f"{one.symbol} {one.venue}"
