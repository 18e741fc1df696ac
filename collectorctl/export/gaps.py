"""Gap table of an exported day: where books were not received, and shares that no trade has (pure).

    events of a day and the days before ──each feed's outages──> spans without any feed ─┐
    ticks, official volume ──coverage of cumulative volume──> missing shares ────────────┴─> GAPS

Not handled here:
    * A feed that was subscribed and sent nothing: see the dataset feed_health.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd
import pyarrow as pa

from collectorctl.explain.visibility import find_outages
from collectorctl.recover.matching.day_coverage import DayCoverage
from conf.calendar import PhaseSpan
from conf.instrument import Instrument
from conf.market import MARKETS
from writer.schema import timestamp_type

GAPS = {
    market.name: pa.schema(
        [
            *((name, pa.string()) for name in ("instrument", "stream", "reason")),
            *((name, timestamp_type(market)) for name in ("begin", "end")),
            *((name, pa.int64()) for name in ("volume_from", "volume_to", "shares")),
        ]
    )
    for market in MARKETS.values()
}
"""By market. `begin`, `end`: in its time, null at the edges of the day. Of ticks: no trade covers the shares from `volume_from` to
`volume_to` of the cumulative volume."""


class Hole(NamedTuple):
    """A span in session without books, ns since 1970 UTC, and why each feed had none."""

    begin_ns: int
    end_ns: int
    reason: str


def find_holes(
    events: pd.DataFrame, feeds: Sequence[str], instrument: Instrument, spans: Sequence[PhaseSpan]
) -> list[Hole]:
    """Where no feed was subscribed to the books of an instrument, within the phases of the day; adjoining ones are one."""
    found = [(span.begin_ns, span.end_ns, "") for span in spans]
    for feed in feeds:
        outages = [
            (
                0 if pd.isna(one.begin) else one.begin.value,
                2**63 - 1 if pd.isna(one.end) else one.end.value,
                f"{feed}: {one.reason}",
            )
            for one in find_outages(events, feed, instrument.symbol, "orderbook", instrument.venue)
        ]
        found = list(_intersect(found, outages))
    holes: list[Hole] = []
    for begin_ns, end_ns, reason in sorted(found):
        if holes and begin_ns <= holes[-1].end_ns:
            holes[-1] = holes[-1]._replace(end_ns=max(end_ns, holes[-1].end_ns))
        else:
            holes.append(Hole(begin_ns, end_ns, reason))
    return holes


def _intersect(ones: list[tuple[int, int, str]], others: list[tuple[int, int, str]]) -> Iterable[tuple[int, int, str]]:
    for begin_ns, end_ns, reason in ones:
        for other_begin_ns, other_end_ns, other in others:
            low, high = max(begin_ns, other_begin_ns), min(end_ns, other_end_ns)
            if low < high:
                yield low, high, f"{reason}; {other}" if reason else other


def build_gaps(instrument: Instrument, holes: list[Hole], day: DayCoverage) -> pa.Table:
    """GAPS of an instrument."""
    market = instrument.market

    def to_local(ns: int) -> pd.Timestamp:
        return pd.Timestamp(ns, tz=market.zone_name)

    rows = [
        _row(instrument, "orderbook", one.reason, begin=to_local(one.begin_ns), end=to_local(one.end_ns))
        for one in holes
    ]
    ticks = day.ticks
    for low, high, shares, after, before in day.gaps.tolist():
        rows.append(
            _row(
                instrument,
                "tick",
                "no trade covers them",
                begin=to_local(int(ticks["exch_ns"][after])) if after >= 0 else None,
                end=to_local(int(ticks["exch_ns"][before])) if before < len(ticks) else None,
                volume_from=low,
                volume_to=high,
                shares=shares,
            )
        )
    return pa.Table.from_pylist(rows, GAPS[market.name])


def _row(instrument: Instrument, stream: str, reason: str, **values: object) -> dict[str, object]:
    return {"instrument": str(instrument), "stream": stream, "reason": reason} | values
