"""The writer as a process: fed through rings, killed, stopped, and judged by what is on disk."""

from __future__ import annotations

import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.writer_data import (
    NINE_NS,
    SECOND_NS,
    find_parts,
    make_books,
    make_home,
    make_ticks,
    read_counter,
    read_published,
    read_running_vitals,
    read_vitals,
    start_writer,
    stop_writer,
    wait_for,
)

from conf.home import Home
from ringbuf import layout
from ringbuf.records import ORDERBOOK, TICK, FeedId
from ringbuf.ring import Producer
from writer.journal.reader import read_rows

HOUR = 3600 * SECOND_NS
KIS, KIWOOM = FeedId.KIS, FeedId.KIWOOM


class Rings:
    """The producers of both lines."""

    def __init__(self, home: Home, capacity: int = 65536) -> None:
        self.book = {line: self._open(home, line, "orderbook", ORDERBOOK, capacity) for line in (KIS, KIWOOM)}
        self.tick = {line: self._open(home, line, "tick", TICK, capacity) for line in (KIS, KIWOOM)}

    def _open(self, home: Home, line: FeedId, stream: str, dtype: np.dtype, capacity: int) -> Producer:
        return Producer.open(home.ring_path(line.name.lower(), stream), dtype, capacity)

    def close(self) -> None:
        """The collectors are gone."""
        for ring in (*self.book.values(), *self.tick.values()):
            ring.close()


@pytest.fixture
def home(place: Path) -> Iterator[Home]:
    """A home whose hours are published only by a stop."""
    return make_home(place, grace_s=1000.0, late_every_s=1000.0)


def fed(rings: Rings, begin: int, end: int, hour: int = NINE_NS) -> None:
    """The same books on both lines and ticks on one, numbers begin to end."""
    rings.book[KIS].publish(make_books(range(begin, end), KIS, hour))
    rings.book[KIWOOM].publish(make_books(range(begin, end), KIWOOM, hour))
    rings.tick[KIS].publish(make_ticks(range(begin, end), KIS, hour))


def exactly(home: Home, count: int) -> None:
    """Each book stored once with both arrivals, each tick once."""
    stored = read_published(home)
    assert {1} == set(Counter(stored["cum_volume"]).values())
    assert list(range(count)) == sorted(stored["cum_volume"])
    assert count == stored["recv_time_kis"].notna().sum() == stored["recv_time_kiwoom"].notna().sum()
    assert list(range(count)) == sorted(read_published(home, "tick")["cum_volume"])


def test_without_any_ring_it_runs_and_stops(home: Home) -> None:
    """Nothing to drain is no reason to exit, and none to hang."""
    process = start_writer(home)
    wait_for(lambda: read_running_vitals(home, process))

    assert stop_writer(process) == 0

    assert (read_vitals(home).state, read_vitals(home).detail) == ("stopped", "drained to zero: 0 rows published")


def test_rings_that_appear_later_are_drained_and_published_at_the_stop(home: Home) -> None:
    """Collectors start after the writer; a stop after they are gone publishes the open hour and leaves an empty journal."""
    process = start_writer(home)
    wait_for(lambda: read_running_vitals(home, process))
    rings = Rings(home)
    fed(rings, 0, 3000)
    wait_for(lambda: read_counter(home, "journal_rows") == 9000)
    fed(rings, 3000, 4000)
    rings.close()

    assert stop_writer(process) == 0

    exactly(home, 4000)
    assert read_vitals(home).detail == "drained to zero: 8000 rows published"
    assert [batch for name in ("kr.orderbook", "kr.tick") for batch in read_rows(home.journal_directory(name))] == []


def test_beside_living_collectors_a_stop_hands_over(home: Home) -> None:
    """`restart writer`: nothing published, the journal stays; the next life publishes all of it once."""
    process = start_writer(home)
    rings = Rings(home)
    fed(rings, 0, 1000)
    wait_for(lambda: read_counter(home, "journal_rows") == 3000)

    assert stop_writer(process) == 0

    assert "for the next start" in read_vitals(home).detail and find_parts(home) == []

    fed(rings, 1000, 1500)
    process = start_writer(home)
    wait_for(lambda: read_running_vitals(home, process))
    fed(rings, 1500, 2000)
    rings.close()
    wait_for(lambda: read_counter(home, "journal_rows") == 3000)
    assert stop_writer(process) == 0
    exactly(home, 2000)


def test_collectors_that_are_there_again_before_it_is_drained_make_a_stop_hand_over(place: Path) -> None:
    """supervisord killed and started again: what the new collectors write has twins to come and is not published yet."""
    home = make_home(place, grace_s=1000.0, late_every_s=1000.0, twin_window_s=60.0)
    process = start_writer(home)
    rings = Rings(home)
    fed(rings, 0, 100)
    wait_for(lambda: read_counter(home, "journal_rows") == 300)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    rings.book[KIS].publish(make_books(range(100, 3000), KIS))
    wait_for(lambda: read_vitals(home).state == "paused")
    rings.close()
    process.terminate()
    time.sleep(0.5)
    rings = Rings(home)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    assert process.wait(30) == 0

    assert "still written" in read_vitals(home).detail and find_parts(home) == []
    rings.book[KIWOOM].publish(make_books(range(100, 3000), KIWOOM))
    rings.tick[KIS].publish(make_ticks(range(100, 3000), KIS))
    process = start_writer(home)
    rings.close()
    wait_for(lambda: read_running_vitals(home, process))
    assert stop_writer(process) == 0
    exactly(home, 3000)


def test_a_twin_that_comes_after_a_restart_is_still_a_twin(home: Home) -> None:
    """The waiting rows are rebuilt from the journal."""
    process = start_writer(home)
    rings = Rings(home)
    now_ns = time.monotonic_ns()
    rings.book[KIS].publish(make_books(range(500), KIS, mono_ns=now_ns))
    wait_for(lambda: read_counter(home, "journal_rows") == 500)
    process.kill()
    process.wait()

    rings.book[KIWOOM].publish(make_books(range(500), KIWOOM, mono_ns=now_ns + 400_000_000))
    process = start_writer(home)
    rings.close()
    wait_for(lambda: read_counter(home, "books_twins") == 500)
    assert stop_writer(process) == 0
    assert 500 == len(read_published(home)) == read_published(home)["recv_time_kiwoom"].notna().sum()


def test_killed_at_random_instants_it_stores_everything_exactly_once(place: Path) -> None:
    """SIGKILL, again and again, while rings are fed and hours are published: each book and tick once, both arrivals."""
    home = make_home(place, grace_s=0.6, late_every_s=1.0, fsync_every_s=0.05, segment_max_bytes=1_048_576)
    rings = Rings(home)
    chance = random.Random(7)
    process, at = start_writer(home), 0
    for _ in range(10):
        give_up = time.monotonic() + 0.45 + chance.random() * 1.2
        while time.monotonic() < give_up:
            fed(rings, at, at + 20, NINE_NS + at // 1000 % 3 * HOUR)
            at += 20
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = start_writer(home)
    rings.close()
    wait_for(lambda: read_running_vitals(home, process))

    assert stop_writer(process) == 0

    assert at > 1000
    exactly(home, at)


POINT = """
import itertools, os, signal, sys, threading
from writer import durable_io
real, numbers = durable_io.{function}, itertools.count(1)
def dying(*given):
    if not threading.current_thread().name.startswith("{thread}"):
        return real(*given)
    number = next(numbers)  # of the several threads that may be here at once
    if number == {count} and "{when}" == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    if number == {count} and "{when}" == "half":
        if "{function}" == "append":
            os.write(given[0], bytes(given[2])[: len(given[2]) // 2])
        else:
            os.truncate(given[0], os.fstat(given[0]).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*given)
    if number == {count}:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
durable_io.{function} = dying
from conf.process import run_process
from writer.service import main
sys.exit(run_process("writer", main))
"""

DISK, PUBLISHER = "disk ", "publisher"
POINTS = [
    (DISK, "append", 3, "before"),
    (DISK, "append", 4, "half"),
    (DISK, "append", 5, "after"),
    (DISK, "append", 1, "half"),
    (DISK, "sync", 3, "before"),
    (DISK, "sync", 4, "after"),
    (PUBLISHER, "open_temporary", 1, "after"),
    (PUBLISHER, "sync", 1, "half"),
    (PUBLISHER, "sync", 1, "before"),
    (PUBLISHER, "sync", 1, "after"),
    (PUBLISHER, "link_new", 1, "before"),
    (PUBLISHER, "link_new", 1, "after"),
    (PUBLISHER, "rename", 1, "before"),
    (PUBLISHER, "rename", 1, "after"),
    (DISK, "remove", 1, "before"),
    (DISK, "remove", 1, "after"),
    (DISK, "create", 3, "after"),
]
"""Thread, effect, the how-manieth: the middle of a file that is synced is one of which half was written."""


@pytest.mark.parametrize(("thread", "function", "count", "when"), POINTS)
def test_killed_at_this_point_it_stores_everything_exactly_once(
    place: Path, thread: str, function: str, count: int, when: str
) -> None:
    """Before, in the middle of, or after one effect on the disk; the next life ends with each book and tick stored once."""
    home = make_home(place, grace_s=0.6, late_every_s=1.0, fsync_every_s=0.05)
    rings = Rings(home)
    process, at = start_writer(home, POINT.format(thread=thread, function=function, count=count, when=when)), 0
    give_up = time.monotonic() + 15
    while process.poll() is None and time.monotonic() < give_up:
        fed(rings, at, at + 50)
        at += 50
        time.sleep(0.05)
    assert process.wait(1) == -signal.SIGKILL, "the point was never reached"

    process = start_writer(home)
    fed(rings, at, at + 100)
    rings.close()
    wait_for(lambda: read_running_vitals(home, process))
    assert stop_writer(process) == 0

    exactly(home, at + 100)
    assert list(home.data.rglob("*.tmp")) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_it_mends_what_a_kill_left_it_stores_everything_exactly_once(home: Home, when: str) -> None:
    """The torn tail of the first kill is being cut when the second comes; the third life goes on."""
    rings = Rings(home)
    process, at = start_writer(home, POINT.format(thread=DISK, function="append", count=4, when="half")), 0
    give_up = time.monotonic() + 15
    while process.poll() is None and time.monotonic() < give_up:
        fed(rings, at, at + 50)
        at += 50
        time.sleep(0.05)
    assert process.wait(1) == -signal.SIGKILL
    process = start_writer(home, POINT.format(thread=DISK, function="truncate", count=1, when=when))
    assert process.wait(15) == -signal.SIGKILL, "there was nothing to mend"

    process = start_writer(home)
    rings.close()
    wait_for(lambda: read_running_vitals(home, process))
    assert stop_writer(process) == 0

    exactly(home, at)


def test_a_full_disk_pauses_it_and_space_resumes_it(home: Home) -> None:
    """Files that cannot grow: paused, said so, counted, nothing lost; with room it goes on by itself."""
    process = start_writer(home)
    rings = Rings(home)
    fed(rings, 0, 100)
    wait_for(lambda: read_counter(home, "journal_rows") == 300)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))

    fed(rings, 100, 5000)
    wait_for(lambda: read_vitals(home).state == "paused" and read_counter(home, "pauses") == 2)
    wait_for(lambda: "kr.orderbook, kr.tick: " in read_vitals(home).detail)  # one dataset fails before the other

    assert "make space" in read_vitals(home).detail

    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_for(lambda: read_counter(home, "journal_rows") == 15000)
    wait_for(lambda: read_vitals(home).state == "running")
    rings.close()
    assert stop_writer(process) == 0
    exactly(home, 5000)
    assert read_counter(home, "lost_records") == 0
    events = read_published(home, "event").query("message.str.startswith('kr.tick')").set_index("kind")
    assert abs(events.since["resumed"] - events.time["paused"]).total_seconds() < 1
    assert "File too large" in events.message["paused"]


def test_a_lap_is_counted_exactly_and_the_rest_is_stored(home: Home) -> None:
    """A writer that was away while a ring of 1,000 took 5,000: 4,000 lost, said and counted; 1,000 stored."""
    rings = Rings(home, capacity=1000)
    rings.book[KIS].publish(make_books(range(5000)))
    process = start_writer(home)
    rings.close()
    wait_for(lambda: read_counter(home, "journal_rows") == 1000)

    assert stop_writer(process) == 0

    assert read_counter(home, "lost_records") == 4000
    assert list(range(4000, 5000)) == sorted(read_published(home)["cum_volume"])
    assert "records 1 to 4000 (4000) were overwritten" in (home.log / "writer.log").read_text()
    (loss,) = read_published(home, "event").query("kind == 'ring_loss'").itertuples()
    assert (loss.line, loss.stream, loss.value) == ("kis", "orderbook", 4000)
    assert loss.message.startswith("records 1 to 4000 (4000)")


def test_a_past_hour_is_published_after_its_grace_and_late_rows_make_a_part(place: Path) -> None:
    """While it runs: part-0 a grace after the rows came, part-1 for what came later; the journal of them goes."""
    home = make_home(place)
    process = start_writer(home)
    rings = Rings(home)
    fed(rings, 0, 500)
    wait_for(lambda: len(find_parts(home)) == len(find_parts(home, "tick")) == 1)
    wait_for(lambda: read_counter(home, "hours_published") == 2)
    fed(rings, 500, 700)
    wait_for(lambda: len(find_parts(home)) == len(find_parts(home, "tick")) == 2)
    wait_for(lambda: not list(read_rows(home.journal_directory("kr.orderbook"))))

    assert read_counter(home, "late_rows") == 400 and read_counter(home, "hours_published") == 2

    rings.close()
    assert stop_writer(process) == 0
    exactly(home, 700)


def test_an_hour_that_cannot_be_published_keeps_its_journal(place: Path) -> None:
    """Something stands in the way of the directory: said in vitals and log; the rows stay in the journal."""
    home = make_home(place)
    (home.data / "kr").mkdir(parents=True)
    (home.data / "kr" / "orderbook").write_text("in the way")
    process = start_writer(home)
    rings = Rings(home)
    fed(rings, 0, 100)
    wait_for(lambda: (found := read_running_vitals(home, process)) and "could not be published" in found.detail)
    rings.close()

    assert stop_writer(process) == 0

    assert "journal is kept" in read_vitals(home).detail
    assert sum(batch.num_rows for batch in read_rows(home.journal_directory("kr.orderbook"))) == 200
    assert len(read_published(home, "tick")) == 100


def damage(ring: Producer, seq: int) -> None:
    """Turn one bit over in the slot of a record."""
    slot_bytes = ring.dtype.itemsize + layout.CHECKSUM_BYTES
    ring._mmap[layout.RING_HEADER_BYTES + (seq - 1) % ring.capacity * slot_bytes + 100] ^= 1


def test_a_damaged_slot_costs_its_record_and_the_feed_goes_on(home: Home) -> None:
    """Two bad slots of 1,000: two records lost, said with their numbers and counted, the rest stored, and drained to zero."""
    rings = Rings(home)
    rings.book[KIS].publish(make_books(range(1000)))
    damage(rings.book[KIS], 301)
    damage(rings.book[KIS], 302)
    process = start_writer(home)
    wait_for(lambda: read_counter(home, "journal_rows") == 998)
    rings.close()

    assert stop_writer(process) == 0

    assert (read_counter(home, "lost_records"), read_counter(home, "damaged_records")) == (2, 2)
    assert sorted({*range(1000)} - {300, 301}) == sorted(read_published(home)["cum_volume"])
    assert read_vitals(home).detail == "drained to zero: 998 rows published"
    (loss,) = read_published(home, "event").query("kind == 'ring_loss'").itertuples()
    assert (loss.line, loss.stream, loss.value) == ("kis", "orderbook", 2)
    assert loss.message.startswith("records 301 to 302 (2) were damaged in the ring; received between")


def test_a_ring_that_cannot_be_read_is_said_while_it_runs_and_by_a_stop(home: Home) -> None:
    """A damaged header of a ring: the writer is not healthy, everything else is stored, and nothing is "drained to zero"."""
    rings = Rings(home)
    fed(rings, 0, 100)
    rings.tick[KIWOOM].publish(make_ticks(range(700), KIWOOM))
    rings.tick[KIWOOM]._header[layout.DTYPE] += 1
    process = start_writer(home)
    wait_for(lambda: read_counter(home, "journal_rows") == 300)
    wait_for(lambda: read_vitals(home).state == "failing")

    assert "not read: kiwoom.tick: " in read_vitals(home).detail and not read_vitals(home).state.is_healthy

    rings.close()
    assert stop_writer(process) == 0
    assert read_vitals(home).detail.startswith("NOT drained, 200 rows published; unread: kiwoom.tick: ")
    exactly(home, 100)


def test_a_drained_stop_frees_the_rings_and_the_next_start_loses_and_doubles_nothing(home: Home) -> None:
    """No ring is left, the journal knows none, and rings made anew are read from their first record without a loss being told."""
    for begin in (0, 500):
        rings = Rings(home)
        process = start_writer(home)
        wait_for(lambda process=process: read_running_vitals(home, process))
        fed(rings, begin, begin + 500)
        rings.close()
        wait_for(lambda: read_counter(home, "journal_rows") == 1500)
        assert stop_writer(process) == 0
        assert "drained to zero" in read_vitals(home).detail
        assert list((home.run / "ring").glob("*.ring")) == []
        assert len(list(home.journal_directory("kr.orderbook").glob("*"))) == 1

    exactly(home, 1000)
    assert "ring_loss" not in set(read_published(home, "event")["kind"])


def test_what_a_stop_could_not_drain_stays_in_its_ring(home: Home) -> None:
    """A ring that cannot be read, and rings that are still written, are not freed; nor any, if the setting says so."""
    rings = Rings(home)
    rings.tick[KIWOOM]._header[layout.DTYPE] += 1
    process = start_writer(home)
    wait_for(lambda: read_running_vitals(home, process))
    rings.tick[KIS].close()
    rings.tick[KIWOOM].close()
    assert stop_writer(process) == 0
    left = {path.name for path in (home.run / "ring").glob("*.ring")}
    assert {"kis.tick.ring", "kiwoom.tick.ring", "kis.orderbook.ring", "kiwoom.orderbook.ring"} <= left
    for ring in rings.book.values():
        ring.close()

    process = start_writer(home)
    wait_for(lambda: read_running_vitals(home, process))
    assert stop_writer(process) == 0

    assert {path.name for path in (home.run / "ring").glob("*.ring")} == {"kiwoom.tick.ring"}
    text = (home.root / "collector.toml").read_text()
    (home.root / "collector.toml").write_text(text.replace("[ring]", "[ring]\nfree_when_drained = false"))
    (home.run / "ring" / "kiwoom.tick.ring").unlink()
    Rings(home).close()
    process = start_writer(home)
    wait_for(lambda: read_running_vitals(home, process))
    assert stop_writer(process) == 0
    assert len(list((home.run / "ring").glob("*.ring"))) == 5
