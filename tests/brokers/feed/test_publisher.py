"""A batch on its way into the rings: flags, sessions, counts."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.process_tree import temporary_home

from brokers.allocation.allocate import plan_connections
from brokers.decoded import DecodedBatch
from brokers.feed.halts import HaltTracker
from brokers.feed.publisher import RingPublisher, SessionResolver
from brokers.registry import load_broker
from conf.clock import parse_seconds_of_day
from conf.home import Home
from ringbuf.records import STREAMS, TICK, Flag, Session, Venue
from ringbuf.ring import Consumer, RingError
from ringbuf.vitals import Vitals

S = 10**9
FRIDAY_MIDNIGHT = 1_795_100_400 * S  # 2026-11-20 in Seoul


@pytest.fixture
def rings():
    """Rings of a home, its vitals, and what can be read from them."""
    with temporary_home("[ring]\norderbook_capacity = 1024\ntick_capacity = 1024\n") as root:
        home = Home(root)
        home.create_directories()
        vitals = Vitals.create(home.vitals_path("kiwoom"), "kiwoom")
        made = RingPublisher(home, "kiwoom", vitals, home.load_clock())
        yield made, vitals, lambda: Consumer.open(home.ring_path("kiwoom", "tick"), TICK).read(1, 1000).records, home
        made.close()


def batch(home: Home, *times: str, mono_ns: int) -> DecodedBatch:
    """Kiwoom trades at these times of day; they do not name their session."""
    kiwoom = load_broker("kiwoom")
    known = kiwoom.subscriptions_by_code(
        r for c in plan_connections(home.settings, {}).connections["kiwoom"] for r in c.subscriptions
    )
    item = next(key for key in known if key.startswith("0B")).partition("|")[2]
    made = DecodedBatch()
    for hhmmss in times:
        entry = '{"values":{"20":"%s","10":"5","15":"+1"},"type":"0B","item":"%s"}' % (hhmmss, item)  # noqa: UP031
        recv_ns = FRIDAY_MIDNIGHT + parse_seconds_of_day(hhmmss) * S
        decoded = kiwoom.decode(f'{{"trnm":"REAL","data":[{entry}]}}'.encode(), known, recv_ns, mono_ns)
        made.extend(decoded)
    return made


def test_the_calendar_names_the_session_where_the_frame_does_not(rings):
    """By exchange time and venue; outside every session it stays unknown."""
    made, _, read, home = rings

    made.publish(batch(home, "083000", "100000", "152500", "154500", "170000", "220000", mono_ns=5), [], [0, 2], 5)

    records = read()
    assert records["session"].tolist() == [
        Session.OPENING_AUCTION,
        Session.REGULAR,
        Session.CLOSING_AUCTION,
        Session.CLOSING_PRICE,
        Session.AFTER_MARKET,
        Session.UNKNOWN,
    ]
    assert (records["flags"] & Flag.SNAPSHOT).tolist() == [1, 0, 1, 0, 0, 0]


UNMARKED_FLAGS = [0, Flag.CHECKSUM, Flag.VENUE_MISMATCH | Flag.EXTRA, Flag.HALTED, Flag.HALTED | Flag.CHECKSUM]
ROWS = st.lists(
    st.tuples(
        st.sampled_from(UNMARKED_FLAGS),
        st.sampled_from([Session.UNKNOWN, Session.REGULAR]),
        st.sampled_from([Venue.KRX, Venue.NXT]),
        st.integers(6, 22),
        st.booleans(),
    ),
    max_size=12,
)


@given(st.sampled_from(sorted(STREAMS)), ROWS, st.booleans())
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_rows_get_what_the_same_records_get_as_an_array(rings, stream, rows, stepped):
    """Flags, session, counts and halts of any batch, against numpy's account of it; every other byte is as it was."""
    made, vitals, _, home = rings
    dtype, now_ns = STREAMS[stream], time.monotonic_ns()
    made._clock_stepped_ns = now_ns if stepped else now_ns - 61 * S
    records = np.frombuffer(bytearray(range(200)) * 3, "u1")[np.arange(len(rows) * dtype.itemsize) % 600].view(dtype)
    records["exch_ns"] = [FRIDAY_MIDNIGHT + hour * 3600 * S for _, _, _, hour, _ in rows]
    for name, at in (("flags", 0), ("session", 1), ("venue", 2)):
        records[name] = [row[at] for row in rows]
    records["symbol"] = b"005930"
    given_batch, firsts = DecodedBatch(), [nth for nth, row in enumerate(rows) if row[4]]
    packed = given_batch.book_rows if stream == "orderbook" else given_batch.tick_rows
    packed += [record.tobytes() for record in records]
    before = {name: vitals.get(name) for name in ("books", "ticks", "checksum_failed", "venue_mismatches")}
    head, halted = made._producers[stream].head, set(made._halt_tracker._halted)

    made.publish(given_batch, firsts, firsts, now_ns)

    records["flags"] |= np.uint32(Flag.CLOCK_STEP if stepped else 0)
    records["flags"][firsts] |= np.uint32(Flag.SNAPSHOT)
    SessionResolver(home).resolve(records)
    records["seq"] = np.arange(head + 1, head + 1 + len(records))
    assert made._producers[stream].head == head + len(records)
    if len(records):
        published = Consumer.open(home.ring_path("kiwoom", stream), dtype).read(head + 1, 100).records
        assert published.tobytes() == records.tobytes()
    counts = {
        "books" if stream == "orderbook" else "ticks": len(records),
        "checksum_failed": np.count_nonzero(records["flags"] & Flag.CHECKSUM),
        "venue_mismatches": np.count_nonzero(records["flags"] & Flag.VENUE_MISMATCH),
    }
    assert {name: vitals.get(name) - before[name] for name in before} == {name: counts.get(name, 0) for name in before}
    if stream == "tick":
        tracker = HaltTracker()
        tracker._halted = halted
        tracker.detect_changes(records)
        assert made._halt_tracker._halted == tracker._halted


def test_records_shortly_after_a_clock_step_are_marked(rings):
    """For a minute."""
    made, _, read, home = rings
    made.on_clock_step(1000 * S)

    for second in (1001, 1059, 1061):
        made.publish(batch(home, "100000", mono_ns=second * S), [], [], second * S)

    assert [bool(flags & Flag.CLOCK_STEP) for flags in read()["flags"]] == [True, True, False]


def test_records_are_counted_and_their_waiting_measured(rings):
    """Every record of the batch, from its own receipt."""
    made, vitals, _, home = rings
    now_ns = time.monotonic_ns()
    both = batch(home, "100000", "100001", mono_ns=now_ns - S)
    both.extend(batch(home, "100002", mono_ns=now_ns))

    made.publish(both, [], [], now_ns)

    assert (vitals.get("ticks"), vitals.get("books")) == (3, 0)
    assert sum(vitals._latency) == 3


def test_threads_that_publish_at_once_leave_every_record_once(rings):
    """Eight threads, switched as often as can be: the numbers go on, and each thread's records are whole and in order."""
    made, vitals, read, home = rings
    batches = [[batch(home, "100000", mono_ns=thread * 1000 + n) for n in range(120)] for thread in range(8)]
    together = threading.Barrier(8)

    def work(mine: list[DecodedBatch]) -> None:
        together.wait(30)
        for one in mine:
            made.publish(one, [], [], 5)

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=work, args=(mine,)) for mine in batches]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval_s)

    records = read()
    assert records["seq"].tolist() == list(range(1, 961))
    assert vitals.get("ticks") == 960
    for number in range(8):
        own = records["mono_ns"][records["mono_ns"] // 1000 == number]
        assert own.tolist() == [number * 1000 + n for n in range(120)]


@pytest.mark.parametrize("stream", ["orderbook", "tick"])
def test_rings_that_cannot_all_be_opened_leave_none_locked(rings, stream):
    """Whatever fails, the same process can try again: no ring is held by an attempt that came to nothing."""
    _, vitals, _, home = rings
    path = home.ring_path("us", stream)
    path.write_bytes(bytes(8192))  # of no layout
    for _ in range(2):
        with pytest.raises(RingError, match="magic is 0"):
            RingPublisher(home, "us", vitals, home.load_clock())
    path.unlink()

    RingPublisher(home, "us", vitals, home.load_clock()).close()
