"""Certificate table: one row per instrument and day.

    data/kr/completeness/date=2026-11-20/part-0.parquet

Guarantees:
    * A certificate without news keeps its row and its time; those of other instruments stay.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import msgspec
import pyarrow as pa

from collectorctl.recover.certificate.certify import Certificate
from collectorctl.recover.store import table_file
from conf.market import KR, Market

_ARROW_TYPES = {
    str: pa.string(),
    int: pa.int64(),
    int | None: pa.int64(),
    bool: pa.bool_(),
    list[str]: pa.list_(pa.string()),
}
_COLUMN_TYPES = {field.encode_name: field.type for field in msgspec.structs.fields(Certificate)}
SCHEMA = pa.schema([(name, _ARROW_TYPES[hint]) for name, hint in _COLUMN_TYPES.items()])


def certificates_path(data: Path, day: date, market: Market = KR) -> Path:
    """Where the certificates of a day lie."""
    return data / market.name / "completeness" / f"date={day}" / "part-0.parquet"


def load(data: Path, day: date, market: Market = KR) -> dict[tuple[str, str], Certificate]:
    """The certificates of a day by (symbol, venue); none if it was never certified."""
    table = table_file.read(certificates_path(data, day, market))
    rows = [] if table is None else table.to_pylist()
    return {(row["symbol"], row["venue"]): msgspec.convert(row, Certificate) for row in rows}


def save(
    data: Path, day: date, certificates: list[Certificate], made_at: str, market: Market = KR
) -> list[Certificate]:
    """Store them, stamped `made_at` unless an older one is equal; as stored. OSError."""
    stored = load(data, day, market)
    for one in certificates:
        old = stored.get((one.symbol, one.venue))
        one.made_at = old.made_at if old is not None and old.content() == one.content() else made_at
    rows = [msgspec.to_builtins(one) for one in certificates]
    if rows:
        table_file.merge(certificates_path(data, day, market), pa.Table.from_pylist(rows, SCHEMA), ["symbol", "venue"])
    return certificates
