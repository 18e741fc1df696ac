"""First wins: what holds whatever two feeds deliver; how well it pairs is judged by the truth in test_pairing.py."""

from __future__ import annotations

import json
from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.writer_data import NINE_NS, SECOND_NS, make_books

from ringbuf.records import UNDEFINED, FeedId, Venue
from writer import schema
from writer.ingest.arbitration_result import NEW, ArbitrationResult
from writer.ingest.book_arbiter import BookArbiter
from writer.ingest.pair_evidence import JITTER_NS
from writer.ingest.replay import ArbiterReplay
from writer.journal.entries import build_entries
from writer.journal.journal import STATE
from writer.journal.segment import JournalBatch

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
    return stamped(found)


def stamped(found: np.ndarray) -> np.ndarray:
    """The same books with the stamps of an exchange at which each was made when it was received."""
    found["exch_ns"] = NINE_NS + found["mono_ns"] // SECOND_NS * SECOND_NS
    found["recv_ns"] = NINE_NS + found["mono_ns"]
    return found


delays = st.lists(st.integers(0, 40 * SECOND_NS // 10), min_size=60, max_size=60)


def stalled_feed_of(steps: list[tuple[FeedId, int, int]], waits: list[int]) -> np.ndarray:
    """The same as a real calendar stamps them, each feed in its own order, some books received up to half a minute late.

    Seven of eight waits are none: a stall holds up what comes after it as well.
    """
    found = feed_of(steps)
    made_ns = found["mono_ns"].copy()
    found["exch_ns"] = NINE_NS + made_ns // SECOND_NS * SECOND_NS
    for line in LINES:
        mine = found["line"] == line
        late_ns = np.array([10 * wait if wait % 8 == 0 else 0 for wait in waits[: len(found)]])
        found["mono_ns"][mine] = np.maximum.accumulate((made_ns + late_ns)[mine])
    found["recv_ns"] = NINE_NS + found["mono_ns"]
    return found[np.argsort(found["mono_ns"], kind="stable")]


def restarted(before: np.ndarray, said: ArbitrationResult, state: dict, settled: list[int]) -> BookArbiter:
    """The arbiter that a journal of `before` gives back, in which `state` is that of the last batch."""
    entries = build_entries("kr.orderbook", before, 1, said)
    replay = ArbiterReplay(6 * WINDOW_NS)
    replay.add(JournalBatch(entries, {STATE: json.loads(json.dumps(state))}, 0, 0, len(before), 0))
    rebuilt = BookArbiter(WINDOW_NS, VENUES)
    replay.restore(rebuilt, {})
    rebuilt.expire(max(settled, default=0))
    return rebuilt


def take(merge: BookArbiter, found: np.ndarray, first_row: int = 1) -> ArbitrationResult:
    """What a merge makes of some books."""
    return merge.arbitrate(found, schema.compute_hours(found), first_row)


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
    st.integers(0, WINDOW_NS - JITTER_NS),
    st.lists(st.integers(0, JITTER_NS), min_size=50, max_size=50),
)
@settings(max_examples=200, deadline=None)
def test_two_lines_that_say_the_same_within_the_window_are_stored_once(
    books_and_gaps: list, lag_ns: int, jitters: list[int]
) -> None:
    """However late the one always is, the merged multiset is the one line's, never the sum, and each line keeps its order."""
    at_ns = np.cumsum([gap for _, gap in books_and_gaps])
    first = make_books([content for content, _ in books_and_gaps], FeedId.KIS)
    second = first.copy()
    second["line"] = FeedId.KIWOOM
    first["mono_ns"] = at_ns
    second["mono_ns"] = np.maximum.accumulate(at_ns + lag_ns + jitters[: len(at_ns)])
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

    rebuilt = restarted(before, said, lived.export_state(), settled)

    assert lived.unmatched_count == rebuilt.unmatched_count
    left, right = take(lived, after, cut + 1), take(rebuilt, after, cut + 1)
    assert left.twin_of.tolist() == right.twin_of.tolist()
    assert left.late.tolist() == right.late.tolist()


@given(feeds, delays)
@settings(max_examples=300, deadline=None)
def test_however_late_a_feed_is_the_result_is_never_less_than_either(steps: list, waits: list[int]) -> None:
    """Per content as without stalls: max(line, line) <= stored <= sum; and no row is the twin of its own feed's, or of two."""
    found = stalled_feed_of(steps, waits)

    said = take(BookArbiter(WINDOW_NS, VENUES), found).twin_of

    stored = said == NEW
    for content in np.unique(found["cum_volume"]):
        mine = found["cum_volume"] == content
        by_line = [int((mine & (found["line"] == line)).sum()) for line in LINES]
        assert max(by_line) <= int((mine & stored).sum()) <= sum(by_line)
    twins = said[~stored]
    assert len(np.unique(twins)) == len(twins)
    assert (found["line"][twins - 1] != found["line"][~stored]).all()
    assert (found["cum_volume"][twins - 1] == found["cum_volume"][~stored]).all()


@given(feeds, delays, st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_a_state_rebuilt_in_the_middle_of_a_stall_goes_on_like_the_one_that_was_lost(
    steps: list, waits: list[int], cut: int
) -> None:
    """Split anywhere and replayed, with the stamps that a journal has: the decisions are those of one that lived."""
    found = stalled_feed_of(steps, waits)
    lived = BookArbiter(WINDOW_NS, VENUES)
    before, after = found[:cut], found[cut:]
    said = take(lived, before)

    rebuilt = restarted(before, said, lived.export_state(), [])

    assert lived.reach_ns == rebuilt.reach_ns
    assert take(lived, after, cut + 1).twin_of.tolist() == take(rebuilt, after, cut + 1).twin_of.tolist()


@pytest.mark.parametrize("step_s", [-3600, -2, 2, 3600])
def test_a_step_of_the_wall_clock_makes_no_feed_late(step_s: int) -> None:
    """One collector knows of it half a second before the other does: every book still finds its twin."""
    made_ns = 100 * SECOND_NS + np.arange(200) * (SECOND_NS // 20)
    books = []
    for line, delay_ns, known_ns in (
        (FeedId.KIS, 2_000_000, 5 * SECOND_NS),
        (FeedId.KIWOOM, 150_000_000, 5_500_000_000),
    ):
        found = make_books(range(200), line)
        found["exch_ns"] = NINE_NS + made_ns // SECOND_NS * SECOND_NS
        found["mono_ns"] = made_ns + delay_ns
        found["recv_ns"] = NINE_NS + found["mono_ns"] + step_s * SECOND_NS * (made_ns >= 100 * SECOND_NS + known_ns)
        books.append(found)
    both = np.concatenate(books)

    result = take(BookArbiter(WINDOW_NS, VENUES), both[np.argsort(both["mono_ns"], kind="stable")])

    assert 200 == np.count_nonzero(result.twin_of == NEW) == np.count_nonzero(result.twin_of != NEW)


@pytest.mark.parametrize("window_s", [1, 2, 5])
def test_stamps_a_second_ahead_and_pauses_around_the_window_double_no_book(window_s: int) -> None:
    """Kiwoom stamps a third of its books in the next second, and is paused at length: all its books are twins."""
    random = np.random.default_rng(5)
    made_ns = 100 * SECOND_NS + np.cumsum(random.integers(1, SECOND_NS // 20, 3000))
    books = [make_books(range(3000), line) for line in LINES]
    for found, delay_ns in zip(books, (5_000_000, 2_000_000), strict=True):
        found["mono_ns"] = made_ns + delay_ns
        found["exch_ns"] = NINE_NS + made_ns // SECOND_NS * SECOND_NS
    books[1]["exch_ns"] += SECOND_NS * (random.random(3000) < 0.3)
    for begin_s, pause_s in ((115, 0.7), (130, 1.2), (145, 1.4), (160, 2.9)):
        begin_ns, end_ns = begin_s * SECOND_NS, round((begin_s + pause_s * window_s) * SECOND_NS)
        held = (books[1]["mono_ns"] >= begin_ns) & (books[1]["mono_ns"] < end_ns)
        books[1]["mono_ns"][held] = end_ns
    found = np.concatenate(books)

    result = take(BookArbiter(window_s * SECOND_NS, VENUES), found[np.argsort(found["mono_ns"], kind="stable")])

    assert np.count_nonzero(result.twin_of == NEW) == 3000


def two_feeds(
    seconds: int, thin: FeedId, stall: tuple[float, float], skew_s: int = 0, delay_s: float = 0.0
) -> tuple[np.ndarray, int]:
    """Ten books a second of one symbol, of which many return to an earlier content, and how many of them some feed delivers.

    Both feeds receive them within 50 ms, and `thin` only half. Kiwoom receives all that falls into `stall` (begin, end in s) at its
    end; its stamps are `skew_s` behind and its network is `delay_s` slow.
    """
    random = np.random.default_rng(11)
    count = 10 * seconds
    made_ns = np.sort(random.integers(0, seconds * SECOND_NS, count))
    contents = np.arange(count)
    for n in np.flatnonzero(random.random(count) < 0.01):
        contents[n] = contents[max(0, n - 2)]
    parts = []
    for feed in LINES:
        part = make_books(contents, feed, symbols=1)
        lag_s = delay_s if feed is FeedId.KIWOOM else 0.0
        received_ns = made_ns + random.integers(1_000_000, 50_000_000, count) + round(lag_s * SECOND_NS)
        begin_ns, end_ns = (round(at * SECOND_NS) for at in stall)
        if feed is FeedId.KIWOOM:
            received_ns[(received_ns >= begin_ns) & (received_ns < end_ns)] = end_ns
        part["mono_ns"] = np.maximum.accumulate(received_ns)
        part["recv_ns"] = NINE_NS + part["mono_ns"]
        stamp_ns = made_ns - (skew_s * SECOND_NS if feed is FeedId.KIWOOM else 0)
        part["exch_ns"] = NINE_NS + stamp_ns // SECOND_NS * SECOND_NS
        part["seq"] = np.arange(count)
        parts.append(part[random.random(count) < (0.5 if feed is thin else 0.99)])
    found = np.concatenate(parts)
    return found[np.argsort(found["mono_ns"], kind="stable")], len(np.unique(found["seq"]))


@pytest.mark.parametrize("thin", LINES, ids=["the fuller feed is late", "the thinner feed is late"])
@pytest.mark.parametrize(
    "conditions",
    [
        {"stall": (100, 109)},
        {"stall": (100, 113)},
        {"stall": (100, 129)},
        {"stall": (100, 113), "skew_s": 1},
        {"stall": (100, 113), "skew_s": 3},
        {"stall": (0, 0), "skew_s": 3},
        {"stall": (0, 0), "skew_s": 8},
        {"stall": (0, 0), "delay_s": 3.0},
        {"stall": (0, 0), "delay_s": 8.0},
        {"stall": (0, 0), "delay_s": 20.0},
        {"stall": (100, 109), "delay_s": 8.0},
    ],
    ids=str,
)
def test_a_late_feed_costs_no_book_and_doubles_none(conditions: dict, thin: FeedId) -> None:
    """Stalls up to the longest, stamps that differ, a slow network, half the books on one feed: 0.05 % either way, and chance."""
    found, delivered = two_feeds(200, thin, **conditions)

    stored = found["seq"][take(BookArbiter(WINDOW_NS, VENUES), found).twin_of == NEW]

    most = [share * delivered + 3 * (share * delivered) ** 0.5 for share in (0.0005, 0.0005)]
    assert -most[0] <= len(stored) - delivered <= most[1]


def test_a_feed_owes_twins_until_it_has_come_past_them_or_is_gone() -> None:
    """Rows of the second in which a feed fell silent may still be owed; after the longest stall nothing is."""
    merge = BookArbiter(WINDOW_NS, VENUES)
    found = make_books([1, 2, 3], FeedId.KIS, mono_ns=0)
    found["line"] = (FeedId.KIWOOM, FeedId.KIS, FeedId.KIS)
    found["mono_ns"] = found["recv_ns"] = np.array([0, 1, 9]) * SECOND_NS
    found["exch_ns"] = found["mono_ns"]
    take(merge, found[:2])
    mark = merge.reach_ns
    take(merge, found[2:], 3)

    assert not merge.has_passed(mark, 9 * SECOND_NS)
    assert not merge.has_passed(mark, merge.stall_ns)
    assert merge.has_passed(mark, merge.stall_ns + 1)

    found["line"], found["cum_volume"], found["exch_ns"] = FeedId.KIWOOM, 9, 2 * SECOND_NS
    take(merge, found[2:], 4)

    assert merge.has_passed(mark, 9 * SECOND_NS)


def test_a_feed_that_stamps_ahead_has_come_less_far_than_it_states() -> None:
    """Kiwoom stamps .9 s ahead and stalls: what KIS has meanwhile, stamped a second earlier than Kiwoom's newest, is still owed."""
    merge, step_ns = BookArbiter(WINDOW_NS, VENUES), SECOND_NS // 10
    made_ns = np.repeat(np.arange(300), 2) * step_ns
    found = make_books(np.arange(600) // 2, FeedId.KIS)
    found["line"], found["mono_ns"] = LINES * 300, made_ns + np.tile([0, 1], 300)
    stamped(found)
    found["exch_ns"][1::2] = NINE_NS + (made_ns[1::2] + 9 * step_ns) // SECOND_NS * SECOND_NS
    take(merge, found[:-12])  # to 29.4 s: Kiwoom's newest is stamped 30
    take(merge, found[-12::2], 600)  # only KIS goes on, to 29.9 s
    mark = merge.reach_ns
    assert (29, 30) == tuple((mark[feed] - NINE_NS) // SECOND_NS for feed in LINES)
    later = found[-2:-1].copy()
    later["mono_ns"] = 31 * SECOND_NS
    take(merge, stamped(later), 700)

    assert not merge.has_passed(mark, 31 * SECOND_NS)

    late = found[-1:].copy()
    late["mono_ns"], late["exch_ns"] = 33 * SECOND_NS, NINE_NS + 31 * SECOND_NS  # made at 30.1 s
    take(merge, late, 701)
    assert merge.has_passed(mark, 33 * SECOND_NS)


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

        assert twin == take(BookArbiter(WINDOW_NS, VENUES), stamped(found)).twin_of[1]


def test_published_rows_have_no_twin_and_the_others_still_do() -> None:
    """Forgetting an hour's rows up to one leaves the later ones and those of other hours."""
    merge = BookArbiter(WINDOW_NS, VENUES)
    found = make_books([1, 2, 3], mono_ns=0)
    found["exch_ns"][1] += 3600 * SECOND_NS
    take(merge, found)

    merge.forget(NINE_NS, 2)
    said = take(merge, make_books([1, 2, 3], FeedId.KIWOOM, mono_ns=SECOND_NS), 4)

    assert said.twin_of.tolist() == [NEW, 2, 3]


def test_memory_is_bounded_whatever_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many rows the oldest are forgotten."""
    monkeypatch.setattr("writer.ingest.book_arbiter.MAX_ROWS", 100)
    merge = BookArbiter(WINDOW_NS, VENUES)

    take(merge, make_books(range(1000)))

    assert merge.unmatched_count == 100
    assert len(merge._in_order) == 100


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


def test_rows_of_this_boot_wait_again_though_the_clock_of_the_former_was_further() -> None:
    """CLOCK_MONOTONIC begins anew at a reboot: what came after it is not what is too old."""
    lived, rebuilt, replay = (
        BookArbiter(WINDOW_NS, VENUES),
        BookArbiter(WINDOW_NS, VENUES),
        ArbiterReplay(6 * WINDOW_NS),
    )
    for row, mono_ns in ((1, 10**15), (2, 10**9)):
        book = make_books([row], mono_ns=mono_ns)
        entries = build_entries("kr.orderbook", book, row, take(lived, book, row))
        replay.add(JournalBatch(entries, {STATE: lived.export_state()}, 0, 0, row, 0))

    replay.restore(rebuilt, {})

    assert take(rebuilt, make_books([2], FeedId.KIWOOM, mono_ns=10**9 + 1000), 3).twin_of.tolist() == [2]
