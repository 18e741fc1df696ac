"""Rows of two homes: each book and each share once, whatever each of them missed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.writer_data import NINE_NS, SECOND_NS

from collectorctl.join.merge import NotMergeable, merge_books, merge_ticks
from writer.schema import KOREAN_TIME, PARQUET

BOOKS, TICKS = PARQUET["kr.orderbook"], PARQUET["kr.tick"]
VENUES = ("KRX",)


def make_table(schema: pa.Schema, rows: list[dict]) -> pa.Table:
    common = {"symbol": "005930", "venue": "KRX", "session": "regular", "flags": 0}
    table = pa.Table.from_pylist([common | row for row in rows], pa.schema([
        pa.field(one.name, pa.int64() if one.type == KOREAN_TIME else one.type) for one in schema
    ]))  # fmt: skip
    return table.cast(schema)


def book(number: int, content: int, delay_ms: int, feed: str = "kis") -> dict:
    """The number-th book of the market, one a second, received `delay_ms` after it was made."""
    made_ns = NINE_NS + number * SECOND_NS
    recv_ns = made_ns + delay_ms * 10**6
    levels = {f"{side}_{what}_1": 70_000 + content for side in ("ask", "bid") for what in ("price", "size")}
    row = {"exch_time": made_ns, "recv_time": recv_ns, "broker": feed, f"recv_time_{feed}": recv_ns, "seq": number}
    return row | levels | {"cum_volume": content}


def tick(number: int, size: int = 5, source: str = "live", **more: object) -> dict:
    """The trade up to five shares a number."""
    recv_ns = NINE_NS + number * SECOND_NS if source == "live" else None
    row = {"exch_time": NINE_NS + number * SECOND_NS, "recv_time": recv_ns, "broker": "kis", "source": source}
    return row | {"price": 70_000, "size": size, "cum_volume": 5 * (number + 1), "seq": number} | more


def contents(table: pa.Table) -> Counter[int]:
    return Counter(table["cum_volume"].to_pylist())


MARKET = st.lists(
    st.tuples(st.integers(0, 3), st.booleans(), st.booleans(), st.integers(20, 60), st.integers(20, 60)), max_size=30
)


@settings(max_examples=40, deadline=None)
@given(MARKET, st.integers(-400, 400))
def test_of_two_homes_no_book_is_lost_and_what_both_have_is_one_row(market: list[tuple], clock_ms: int) -> None:
    """Contents that come back, either home without some, lags, and a second host whose clock is off."""
    one = [book(at, content, lag) for at, (content, here, _, lag, _) in enumerate(market) if here]
    other = [book(at, content, lag + clock_ms) for at, (content, _, there, _, lag) in enumerate(market) if there]
    joined = merge_books([make_table(BOOKS, one), make_table(BOOKS, other)], 5 * SECOND_NS, VENUES)

    counts = contents(joined)
    held = [contents(make_table(BOOKS, rows)) for rows in (one, other)]
    assert all(counts[content] >= max(mine[content] for mine in held) for content in range(4))
    if all(here and there for _, here, there, *_ in market):
        assert counts == held[0]
    unique_one = [book(at, at, lag) for at, (_, here, _, lag, _) in enumerate(market) if here]
    unique_other = [book(at, at, lag + clock_ms) for at, (_, _, there, _, lag) in enumerate(market) if there]
    joined = merge_books([make_table(BOOKS, unique_one), make_table(BOOKS, unique_other)], 5 * SECOND_NS, VENUES)
    assert sorted(contents(joined).elements()) == [
        at for at, (_, here, there, *_) in enumerate(market) if here or there
    ]


def test_the_row_is_that_of_the_earlier_receipt_with_the_arrivals_that_only_the_other_has() -> None:
    """Each time as its own host's clock had it."""
    one = make_table(BOOKS, [book(0, 1, 50), book(1, 2, 90)])
    other = make_table(BOOKS, [book(0, 1, 40, "kiwoom"), book(1, 2, 95, "kiwoom") | {"flags": 8}])
    rows = merge_books([one, other], 5 * SECOND_NS, VENUES).to_pylist()

    def delays(row: dict) -> list[int]:
        names = ("recv_time", "recv_time_kis", "recv_time_kiwoom")
        return [(row[name].value - row["exch_time"].value) // 10**6 for name in names]

    assert [(row["broker"], delays(row), row["flags"]) for row in rows] == [
        ("kiwoom", [40, 50, 40], 0),
        ("kis", [90, 90, 95], 8),
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from(["", "live", "recovered"])] * 3), max_size=40))
def test_every_share_that_a_home_has_is_in_one_row_and_a_received_one_wins(market: list[tuple[str, ...]]) -> None:
    homes = [
        make_table(TICKS, [tick(at, source=has[number]) for at, has in enumerate(market) if has[number]])
        for number in range(3)
    ]
    rows = sorted(merge_ticks(homes).to_pylist(), key=lambda row: row["cum_volume"])

    wanted = [(5 * (at + 1), "live" if "live" in has else "recovered") for at, has in enumerate(market) if any(has)]
    assert [(row["cum_volume"], row["source"]) for row in rows] == wanted
    assert {row["size"] for row in rows} <= {5}


def test_a_merged_trade_of_one_home_is_its_parts_where_the_other_has_them_and_a_piece_where_it_has_some() -> None:
    """Shares 0 to 20 in one row here; there in four, and then in two of them."""
    merged = tick(3, size=20, broker="kiwoom")
    parts = [tick(number) for number in range(4)]
    whole = merge_ticks([make_table(TICKS, [merged]), make_table(TICKS, parts)])
    some = merge_ticks(
        [make_table(TICKS, parts[:2]), make_table(TICKS, [merged | {"source": "recovered", "recv_time": None}])]
    )

    assert sorted(zip(*whole.select(["cum_volume", "size"]).to_pydict().values(), strict=True)) == [
        (5, 5), (10, 5), (15, 5), (20, 5)
    ]  # fmt: skip
    assert sorted(zip(*some.select(["cum_volume", "size"]).to_pydict().values(), strict=True)) == [
        (5, 5),
        (10, 5),
        (20, 10),
    ]


def test_ticks_that_contradict_each_other_are_all_kept_and_flagged() -> None:
    """The certificate then says that shares are covered twice."""
    joined = merge_ticks([make_table(TICKS, [tick(0)]), make_table(TICKS, [tick(0, price=70_100)])])
    assert len(joined) == 2 and np.all(joined["flags"].to_numpy() > 0)


def test_ticks_without_a_place_in_two_homes_are_refused() -> None:
    with pytest.raises(NotMergeable, match="without a cumulative volume"):
        merge_ticks([make_table(TICKS, [tick(0, cum_volume=None)])] * 2)
