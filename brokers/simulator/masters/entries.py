"""Symbols as the vendors' masters list them: those that the simulated market trades, and some that it does not (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from brokers.simulator.exchange.consolidated import AnyListing
from brokers.simulator.exchange.listing import Listing
from conf.market import KR

STOCK, ETF, ETN, SPAC, FUND = "stock", "etf", "etn", "spac", "fund"


class MasterEntry(NamedTuple):
    """One symbol; prices in won."""

    symbol: str
    name: str
    market: str
    product: str
    close: int
    shares: int
    listed: str = "20000104"
    halted: bool = False
    managed: bool = False
    on_nxt: bool = False
    only_kis: bool = False


UNTRADED = (
    MasterEntry("069500", "모의 200", "KOSPI", ETF, 35_000, 150_000_000, "20021014"),
    MasterEntry("001234", "모의정지", "KOSPI", STOCK, 1_250, 40_000_000, halted=True, managed=True),
    MasterEntry("F70900001", "모의하이일드공모주알파증권2호 A", "KOSPI", FUND, 1_010, 0, "20250425", only_kis=True),
    MasterEntry("247540", "모의에코", "KOSDAQ", STOCK, 98_000, 97_000_000, "20190305", on_nxt=True),
    MasterEntry("0004Y0", "모의제14호스팩", "KOSDAQ", SPAC, 2_000, 5_000_000, "20250307"),
    MasterEntry("112190", "모의코넥스", "KONEX", STOCK, 3_500, 7_000_000, "20130701"),
)


def list_masters(listings: Iterable[AnyListing]) -> list[MasterEntry]:
    """Every symbol once, by code: a stock is eligible on NXT where NXT lists it."""
    korean = [one for one in listings if one.instrument.market is KR]
    on_nxt = {one.instrument.symbol for one in korean if one.instrument.venue == "NXT"}
    entries = {entry.symbol: entry for entry in UNTRADED}
    for one in korean:
        symbol = one.instrument.symbol
        if not isinstance(one, Listing) or (one.instrument.venue == "NXT" and symbol in entries):
            continue
        product = ETN if symbol.startswith("Q") else STOCK
        day = one.day
        entries[symbol] = MasterEntry(
            symbol, f"SIM {symbol}", "KOSPI", product, day.previous_close, day.listed_shares, on_nxt=symbol in on_nxt
        )
    return sorted(entries.values())
