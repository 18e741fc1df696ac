"""Columns: what a record becomes, as pandas reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.writer_data import NINE_NS, make_books, make_ticks

from ringbuf.records import UNDEFINED, FeedId, Flag
from writer import schema
from writer.ingest.book_arbiter import BookArbiter
from writer.journal.entries import build_entries, expand_entries


def entries(found: np.ndarray) -> pa.RecordBatch:
    """Journal entries of books, with the columns of their rows."""
    result = BookArbiter(10_000, ["KRX"]).arbitrate(found, schema.compute_hours(found), 1)
    return expand_entries("kr.orderbook", build_entries("kr.orderbook", found, 1, result))


def test_every_column_of_a_book_comes_back_from_pandas(place: Path) -> None:
    """Prices in won, int64; times in Korea's zone; names instead of codes; nothing is shifted between levels."""
    found = make_books(range(100))
    found["mid_price_e4"] = 70_050 * 10_000
    table = pa.Table.from_batches([entries(found)]).select(schema.PARQUET["kr.orderbook"].names)
    pq.write_table(table, place / "books.parquet")

    frame = pd.read_parquet(place / "books.parquet")

    assert [symbol.decode() for symbol in found["symbol"]] == frame["symbol"].tolist()
    for side in ("ask", "bid"):
        for n in range(10):
            assert frame[f"{side}_price_{n + 1}"].dtype == "int64"
            assert (found[f"{side}_price_e4"][:, n] // 10_000).tolist() == frame[f"{side}_price_{n + 1}"].tolist()
            assert found[f"{side}_size"][:, n].tolist() == frame[f"{side}_size_{n + 1}"].tolist()
    assert str(frame["exch_time"].dtype) == "datetime64[ns, Asia/Seoul]"
    assert pd.Timestamp("2026-11-20 09:00:00", tz="Asia/Seoul") == frame["exch_time"][0]
    assert found["recv_ns"].tolist() == frame["recv_time"].astype("int64").tolist()
    assert frame["recv_time_kis"].equals(frame["recv_time"]) and frame["recv_time_kiwoom"].isna().all()
    assert {("KRX", "kis", "regular")} == set(zip(frame["venue"], frame["broker"], frame["session"], strict=True))
    assert (frame["mid_price"] == 70_050).all()


def test_every_column_of_a_tick_comes_back(place: Path) -> None:
    """The tick's table, with its source and side."""
    found = make_ticks(range(100), FeedId.KIWOOM)
    table = pa.table(schema.build_columns("kr.tick", found), schema.PARQUET["kr.tick"])
    pq.write_table(table, place / "ticks.parquet")

    frame = pd.read_parquet(place / "ticks.parquet")

    for name in ("size", "side", "cum_volume"):
        assert found[name].tolist() == frame[name].tolist()
    assert (found["price_e4"] // 10_000).tolist() == frame["price"].tolist()
    assert {("live", "kiwoom", "005930")} == set(zip(frame["source"], frame["broker"], frame["symbol"], strict=True))


def test_undefined_is_null_everywhere() -> None:
    """What the frame did not say is null, not a number."""
    found = make_books([1])
    found["expected_price_e4"] = found["cum_volume"] = UNDEFINED

    row = entries(found).to_pylist()[0]

    assert (row["expected_price"], row["cum_volume"], row["extra"]) == (None, None, None)


@pytest.mark.parametrize(
    ("price_e4", "won", "flagged"),
    [
        (12_340_000, 1234, False),
        (12_345_000, 1234, True),
        (12_355_000, 1236, True),
        (12_345_001, 1235, True),
        (-5000, 0, True),
    ],
)
def test_a_price_that_is_not_whole_won_is_rounded_half_to_even_and_flagged(
    price_e4: int, won: int, flagged: bool
) -> None:
    """Never floored in silence."""
    found = make_books([1])
    found["mid_price_e4"] = price_e4
    found["flags"] = Flag.SNAPSHOT

    row = entries(found).to_pylist()[0]

    assert (won, flagged, True) == (
        row["mid_price"],
        bool(row["flags"] & Flag.PRICE_ROUNDED),
        bool(row["flags"] & Flag.SNAPSHOT),
    )


def test_no_record_is_refused_whatever_it_holds() -> None:
    """Codes without a name keep their number; bytes that are no text keep their bytes; an undefined time is null."""
    found = make_books([1, 2])
    found["venue"], found["session"], found["line"] = 77, 88, 99
    found["extra"] = [b"1^2", b"\xff^3"]
    found["exch_ns"] = UNDEFINED

    rows = entries(found).to_pylist()

    assert (rows[0]["venue"], rows[0]["session"], rows[0]["broker"]) == ("venue_77", "session_88", "feedid_99")
    assert [row["extra"] for row in rows] == ["1^2", "\\xff^3"]
    assert rows[0]["exch_time"] is None and rows[0]["hour"] == NINE_NS


def test_a_twin_carries_its_arrival_and_nothing_else() -> None:
    """Content columns of a twin are null; line, times and sequence number are its own."""
    found = make_books([1, 1])
    found["line"] = (FeedId.KIS, FeedId.KIWOOM)
    found["seq"] = (5, 9)

    twin = entries(found).to_pylist()[1]

    assert (twin["twin_of"], twin["row"], twin["broker"], twin["seq"]) == (1, 2, "kiwoom", 9)
    assert twin["recv_time"] == twin["recv_time_kiwoom"] and twin["recv_time_kis"] is None
    assert {None} == {twin[name] for name in ("symbol", "ask_price_1", "cum_volume", "flags", "session")}
    assert twin["exch_time"].timestamp() == NINE_NS / 1e9
