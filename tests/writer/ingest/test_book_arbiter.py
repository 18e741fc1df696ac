"""First wins, judged by a model that is too slow and too simple to be wrong."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.writer_data import NINE_NS, SECOND_NS, make_books

from ringbuf.records import UNDEFINED, FeedId, Venue
from writer import schema
from writer.ingest.book_arbiter import NEW, ArbitrationResult, BookArbiter, UnmatchedRow

WINDOW_NS = 5 * SECOND_NS
VENUES = ["KRX", "NXT", "UN"]
LINES = (FeedId.KIS, FeedId.KIWOOM)

feeds = st.lists(
    st.tuples(st.sampled_from(LINES), st.integers(0, 3), st.integers(0, 4 * SECOND_NS)), min_size=1, max_size=60
)
"""(line, content, time since the one before)."""


def feed_of(steps: list[tuple[FeedId, int, int]]) -> np.ndarray:
    """Books as the steps say."""
    found = make_books([content for _, content, _ in steps])
    found["line"] = [line for line, _, _ in steps]
    found["mono_ns"] = np.cumsum([gap for _, _, gap in steps])
    return found


def take(merge: BookArbiter, found: np.ndarray, first_row: int = 1) -> ArbitrationResult:
    """What a merge makes of some books."""
    return merge.arbitrate(found, schema.compute_hours(found), first_row)


def model(found: np.ndarray, window_ns: int) -> list[int]:
    """`twin_of` by looking at every row there is."""
    rows: list[dict] = []
    said = []
    for at, book in enumerate(found):
        content = book["symbol"].tobytes(), book["ask_price_e4"].tobytes(), int(book["cum_volume"])
        for row in rows:
            near = abs(int(book["mono_ns"]) - row["mono_ns"]) <= window_ns
            if row["content"] == content and row["line"] != book["line"] and near and not row["twin"]:
                row["twin"] = True
                said.append(row["row"])
                break
        else:
            rows.append(
                {
                    "row": at + 1,
                    "content": content,
                    "line": book["line"],
                    "mono_ns": int(book["mono_ns"]),
                    "twin": False,
                }
            )
            said.append(NEW)
    return said


@given(feeds)
@settings(max_examples=300, deadline=None)
def test_it_decides_as_the_brute_force_model(steps: list) -> None:
    """Twin or new row: every decision is the model's."""
    found = feed_of(steps)

    said = take(BookArbiter(WINDOW_NS, VENUES), found)

    assert model(found, WINDOW_NS) == said.twin_of.tolist()


@given(feeds)
@settings(max_examples=200, deadline=None)
def test_the_result_is_never_less_than_either_line_and_nothing_is_lost(steps: list) -> None:
    """Per content: max(line, line) <= stored <= sum, and stored + twins = sum."""
    found = feed_of(steps)

    stored = take(BookArbiter(WINDOW_NS, VENUES), found).twin_of == NEW

    for content in np.unique(found["cum_volume"]):
        mine = found["cum_volume"] == content
        by_line = [int((mine & (found["line"] == line)).sum()) for line in LINES]
        assert max(by_line) <= int((mine & stored).sum()) <= sum(by_line)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, SECOND_NS)), min_size=1, max_size=50),
    st.lists(st.integers(0, WINDOW_NS), min_size=50, max_size=50),
)
@settings(max_examples=200, deadline=None)
def test_two_lines_that_say_the_same_within_the_window_are_stored_once(books_and_gaps: list, delays: list[int]) -> None:
    """The merged multiset is the one line's, never the sum, however contents repeat; each line keeps its own order."""
    at_ns = np.cumsum([gap for _, gap in books_and_gaps])
    first = make_books([content for content, _ in books_and_gaps], FeedId.KIS)
    second = first.copy()
    second["line"] = FeedId.KIWOOM
    first["mono_ns"] = at_ns
    lag_ns = at_ns + delays[: len(at_ns)]
    second["mono_ns"] = np.minimum(np.maximum.accumulate(lag_ns), at_ns + WINDOW_NS)
    found = np.concatenate([first, second])
    found = found[np.argsort(found["mono_ns"], kind="stable")]

    stored = found[take(BookArbiter(WINDOW_NS, VENUES), found).twin_of == NEW]

    assert Counter(first["cum_volume"].tolist()) == Counter(stored["cum_volume"].tolist())


@given(feeds)
@settings(max_examples=100, deadline=None)
def test_the_lines_are_equals(steps: list) -> None:
    """Exchanging the lines changes no decision."""
    found = feed_of(steps)
    exchanged = found.copy()
    exchanged["line"] = 3 - found["line"]

    said = [take(BookArbiter(WINDOW_NS, VENUES), each).twin_of.tolist() for each in (found, exchanged)]

    assert said[0] == said[1]


@given(feeds, st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_a_state_rebuilt_from_the_journal_goes_on_like_the_one_that_was_lost(
    steps: list, cut: int, settle: int
) -> None:
    """Split anywhere, forget settled rows, replay the rest into a new merge: the decisions are those of one that lived."""
    found = feed_of(steps)
    lived = BookArbiter(WINDOW_NS, VENUES)
    before, after = found[:cut], found[cut:]
    said = take(lived, before)
    newest_ns = int(before["mono_ns"][-1]) if len(before) else 0
    settled = [at + 1 for at in range(len(before)) if before["mono_ns"][at] < newest_ns - WINDOW_NS][:settle]
    lived.expire(max(settled, default=0))

    rebuilt = BookArbiter(WINDOW_NS, VENUES)
    rebuilt.restore_volume_high_water(lived.export_volume_high_water())
    stamps = zip(before["mono_ns"].tolist(), before["line"].tolist(), said.hour_ns.tolist(), strict=True)
    for at, (mono_ns, line, hour) in enumerate(stamps):
        if (at + 1 if said.twin_of[at] == NEW else said.twin_of[at]) > max(settled, default=0):
            rebuilt.replay(said.identity[at], UnmatchedRow(at + 1, mono_ns, line, hour), int(said.twin_of[at]))

    assert lived.unmatched_count == rebuilt.unmatched_count
    left, right = take(lived, after, cut + 1), take(rebuilt, after, cut + 1)
    assert left.twin_of.tolist() == right.twin_of.tolist()
    assert left.late.tolist() == right.late.tolist()


def test_a_content_that_comes_back_is_stored_again() -> None:
    """A, B, A on one line are three rows; the other line's A, B, A are their twins in that order."""
    found = np.concatenate(
        [make_books([1, 2, 1], FeedId.KIS, mono_ns=0), make_books([1, 2, 1], FeedId.KIWOOM, mono_ns=SECOND_NS)]
    )

    said = take(BookArbiter(WINDOW_NS, VENUES), found)

    assert said.twin_of.tolist() == [NEW, NEW, NEW, 1, 2, 3]


def test_the_survivor_of_an_outage_is_never_silenced() -> None:
    """Kiwoom is away for 60 s: every book of KIS is stored, also those equal to ones stored before, and again when it is back."""
    seconds = np.arange(90)
    kis = make_books(seconds % 2, FeedId.KIS)
    kis["mono_ns"] = seconds * SECOND_NS
    kiwoom = make_books(seconds % 2, FeedId.KIWOOM)
    kiwoom["mono_ns"] = seconds * SECOND_NS + 1000
    kiwoom = kiwoom[(seconds < 15) | (seconds >= 75)]
    found = np.concatenate([kis, kiwoom])
    found = found[np.argsort(found["mono_ns"], kind="stable")]

    said = take(BookArbiter(WINDOW_NS, VENUES), found)

    assert len(kis) == int((said.twin_of == NEW).sum())
    assert not (said.twin_of[found["line"] == FeedId.KIS] != NEW).any()


def test_one_nanosecond_beyond_the_window_is_another_book() -> None:
    """The window's edge is inside, what lies behind it is not."""
    for late_ns, twin in ((0, 1), (1, NEW)):
        found = make_books([7, 7])
        found["line"] = LINES
        found["mono_ns"] = [100, 100 + WINDOW_NS + late_ns]

        assert twin == take(BookArbiter(WINDOW_NS, VENUES), found).twin_of[1]


def test_memory_holds_only_what_was_not_forgotten() -> None:
    """Forgetting settled rows leaves exactly the others, twins found or not."""
    merge = BookArbiter(WINDOW_NS, VENUES)
    take(merge, make_books(range(1000)))
    take(merge, make_books(range(0, 1000, 2), FeedId.KIWOOM), 1001)

    merge.expire(900)

    assert merge.unmatched_count == 50
    assert len(merge._in_order) == 100


def test_a_volume_behind_the_stored_one_is_late_and_the_next_day_starts_over() -> None:
    """LATE per symbol, venue and Korean day; an undefined volume neither is late nor counts."""
    found = make_books([100, 104, 100, 104, 108], symbols=1)
    found["cum_volume"] = [100, UNDEFINED, 99, 100, 1]
    found["exch_ns"][4] = NINE_NS + 24 * 3600 * SECOND_NS

    said = take(BookArbiter(WINDOW_NS, VENUES), found)

    assert said.late.tolist() == [False, False, True, False, False]


@given(feeds, st.randoms(use_true_random=False))
def test_the_same_content_on_two_venues_is_never_a_twin(steps: list, random: Random) -> None:
    """Each venue is merged as if it were alone, whatever the identity: a unified book may equal one of its parts."""
    found = feed_of(steps)
    found["venue"] = [random.choice((Venue.KRX, Venue.NXT, Venue.UN)) for _ in steps]
    for named in (VENUES, ["KRX"], []):
        twin_of = take(BookArbiter(WINDOW_NS, named), found).twin_of
        for venue in (Venue.KRX, Venue.NXT, Venue.UN):
            at = np.flatnonzero(found["venue"] == venue)
            rows = dict(zip((at + 1).tolist(), range(1, len(at) + 1), strict=True)) | {NEW: NEW}
            alone = take(BookArbiter(WINDOW_NS, named), found[at]).twin_of
            assert [rows[row] for row in twin_of[at].tolist()] == alone.tolist()


def test_venues_are_told_apart_by_volume_only_where_the_settings_say_so() -> None:
    """With levels alone, a book that carries another cumulative volume still finds its twin."""
    found = make_books([4, 4], symbols=1)
    found["line"] = LINES
    found["cum_volume"] = [10, 11]
    found["venue"] = Venue.NXT

    with_volume = take(BookArbiter(WINDOW_NS, ["KRX", "NXT"]), found).twin_of[1]
    levels = take(BookArbiter(WINDOW_NS, ["KRX"]), found).twin_of[1]

    assert (with_volume, levels) == (NEW, 1)
