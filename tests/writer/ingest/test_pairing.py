"""Which books are paired, missed and doubled: judged by the truth of a simulated market, not by another copy of the rule."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.pairing import FEEDS, KIS, KIWOOM, LINES, Line, deliver, generate_books, judge
from conf.clock import SECOND_NS
from ringbuf.records import ORDERBOOK, UNDEFINED, empty_records
from writer import schema
from writer.ingest.book_arbiter import BookArbiter
from writer.ingest.pair_evidence import DETAILS, encode_details, find_differences

SECONDS, SYMBOLS, RATE = 90.0, 20, 10.0

LIMITS = dict.fromkeys(LINES, (0.0005, 0.0001, 0.0005)) | {
    "as in the demo": (0.00005, 0.0001, 0.0005),
    "both conflate": (0.0015, 0.0001, 0.003),
    "mixed faults": (0.0015, 0.0001, 0.02),
}
"""Shares of the available books that are missed, doubled, and paired with another book."""


A_CHANGE = 30
"""Books that are doubled, once, until it is noticed that a vendor states a detail otherwise."""


@cache
def truth(seed: int) -> np.ndarray:
    """The books of one day's part."""
    return generate_books(SECONDS, SYMBOLS, RATE, seed)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("title", LINES)
def test_the_right_books_are_paired_on_every_kind_of_lines(title: str, seed: int) -> None:
    """Within the limits, and chance; one in twenty books is followed by one that differs in the midpoint's size alone."""
    found = judge(truth(seed), LINES[title], seed)

    allowed = [share * found.available + 3 * (share * found.available) ** 0.5 for share in LIMITS[title]]
    allowed[1] += A_CHANGE * any(line.midpoint in ("late", "rounded") for line in LINES[title])
    assert found.pairs > 0.3 * found.available
    assert [found.missed <= allowed[0], found.doubled <= allowed[1], found.wrong <= allowed[2]] == [True] * 3, found


lines = st.builds(
    Line,
    latency_s=st.floats(0.002, 0.9),
    jitter_s=st.floats(0.0, 0.02),
    loss=st.sampled_from([0.0, 0.001, 0.05]),
    flush_s=st.sampled_from([0.0, 0.1]),
    books_per_s=st.sampled_from([0.0, 4.0]),
    midpoint=st.sampled_from(["", "absent", "rounded", "late"]),
    stalls=st.lists(st.tuples(st.floats(5, 60), st.floats(0.3, 20)), max_size=2).map(tuple),
    stamps_ahead=st.sampled_from([0.0, 0.3]),
)


@given(st.tuples(lines, lines), st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_whatever_the_lines_do_hardly_a_book_is_lost_or_doubled(both: tuple[Line, Line], seed: int) -> None:
    """Latency, jitter, loss, flushes, conflation, stalls, stamps and midpoints of both feeds are random: 0.5 % doubled at most.

    What is doubled until a late midpoint is noticed comes once more, where a loss makes it trusted again meanwhile.

    Where a feed lacks the midpoint or states another one, books that differ in it alone are one content.
    Not drawn: both vendors stamp late and one of them loses books, so that neither is the rule.
    """
    assume([line.midpoint for line in both] != ["late", "late"])
    ignored = ("mid_price_e4", "mid_size") if any(line.midpoint for line in both) else ()

    found = judge(truth(1), both, seed, ignored=ignored)

    assert found.missed <= 0.025 * found.available, found
    assert found.doubled <= 0.005 * found.available + 2 * A_CHANGE * bool(ignored), found


@pytest.mark.parametrize("size", [1, 7, 5000])
def test_the_result_is_that_of_any_split_into_batches(size: int) -> None:
    """The result depends on the books and their order alone: also what is learned, and which feed is late."""
    random = np.random.default_rng(3)
    both = (
        KIS._replace(loss=0.02),
        KIWOOM._replace(loss=0.02, midpoint="late", midpoint_from=0.5, stalls=((20.0, 9.0),)),
    )
    found = np.concatenate([deliver(truth(1), *line, random) for line in zip(FEEDS, both, strict=True)])
    found = found[np.argsort(found["mono_ns"], kind="stable")][:12_000]
    whole, split = BookArbiter(5 * SECOND_NS, ["KRX"]), BookArbiter(5 * SECOND_NS, ["KRX"])

    expected = whole.arbitrate(found, schema.compute_hours(found), 1)
    parts = [found[at : at + size] for at in range(0, len(found), size)]
    results = [split.arbitrate(part, schema.compute_hours(part), 1 + size * at) for at, part in enumerate(parts)]

    assert expected.twin_of.tolist() == np.concatenate([result.twin_of for result in results]).tolist()
    assert expected.changes == [change for result in results for change in result.changes]
    assert whole.export_state() == split.export_state()


def test_a_vendor_that_begins_to_stamp_a_field_late_is_noticed_within_a_few_books() -> None:
    """The midpoint's size tells no books apart any more; the other details still do."""
    random = np.random.default_rng(3)
    both = (KIS, KIWOOM._replace(midpoint="late", midpoint_from=0.5))
    found = np.concatenate([deliver(truth(2), *line, random) for line in zip(FEEDS, both, strict=True)])
    found = found[np.argsort(found["mono_ns"], kind="stable")]

    changes = BookArbiter(5 * SECOND_NS, ["KRX"]).arbitrate(found, schema.compute_hours(found), 1).changes

    assert [(detail, is_trusted) for _, detail, is_trusted in changes] == [("mid_size", False)]


def test_details_are_compared_as_they_are_stored() -> None:
    """Half a won is rounded to even; what one feed lacks is no difference."""
    books = empty_records(ORDERBOOK, 2)
    for name in DETAILS:
        books[name] = UNDEFINED
    books["mid_price_e4"], books["mid_size"] = [71_950_5000, 71_950_0000], [7, UNDEFINED]

    assert find_differences(*encode_details(books, books.tobytes())) == []

    books["mid_size"][1] = 8

    assert find_differences(*encode_details(books, books.tobytes())) == [5]
