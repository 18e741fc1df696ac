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

from collectorctl.demo.reconcile import Tiling, tile
from collectorctl.recover.certificate.certify import Certificate, Grade
from collectorctl.recover.job import Request, recovering
from collectorctl.recover.progress import Shown
from conf.home import Home


class Regained(msgspec.Struct):
    """One instrument: its certificates before and after, what was missing before, and its ticks against the truth.

    `lacked`: trades in no row before the recovery; `misled`: its live ticks came from a line that showed something else
    than it said: they cannot be right.
    """

    before: str
    after: str
    missing_shares: int
    lacked: int
    reasons: list[str]
    ticks: Tiling
    misled: bool


class Recovery(msgspec.Struct):
    """The whole day; `seconds` as recovery took."""

    seconds: float
    instruments: list[Regained]

    @property
    def regained(self) -> int:
        """How many instruments were not PROVEN before, and are."""
        return sum(one.before != Grade.PROVEN and one.after == Grade.PROVEN for one in self.instruments)

    @property
    def misled(self) -> bool:
        """Whether a line showed something else than it said; its books then witness against what is right, too."""
        return any(one.misled for one in self.instruments)

    def complaints(self) -> list[str]:
        """In words what is not proven, or proven and not so."""
        said = []
        for one in self.instruments:
            name = f"{one.ticks.symbol} {one.ticks.venue}"
            if one.misled:
                said += [f"{name}: is PROVEN with another venue's ticks in it"] if one.after == Grade.PROVEN else []
                continue
            if one.after != Grade.PROVEN and not self.misled:
                said.append(f"{name}: {one.after} after recovery: {'; '.join(one.reasons)}")
            if one.before == Grade.PROVEN and one.lacked:
                said.append(f"{name}: was PROVEN with {one.lacked} trades missing")
            said += one.ticks.complaints()
        return said


def recover(home: Home, day: date, trades: np.ndarray, console: Console, misled: str = "") -> Recovery:
    """Recover the day of a stopped home and judge it. The errors of a recovery.

    `trades`: the truth's TRADES of the home's instruments; `misled`: the line whose ticks cannot be right.
    """
    began = time.monotonic()
    with Shown(console) as shown, recovering(home, Request(day), shown) as run:
        items = run.plan()
        before = {_name(one): one for one in run.as_it_stands(items)}
        stood = {(one.symbol, one.venue): one.lacking for one in tile(trades, _ticks(home))}
        after = {_name(one): one for one in run.recover(items)}
    seconds = time.monotonic() - began
    ticks = _ticks(home)
    led_astray = set(ticks.loc[(ticks["broker"] == misled) & (ticks["source"] == "live"), "symbol"])
    found = []
    for one in tile(trades, ticks):
        then, now = (certificates[f"{one.symbol} {one.venue}"] for certificates in (before, after))
        found.append(
            Regained(
                before=then.certificate,
                after=now.certificate,
                missing_shares=then.missing_shares,
                lacked=stood[one.symbol, one.venue],
                reasons=now.reasons,
                ticks=one,
                misled=one.symbol in led_astray,
            )
        )
    return Recovery(seconds, found)


def _ticks(home: Home) -> pd.DataFrame:
    return pd.read_parquet(home.data / "kr" / "tick")


def _name(one: Certificate) -> str:
    return f"{one.symbol} {one.venue}"
