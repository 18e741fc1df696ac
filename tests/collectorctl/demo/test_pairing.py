"""Rows are matched to the books that they are of: the model is a market whose pairing is known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from collectorctl.demo.pairing import Delivered, Pairing, Stored, Truth, pair

SECOND_NS = 1_000_000_000
FASTER = 200
"""The clock of the arrivals against that of the deliveries."""
FEEDS = ("kis", "kiwoom")

Row = dict[str, int]
"""Feed -> the book that arrived."""


def judge(identities: list[int], rows: list[Row], lost: dict[str, set[int]], jitter_ns: list[int]) -> Pairing:
    """Pair a market of one book a second, each of its own content, of which all but `lost` of a feed are in `rows`.

    `lost`: delivered, and in no row. A row has the content of its later book.
    """
    books = range(1, len(identities) + 1)
    truth = Truth(
        content={book: book for book in books},
        identity={book: identities[book - 1] for book in books},
        mono_ns={book: book * SECOND_NS for book in books},
    )
    delivered = {}
    for feed in FEEDS:
        ids = sorted({row[feed] for row in rows if feed in row} | lost[feed])
        delivered[feed] = Delivered(ids, [truth.mono_ns[book] for book in ids], [True] * len(ids))
    rows = sorted(rows, key=lambda row: hash(str(row)))
    arrived = {
        feed: [
            FASTER * (truth.mono_ns[row[feed]] + jitter_ns[row[feed] % len(jitter_ns)]) if feed in row else 0
            for row in rows
        ]
        for feed in delivered
    }
    content = [max(row.values()) for row in rows]
    return pair(truth, delivered, Stored(content, [truth.identity[book] for book in content], arrived))


@st.composite
def markets(draw: st.DrawFn, loses: bool) -> tuple[list[int], list[Row], dict[str, set[int]]]:
    """Books of two contents between two landmarks that both feeds have, and rows that pair the arrivals of each content in order.

    Rightly or wrongly, that is drawn; `loses`: whether some deliveries are in no row.
    """
    drawn = draw(st.lists(st.tuples(st.sampled_from([1, 2]), st.integers(0, 3), st.integers(0, 3)), max_size=16))
    identities = [-1, *(identity for identity, *_ in drawn), -2]
    rows: list[Row] = [dict.fromkeys(FEEDS, book) for book in (1, len(identities))]
    lost: dict[str, set[int]] = {feed: set() for feed in FEEDS}
    queues: dict[tuple[str, int], list[int]] = {(feed, identity): [] for feed in FEEDS for identity in (1, 2)}
    for book, (identity, *fates) in enumerate(drawn, 2):
        for feed, fate in zip(FEEDS, fates, strict=True):
            if fate == 1 and loses:
                lost[feed].add(book)
            elif fate:
                queues[feed, identity].append(book)
    for identity in (1, 2):
        kis, kiwoom = (queues[feed, identity] for feed in FEEDS)
        while kis or kiwoom:
            feeds = draw(st.sampled_from([FEEDS[:1], FEEDS[1:], FEEDS])) if kis and kiwoom else FEEDS
            rows.append({feed: queues[feed, identity].pop(0) for feed in feeds if queues[feed, identity]})
    return identities, rows, lost


def expected(rows: list[Row], lost: dict[str, set[int]]) -> tuple[int, ...]:
    """Rows with both arrivals, wrong ones, missed books, those that are the earlier one of a wrong pair, doubled."""
    both = [row for row in rows if len(row) == 2]
    wrong = [set(row.values()) for row in both if len(set(row.values())) == 2]
    kept = [max(row.values()) for row in rows]
    delivered = lost["kis"] | lost["kiwoom"] | {book for row in rows for book in row.values()}
    missed = delivered - set(kept)
    merged = {book for book in missed if any(book in books for books in wrong)}
    return len(both), len(wrong), len(missed), len(merged), len(kept) - len(set(kept))


def counts(found: Pairing) -> tuple[int, ...]:
    """The same of what was found."""
    return found.pairs, found.wrong_pairs, found.missed, found.merged, found.doubled


@given(markets(loses=False), st.lists(st.integers(0, SECOND_NS * 99 // 100), min_size=1, max_size=5))
def test_where_nothing_is_lost_the_order_alone_tells_each_book(market: tuple, jitter_ns: list[int]) -> None:
    """Whatever the latency of each arrival, as long as a feed keeps its order."""
    identities, rows, lost = market

    found = judge(identities, rows, lost, jitter_ns)

    assert counts(found) == expected(rows, lost)
    assert found.foreign == 0


@given(markets(loses=True), st.lists(st.integers(0, SECOND_NS // 10), min_size=1, max_size=5))
def test_where_arrivals_are_missing_the_nearest_in_time_tells_each_book(market: tuple, jitter_ns: list[int]) -> None:
    """Deliveries that are in no row shift no other one to a book that is not its own."""
    identities, rows, lost = market

    found = judge(identities, rows, lost, jitter_ns)

    assert counts(found) == expected(rows, lost)


def test_how_far_apart_two_books_arose_is_told() -> None:
    """Of three wrong pairs the widest; of two books that are stored with a later one, likewise."""
    rows = [{"kis": 1, "kiwoom": 2}, {"kis": 2}, {"kis": 3, "kiwoom": 5}, {"kis": 5, "kiwoom": 6}]

    found = judge([1, 1, 2, 3, 2, 2], rows, {"kis": set(), "kiwoom": set()}, [0])

    assert (found.wrong_pairs, found.wrong_apart_ns) == (3, 2 * SECOND_NS)
    assert (found.missed, found.merged, found.merged_apart_ns) == (2, 2, 2 * SECOND_NS)


def test_a_row_of_two_equal_books_stands_for_the_one_that_no_other_row_has() -> None:
    """Books 1 and 2 say the same in every field; the row of book 1 alone leaves book 2 to the row of both."""
    truth = Truth({1: "A", 2: "A"}, {1: "A", 2: "A"}, {1: SECOND_NS, 2: 2 * SECOND_NS})
    delivered = {
        "kis": Delivered([1, 2], [SECOND_NS, 2 * SECOND_NS], [True, True]),
        "kiwoom": Delivered([1], [SECOND_NS], [True]),
    }

    found = pair(truth, delivered, Stored(["A", "A"], ["A", "A"], {"kis": [2, 1], "kiwoom": [2, 0]}))

    assert (found.wrong_pairs, found.missed, found.doubled) == (1, 0, 0)


def test_of_two_arrivals_of_one_instant_the_one_alone_is_the_later_book() -> None:
    """KIS has the second of two books, and Kiwoom's two are read at once: its first is taken for KIS's, its second is a row."""
    truth = Truth({1: "mid 45", 2: "mid 96"}, {1: "levels", 2: "levels"}, {1: 0, 2: SECOND_NS})
    delivered = {
        "kis": Delivered([2], [SECOND_NS], [True]),
        "kiwoom": Delivered([1, 2], [0, SECOND_NS], [True, True]),
    }
    stored = Stored(["mid 96", "mid 96"], ["levels", "levels"], {"kis": [0, 7], "kiwoom": [9, 9]})

    found = pair(truth, delivered, stored)

    assert (found.foreign, found.wrong_pairs, found.merged, found.missed) == (0, 1, 1, 1)
