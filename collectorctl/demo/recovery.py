"""Recovery step of a demo: the missing ticks of the day are recovered, and certificates compared.

    files after the stop ─> certificates: INCOMPLETE ─> recover ─> certificates: PROVEN
                                                                 └─> every trade is in exactly one row (reconcile.py)

Guarantees:
    * It runs the code of `collectorctl recover` on the home as a user would leave it.
"""

from __future__ import annotations

import time
from datetime import date

import msgspec
import numpy as np
import pandas as pd

from collectorctl.demo.reconcile import Reconciliation, reconcile
from collectorctl.recover.certificate.certify import Certificate, Grade
from collectorctl.recover.job import RecoveryRequest, recovery_job
from collectorctl.recover.progress import ConsoleProgress
from collectorctl.terminal import TextConsole
from conf.home import Home


class RecoveredInstrument(msgspec.Struct):
    """One instrument: its certificates before and after, what was missing before, and its ticks against the ground truth.

    `missing_before`: trades in no row before the recovery; `untrusted`: its live ticks came from a feed that showed another
    venue than it named: they cannot be right.
    """

    before: str
    after: str
    missing_shares: int
    missing_before: int
    reasons: list[str]
    ticks: Reconciliation
    untrusted: bool


class DemoRecovery(msgspec.Struct):
    """The whole day; `seconds` as recovery took."""

    seconds: float
    instruments: list[RecoveredInstrument]

    @property
    def newly_proven(self) -> int:
        """How many instruments were not PROVEN before, and are."""
        return sum(one.before != Grade.PROVEN and one.after == Grade.PROVEN for one in self.instruments)

    @property
    def has_untrusted(self) -> bool:
        """Whether a feed showed another venue than it named; its books then contradict correct ticks, too."""
        return any(one.untrusted for one in self.instruments)

    def problems(self) -> list[str]:
        """In words what is not proven, or proven and not so."""
        problems = []
        for one in self.instruments:
            name = f"{one.ticks.symbol} {one.ticks.venue}"
            if one.untrusted:
                problems += [f"{name}: is PROVEN with another venue's ticks in it"] if one.after == Grade.PROVEN else []
                continue
            if one.after != Grade.PROVEN and not self.has_untrusted:
                problems.append(f"{name}: {one.after} after recovery: {'; '.join(one.reasons)}")
            if one.before == Grade.PROVEN and one.missing_before:
                problems.append(f"{name}: was PROVEN with {one.missing_before} trades missing")
            problems += one.ticks.problems()
        return problems

    def describe(self) -> list[str]:
        """What became of the day's trades, one sentence about each kind of outcome."""
        ticks = [one.ticks for one in self.instruments if not one.untrusted]
        trades, missing, duplicated, wrong = (
            sum(getattr(one, name) for one in ticks) for name in ("trades", "missing", "duplicated", "wrong")
        )
        found = ["nothing of the feed that showed another venue is judged"] * self.has_untrusted
        if trades and not missing + duplicated + wrong:
            found.append(f"after recovery each of the {trades:,} trades of the day is in one row")
        outcomes = (
            (missing, f"of {trades:,} trades of the day are in no row after recovery"),
            (duplicated, f"of {trades:,} trades of the day are in several rows"),
            (wrong, "recovered rows are no trade that was missed"),
        )
        return found + [f"{count:,} {words}" for count, words in outcomes if count]


def recover_and_compare(
    home: Home, day: date, trades: np.ndarray, console: TextConsole, untrusted_feed: str = ""
) -> DemoRecovery:
    """Recover the day of a stopped home and compare it. The errors of a recovery.

    `trades`: the ground truth's TRADES of the home's instruments; `untrusted_feed`: the feed whose ticks cannot be right.
    """
    begin = time.monotonic()
    with ConsoleProgress(console) as progress, recovery_job(home, RecoveryRequest(day), progress) as job:
        plans = job.plan()
        before = {_format_name(one): one for one in job.current_certificates(plans)}
        missing_before = {(one.symbol, one.venue): one.missing for one in reconcile(trades, _read_ticks(home))}
        after = {_format_name(one): one for one in job.recover(plans)}
    seconds = time.monotonic() - begin
    ticks = _read_ticks(home)
    untrusted_symbols = set(ticks.loc[(ticks["broker"] == untrusted_feed) & (ticks["source"] == "live"), "symbol"])
    found = []
    for one in reconcile(trades, ticks):
        then, now = (certificates[f"{one.symbol} {one.venue}"] for certificates in (before, after))
        found.append(
            RecoveredInstrument(
                before=then.certificate,
                after=now.certificate,
                missing_shares=then.missing_shares,
                missing_before=missing_before[one.symbol, one.venue],
                reasons=now.reasons,
                ticks=one,
                untrusted=one.symbol in untrusted_symbols,
            )
        )
    return DemoRecovery(seconds, found)


def _read_ticks(home: Home) -> pd.DataFrame:
    return pd.read_parquet(home.data / "kr" / "tick")


def _format_name(one: Certificate) -> str:
    return f"{one.symbol} {one.venue}"
