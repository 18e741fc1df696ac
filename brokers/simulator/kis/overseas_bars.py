"""KIS overseas minute bars over REST (pure); docs/wire/kis.md 5.

    KEYB empty ─> newest 120 bars ─> KEYB = oldest bar's local time minus NMIN, NEXT 1, PINC 1 ─> the 120 before ...

Guarantees:
    * At most 120 rows, newest first, every value a string; minutes without trades have no bar.
    * Earlier days are served only with PINC 1, and never of the day market.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

import numpy as np

from brokers.simulator.exchange.consolidated import AnyListing
from brokers.simulator.kis.overseas_encode import SCALE, format_dollars, format_times
from brokers.simulator.kis.rest_trades import InputError
from conf.clock import KST
from conf.market import NEW_YORK, hours_of

ROWS = 120
NUMBER = r"[1-9][0-9]{0,3}"


def inquire_time_itemchartprice(listing: AnyListing, query: Mapping[str, str], now_s: int) -> dict[str, object]:
    """Up to NREC bars of NMIN minutes at or before KEYB."""
    minutes, max_rows = (_parse_number(query, name) for name in ("NMIN", "NREC"))
    rows, more = _build_bars(listing, minutes, min(max_rows, ROWS), query.get("KEYB", ""), query.get("PINC") == "1")
    output = {
        "rsym": f"D{query.get('EXCD', '')}{listing.instrument.symbol}",
        "zdiv": "4",
        "stim": "093000",
        "etim": "160000",
        "next": "1" if more else "0",
        "more": "1" if more else "0",
        "nrec": str(len(rows)),
    }
    return {"output1": output, "output2": rows}


def _parse_number(query: Mapping[str, str], name: str) -> int:
    if not re.fullmatch(NUMBER, query.get(name, "")):
        raise InputError(name)
    return int(query[name])


def _build_bars(
    listing: AnyListing, minutes: int, max_rows: int, key: str, earlier: bool
) -> tuple[list[dict[str, str]], bool]:
    """The rows, newest first, and whether older ones follow."""
    history, length_s = listing.history, 60 * minutes
    day_market = hours_of(listing.instrument.venue).zone is KST
    oldest = 0 if earlier and not day_market else history.days[-1].first
    end = len(history)
    if key:
        try:
            until_s = int(datetime.strptime(key, "%Y%m%d%H%M%S").replace(tzinfo=NEW_YORK).timestamp())
        except ValueError:
            raise InputError("KEYB") from None
        end = int(np.searchsorted(history.read_column("exch_s"), (until_s // length_s + 1) * length_s))
    groups = history.build_groups(end, max_rows + 1, oldest, history.split_by_minute(minutes)) if end > oldest else None
    if groups is None:
        return [], False
    first = groups.first.tolist()
    values = history.read_column("price").astype(np.int64) * history.read_column("size")
    amounts = [int(values[low:high].sum()) for low, high in zip(first, [*first[1:], end], strict=True)]
    rows = []
    columns = (groups.open, groups.high, groups.low, groups.last, groups.size)
    for *prices, size, last_s, day, amount in zip(
        *(column.tolist() for column in columns), groups.rows["exch_s"].tolist(), groups.days, amounts, strict=True
    ):
        texts = dict(zip(("open", "high", "low", "last"), map(format_dollars, prices), strict=True))
        at = dict(zip(("xymd", "xhms", "kymd", "khms"), format_times(last_s // length_s * length_s), strict=True))
        rows.append({"tymd": day.date} | at | texts | {"evol": str(size), "eamt": str(amount // SCALE)})
    return rows[::-1][:max_rows], len(rows) > max_rows
