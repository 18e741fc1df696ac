"""Tick-rate estimate from stored ticks, as a line for [shards] in collector.toml.

    data/kr/tick/date=2026-11-20 ──count──> rate = { "005930" = 251033, "000660" = 120871 }

Guarantees:
    * The newest stored day is read, nothing is changed; instruments of the universe only, most important first.
"""

from __future__ import annotations

from collections import Counter

import pyarrow.parquet as pq

from conf.home import Home


def read_stored_rates(home: Home) -> tuple[str, dict[str, int]]:
    """The newest date that has ticks ("" if none has), and how many each instrument of the Korean universe had on it."""
    days = sorted((home.data / "kr" / "tick").glob("date=*/"))
    if not days:
        return "", {}
    counts: Counter[tuple[str, str]] = Counter()
    for path in sorted(days[-1].glob("hour=*/part-*.parquet")):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, ["symbol", "venue"])
                grouped = table.group_by(["symbol", "venue"]).aggregate([([], "count_all")])
                for row in grouped.to_pylist():
                    counts[row["symbol"], row["venue"]] += row["count_all"]
    instruments = home.settings.instruments()
    rates = {str(instrument): counts[instrument.symbol, instrument.venue] for instrument in instruments}
    return days[-1].name.removeprefix("date="), {text: count for text, count in rates.items() if count}


def format_rate_setting(rates: dict[str, int]) -> str:
    """The line for collector.toml."""
    pairs = ", ".join(f'"{text}" = {count}' for text, count in rates.items())
    return f"rate = {{ {pairs} }}"
