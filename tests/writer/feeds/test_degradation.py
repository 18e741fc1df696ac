"""The latent-line alarm: a line that fails while the other one hides it is told within two windows, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.writer_data import NINE_NS, SECOND_NS, make_books

from ringbuf.records import EVENT, STREAM_NAMES, EventType, FeedId, Flag, Session, Venue, empty_records
from writer.feeds.degradation import BUCKETS, DegradationDetector, Evaluation
from writer.feeds.visibility import FeedVisibility, instrument_key
from writer.ingest.book_arbiter import BookArbiter
from writer.schema import compute_hours

KIS, KIWOOM = FeedId.KIS, FeedId.KIWOOM
LINES = {int(KIS): "kis", int(KIWOOM): "kiwoom"}
SYMBOLS = 4
PER_S = 24
TWINS_NS = 5 * SECOND_NS
WINDOW_S = 60
BEGIN_S = 1000
"""When a run begins, mono."""

Change = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""A line's books and their seconds since the beginning -> the books it really delivers."""


def as_they_are(found: np.ndarray, at_s: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Nothing happens."""
    return found


def told(
    kind: EventType, line: FeedId, second: float, symbols: range = range(SYMBOLS), connection: int = 1
) -> np.ndarray:
    """Events at a second of the run."""
    whole = kind in (EventType.DISCONNECTED, EventType.STARTED, EventType.STOPPED)
    found = empty_records(EVENT, 1 if whole else len(symbols))
    found["kind"], found["line"], found["connection"] = kind, line, connection
    found["mono_ns"] = round((BEGIN_S + second) * SECOND_NS)
    if not whole:
        found["symbol"] = [b"%06d" % (n * 10) for n in symbols]
        found["venue"], found["stream"] = Venue.KRX, STREAM_NAMES.index("orderbook")
    return found


BOTH_SEE = [told(EventType.ACKNOWLEDGED, KIS, 0), told(EventType.ACKNOWLEDGED, KIWOOM, 0)]


def run(
    seconds: int,
    kis: Change = as_they_are,
    kiwoom: Change = as_they_are,
    events: list[np.ndarray] = BOTH_SEE,
    seed: int = 1,
) -> list[tuple[float, Evaluation]]:
    """Judgements by second: a market of PER_S books a second; kis has 99 of 100, kiwoom at most two a second and symbol."""
    chance = np.random.default_rng(seed)
    count = seconds * PER_S
    at_s = np.sort(chance.random(count)) * seconds
    market = make_books(range(count), KIS, symbols=SYMBOLS)
    first = chance.random(count) < 0.99
    slot = np.floor(at_s * 2).astype(np.int64) * SYMBOLS + np.arange(count) % SYMBOLS
    second = np.zeros(count, bool)
    second[count - 1 - np.unique(slot[::-1], return_index=True)[1]] = True  # the latest of each half second
    delivered = []
    for line, chosen, late_s, change in ((KIS, first, 0.02, kis), (KIWOOM, second, 0.1, kiwoom)):
        own = market[chosen].copy()
        own["line"] = line
        arrival_s = at_s[chosen] + late_s + chance.random(len(own)) * 0.01
        own["mono_ns"] = ((BEGIN_S + arrival_s) * SECOND_NS).astype(np.int64)
        own["exch_ns"] = NINE_NS
        delivered.append(change(own, at_s[chosen], chance))
    whole = np.concatenate(delivered)
    return watched(whole[np.argsort(whole["mono_ns"], kind="stable")], seconds, events)


def watched(whole: np.ndarray, seconds: int, events: list[np.ndarray]) -> list[tuple[float, Evaluation]]:
    """Books in receive order through merge and watch, second by second."""
    merge, sight = BookArbiter(TWINS_NS, ["KRX"]), FeedVisibility()
    watch = DegradationDetector(LINES, WINDOW_S * SECOND_NS, TWINS_NS + SECOND_NS, 100)
    happened = np.concatenate(events)
    found, row, edge = [], 1, 0
    for second in range(seconds):
        now_ns = (BEGIN_S + second) * SECOND_NS
        begin, edge = edge, int(np.searchsorted(whole["mono_ns"], now_ns))
        some = whole[begin:edge]
        watch.add_books(some, merge.arbitrate(some, compute_hours(some), row))
        merge.expire(row - 60 * PER_S)
        row += len(some)
        sight.add_events(happened[(happened["mono_ns"] <= now_ns) & (happened["mono_ns"] > now_ns - SECOND_NS)])
        if second % (WINDOW_S // BUCKETS) == 0:
            found.append((second, watch.evaluate(sight, now_ns)))
    return found


def tidings(judged: list[tuple[float, Evaluation]]) -> list[tuple[str, str, str, str]]:
    """(what, line, symbol, first word) of everything that began or ended."""
    return [
        (what, trouble.feed, trouble.symbol, trouble.message.partition(":")[0])
        for _, judgement in judged
        for what, troubles in (("began", judgement.began), ("ended", judgement.ended))
        for trouble in troubles
    ]


def between(begin_s: float, end_s: float, then: Change) -> Change:
    """Something happens to a line for a while."""

    def change(found: np.ndarray, at_s: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        inside = (at_s >= begin_s) & (at_s < end_s)
        return np.concatenate([found[~inside], then(found[inside], at_s[inside], chance)])

    return change


def nothing(found: np.ndarray, at_s: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    return found[:0]


def elsewhere(found: np.ndarray, at_s: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Another venue's books under the same name."""
    found = found.copy()
    found["bid_size"] += 1
    return found


def skewed(found: np.ndarray, at_s: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Stamped 0.4 s ahead."""
    found = found.copy()
    found["exch_ns"] += 400_000_000
    return found


def thinned(share: float) -> Change:
    """Only that share of the books."""
    return lambda found, at_s, chance: found[chance.random(len(found)) < share]


def without(symbol: int) -> Change:
    """Not one of that symbol."""
    return lambda found, at_s, chance: found[found["symbol"] != b"%06d" % (symbol * 10)]


@pytest.mark.parametrize(
    ("kis", "kiwoom"),
    [
        (as_they_are, as_they_are),
        (as_they_are, skewed),
        (between(300, 600, thinned(0.95)), between(300, 600, thinned(0.95))),
        (as_they_are, between(300, 600, thinned(0.7))),
    ],
    ids=["quiet", "stamps skewed", "both lose one in twenty", "kiwoom conflates a little more"],
)
def test_nothing_is_told_where_nothing_is_wrong(kis: Change, kiwoom: Change) -> None:
    """Fifteen minutes of a line that conflates by nature, with what does not matter or cannot be told from nature."""
    assert tidings(run(900, kis, kiwoom)) == []


@pytest.mark.parametrize(
    ("kis", "kiwoom", "told_of", "word"),
    [
        (nothing, as_they_are, "kis", "silent"),
        (as_they_are, nothing, "kiwoom", "silent"),
        (thinned(0.7), as_they_are, "kis", "thin"),
        (as_they_are, thinned(0.2), "kiwoom", "thin"),
    ],
)
def test_a_line_that_fails_behind_the_other_is_told_within_two_windows_and_its_end_as_well(
    kis: Change, kiwoom: Change, told_of: str, word: str
) -> None:
    """The line and what is wrong with it, once; restored once when it has been right for a window."""
    judged = run(1000, between(400, 700, kis), between(400, 700, kiwoom))

    assert [tiding[:3] for tiding in tidings(judged)] == [("began", told_of, ""), ("ended", told_of, "")]
    (began,) = [second for second, judgement in judged if judgement.began]
    (ended,) = [second for second, judgement in judged if judgement.ended]
    assert 400 < began <= 400 + 2 * WINDOW_S
    assert 700 < ended <= 700 + 3 * WINDOW_S
    inside = [judgement.degradations for second, judgement in judged if began <= second < 700]
    assert all([trouble.feed for trouble in troubles] == [told_of] for troubles in inside)
    (last,) = inside[-1]
    assert last.message.startswith(word)


def test_lines_without_a_book_in_common_are_both_told() -> None:
    """From the beginning on another venue: nobody can know which."""
    judged = run(300, kiwoom=elsewhere)

    assert tidings(judged) == [("began", "kis", "", "no twins"), ("began", "kiwoom", "", "no twins")]
    assert judged[-1][1].feeds[0].twin_share == judged[-1][1].feeds[1].twin_share == 0


def test_of_lines_without_a_book_in_common_the_one_registered_later_is_told() -> None:
    """After a reconnect in mid-session it is on another venue; while it was down nothing was told."""
    events = [*BOTH_SEE, told(EventType.DISCONNECTED, KIWOOM, 300), told(EventType.ACKNOWLEDGED, KIWOOM, 420)]

    judged = run(700, kiwoom=between(300, 420, nothing), events=events)
    assert tidings(judged) == []

    def down_then_elsewhere(found: np.ndarray, at_s: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        late = at_s >= 420
        return np.concatenate([found[at_s < 300], elsewhere(found[late], at_s[late], chance)])

    judged = run(700, kiwoom=down_then_elsewhere, events=events)
    assert tidings(judged) == [("began", "kiwoom", "", "no twins")]


@pytest.mark.parametrize("end", [EventType.DISCONNECTED, EventType.STOPPED, EventType.STARTED])
def test_a_line_that_is_known_to_be_down_is_not_latent(end: EventType) -> None:
    """Its events said so; it is judged again a window after its registrations were confirmed."""
    events = [*BOTH_SEE, told(end, KIS, 300), told(EventType.ACKNOWLEDGED, KIS, 600)]

    assert tidings(run(900, between(300, 600, nothing), events=events)) == []


def test_one_symbol_that_is_silent_on_one_line_is_told_by_name() -> None:
    """The others go on; a symbol that only one line was to have is none of it, and neither is one without books."""
    silent = between(300, 700, without(2))
    assert tidings(run(700, kiwoom=silent)) == [("began", "kiwoom", "000020", "silent")]

    one_less = [n for n in range(SYMBOLS) if n != 2]
    events = [
        told(EventType.ACKNOWLEDGED, KIS, 0),
        *(told(EventType.ACKNOWLEDGED, KIWOOM, 0, range(n, n + 1)) for n in one_less),
    ]
    assert tidings(run(700, kiwoom=silent, events=events)) == []

    idle = between(
        300, 700, lambda found, at_s, chance: found[(found["symbol"] != b"000020") | (chance.random(len(found)) < 0.01)]
    )
    assert tidings(run(700, idle, silent)) == []


def test_auctions_are_not_judged_and_a_session_is_only_after_its_first_window() -> None:
    """Ten minutes of auction in which kiwoom has nothing, then trading: nothing is told."""

    def auction(found: np.ndarray, at_s: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        found = found.copy()
        found["session"][at_s < 600] = Session.OPENING_AUCTION
        return found

    def none_in_it(found: np.ndarray, at_s: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        return found[at_s >= 610]

    judged = run(900, auction, none_in_it)
    assert tidings(judged) == []
    assert judged[-1][1].feeds[0].books > 1000
    assert all(line.books == 0 for _, judgement in judged[:100] for line in judgement.feeds)


def test_the_shares_and_lags_of_a_window_are_those_of_its_books() -> None:
    """kis has nearly all, kiwoom one in three, all of them twins, 80 ms behind."""
    kis, kiwoom = (judged := run(300)[-1][1]).feeds

    assert kis.books == pytest.approx(WINDOW_S * PER_S * 0.99, rel=0.05)
    assert (kis.first_share, kiwoom.first_share) == (1, 0)
    assert kiwoom.twin_share == pytest.approx(0.99, abs=0.02)
    assert kis.twin_share == pytest.approx(kiwoom.books / kis.books, abs=0.02)
    assert kiwoom.coverage == pytest.approx(kiwoom.books / (WINDOW_S * PER_S), abs=0.02)
    assert 75 < judged.lag_p50_ms < 85 < judged.lag_p99_ms < 91


def test_the_same_events_again_change_nothing() -> None:
    """A restarted writer looks back into the ring and is then given the last of it once more."""
    events = np.concatenate(
        [*BOTH_SEE, told(EventType.DISCONNECTED, KIS, 5), told(EventType.ACKNOWLEDGED, KIS, 9, range(2), 2)]
    )
    sight = FeedVisibility()
    sight.add_events(events)
    sight.add_events(events[-4:])

    names = [instrument_key(b"%06d" % (n * 10), Venue.KRX) for n in range(SYMBOLS)]
    at_ns = [(BEGIN_S + second) * SECOND_NS for second in (0, 9)]
    assert [sight.visible_since_ns(KIS, name) for name in names] == [at_ns[1], at_ns[1], None, None]
    assert [sight.visible_since_ns(KIWOOM, name) for name in names] == [at_ns[0]] * 4
    assert (sight.newest_subscription_ns(KIS), sight.newest_subscription_ns(FeedId.US)) == (at_ns[1], 0)


arrivals = st.lists(
    st.tuples(
        st.sampled_from([KIS, KIWOOM]),
        st.integers(0, 3),  # content
        st.integers(0, 4000),  # ms since the arrival before
        st.sampled_from([Session.REGULAR, Session.OPENING_AUCTION]),
    ),
    max_size=60,
)


@given(arrivals, st.integers(0, 60))
def test_no_share_exceeds_the_whole(market: list[tuple[FeedId, int, int, Session]], before: int) -> None:
    """Whoever is first, however far apart, in whichever session, and whatever rows are of a writer `before` this one."""
    books = make_books([content for _, content, _, _ in market])
    books["line"], _, gaps_ms, books["session"] = zip(*market, strict=True) if market else ([], [], [0], [])
    books["mono_ns"] = BEGIN_S * SECOND_NS + np.cumsum(gaps_ms)[: len(books)] * 1_000_000
    merge = BookArbiter(TWINS_NS, ["KRX"])
    watch = DegradationDetector(LINES, 12 * SECOND_NS, TWINS_NS + SECOND_NS, 1)
    for begin in range(0, len(books), 3):
        some = books[begin : begin + 3]
        arbitration = merge.arbitrate(some, compute_hours(some), begin + 1)
        if begin < before:
            continue
        watch.add_books(some, arbitration)
        for line in (shares := watch.evaluate(FeedVisibility(), int(some["mono_ns"][-1])).feeds):
            assert all(share is None or 0 <= share <= 1 for share in (line.twin_share, line.first_share, line.coverage))
        assert sum(line.first_share or 0 for line in shares) in (0, pytest.approx(1, abs=1e-4))


def stamped(late_s: float, flags: int = 0) -> Change:
    """Books with the exchange's second, and their receipt by a clock that is right."""

    def change(found: np.ndarray, at_s: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        found["exch_ns"] = NINE_NS + np.floor(at_s).astype(np.int64) * SECOND_NS
        found["recv_ns"] = NINE_NS + ((at_s + late_s) * SECOND_NS).astype(np.int64)
        found["flags"] = flags
        return found

    return change


def test_the_time_from_the_exchanges_second_to_receipt_is_measured_by_feed() -> None:
    """Within two buckets of its beginning; a stamp whose date is unsure does not count."""
    judged = run(60, stamped(0.1), between(30, 60, stamped(2.9)))
    lags = {second: [feed.exchange_lag_p50_ms for feed in one.feeds] for second, one in judged}
    unsure = run(30, stamped(0.1), stamped(2.9, Flag.DATE_MISMATCH))[-1][1]

    assert lags[55] == [pytest.approx(600, abs=200), pytest.approx(3400, abs=300)]
    assert lags[40][1] > 3000
    assert [feed.exchange_lag_p50_ms is None for feed in unsure.feeds] == [False, True]
