"""Certificates of a stored day that its files bear out: with the evidence that recovery would have left."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pandas as pd
from click.testing import CliRunner, Result
from support.stored_day import DAY, SYMBOLS, make_stored_day

from collectorctl.cli import main
from collectorctl.recover.certificate import store
from collectorctl.recover.download.page_store import recovery_folder
from collectorctl.recover.job import compute_certificate
from collectorctl.recover.store import evidence
from collectorctl.recover.store.evidence import Evidence
from conf.home import Home
from conf.instrument import Instrument

SHARES, PRICE = 5, 70_000


def run(root: Path, *arguments: str) -> Result:
    """The command in this process, on that home."""
    return CliRunner().invoke(main, ["--home", str(root), *arguments])


def certify_day(root: Path, symbols: tuple[str, ...] = SYMBOLS, lacking: tuple[str, ...] = (), day: str = DAY) -> None:
    """A trade a minute from nine to ten: PROVEN, and INCOMPLETE where the official volume is seven shares more."""
    home = Home(root)
    begin = pd.Timestamp(f"{DAY} 09:00", tz="Asia/Seoul").value
    bars = [[begin + minute * 60 * 10**9, *[PRICE] * 4, SHARES, SHARES * (minute + 1)] for minute in range(60)]
    found = []
    for symbol in symbols:
        instrument, volume = Instrument(symbol, "KRX"), SHARES * 60 + 7 * (symbol in lacking)
        known = Evidence(volume=volume, value_m=volume * PRICE // 10**6, bars=bars, session_over=True)
        evidence.save(recovery_folder(home.data, day, instrument), known)
        found.append(compute_certificate(home, date.fromisoformat(day), instrument))
    store.save(home.data, date.fromisoformat(day), found, f"{day}T20:10:00+0900")


def make_certified_days(root: Path, days: Sequence[str]) -> Path:
    """A home with days of equal trades, all certified; the last of them is DAY, at nine in the evening."""
    make_stored_day(root, counted=False)
    for day in days:
        for dataset in ("tick", "orderbook") if day != DAY else ():
            shutil.copytree(root / f"data/kr/{dataset}/date={DAY}", root / f"data/kr/{dataset}/date={day}")
    for day in days:
        certify_day(root, day=day)
    return root
