"""What the writer says about missing ticks, and what it still knows after it was killed."""

from __future__ import annotations

import numpy as np
import pytest
from support.writer_data import (
    make_book_at,
    make_home,
    make_tick_records,
    read_counter,
    read_running_vitals,
    read_vitals,
    start_writer,
    stop_writer,
    wait_for,
)

from collectorctl.supervision.status import collect_status
from conf.home import Home
from ringbuf.records import ORDERBOOK, TICK
from ringbuf.ring import Producer
from ringbuf.vitals import Vitals
from writer.journal.entries import JOURNAL, build_entries
from writer.journal.journal import Journal
from writer.volume.gap_report import GapReporter
from writer.volume.gap_tracker import GapTracker
from writer.volume.gaps import GapReport, decode_gap_report

LOST = range(400, 450)


@pytest.fixture
def home(place) -> Home:
    """A home whose hours are published only by a stop."""
    return make_home(place, grace_s=1000.0, late_every_s=1000.0)


def told(home: Home) -> GapReport:
    """The file as it lies there."""
    return decode_gap_report((home.run / "volume.json").read_bytes())


def heard(begin: int, end: int) -> np.ndarray:
    """Ticks of two shares each, begin to end, without those that were lost."""
    found = make_tick_records([(2 * n, 2) for n in range(begin, end) if n not in LOST])
    found["mono_ns"] = np.arange(len(found)) + begin
    return found


def test_a_killed_writer_knows_its_gaps_again_and_status_reads_them(home: Home) -> None:
    """SIGKILL behind a told state and rows not yet told: the next life counts each tick once; vitals and file say the same."""
    ring = Producer.open(home.ring_path("kis", "tick"), TICK, 65536)
    first = start_writer(home)
    wait_for(lambda: read_running_vitals(home, first))
    ring.publish(heard(0, 500))
    wait_for(lambda: read_counter(home, "gap_shares") == 100)
    row = told(home).row
    ring.publish(heard(500, 800))
    wait_for(lambda: read_counter(home, "ticks_in") == 750)
    assert told(home).row in (row, 750)
    first.kill()
    first.wait()
    ring.publish(heard(800, 1000))
    second = start_writer(home)
    wait_for(lambda: read_running_vitals(home, second) and read_counter(home, "ticks_in") == 200)

    assert stop_writer(second) == 0

    expected = GapTracker()
    expected.add_ticks(heard(0, 1000))
    report = told(home)
    assert (expected.export_symbols(), 950) == (report.symbols, report.row)
    assert report == collect_status(home).gaps
    counters = read_vitals(home).counters
    named = ("gap_count", "gap_shares", "gap_value", "duplicate_ticks", "gaps_confirmed_by_book")
    assert [1, 100, 10_000, 0, 0] == [counters[name] for name in named]
    ring.close()


def test_the_other_brokers_books_witness_a_tick_that_never_came(home: Home) -> None:
    """KIS's ticks stop, Kiwoom's books go on: within seconds it is counted."""
    ticks = Producer.open(home.ring_path("kis", "tick"), TICK, 1024)
    books = Producer.open(home.ring_path("kiwoom", "orderbook"), ORDERBOOK, 1024)
    process = start_writer(home)
    wait_for(lambda: read_running_vitals(home, process))
    ticks.publish(heard(0, 3))
    wait_for(lambda: read_counter(home, "ticks_in") == 3)
    books.publish(make_book_at(9, 1))

    wait_for(lambda: read_counter(home, "gaps_confirmed_by_book") == 1)
    wait_for(lambda: told(home).symbols)  # the report follows the counter

    assert told(home).symbols[0].behind == 3
    assert stop_writer(process) == 0
    ticks.close()
    books.close()


def journalled(records: np.ndarray, first_row: int = 1):
    """The journal's batch of some ticks."""
    return build_entries("kr.tick", records, first_row, None)


def test_without_its_file_it_begins_with_what_the_journal_holds(home: Home) -> None:
    """`since` is the receive time of the first tick that is left."""
    gaps = GapReporter(home, Vitals.create(home.vitals_path("writer"), "writer"))

    gaps.replay(journalled(heard(500, 600), first_row=451))
    gaps.begin("lineage", 550)
    gaps.write(10**15)

    report = told(home)
    assert ("2026-11-20 09:00:00", 550, "lineage") == (report.since, report.row, report.lineage)
    assert (1000, 1200) == (report.symbols[0].before_start, report.symbols[0].volume)


def test_where_file_and_journal_overlap_every_tick_counts_once(home: Home) -> None:
    """The file is true for 100 rows, the journal still holds 51 to 150: no tick twice, none lost, and `since` stays."""
    vitals = Vitals.create(home.vitals_path("writer"), "writer")
    journal = Journal.open(home.journal_directory("kr.tick"), JOURNAL["kr.tick"])
    journal.roll([])
    lived = GapReporter(home, vitals)
    lived.begin(journal.lineage, 0)
    lived.add_ticks(heard(0, 100), 100)
    lived.write(10**15)
    since = told(home).since

    again = GapReporter(home, vitals)
    again.replay(journalled(heard(50, 150), 51))
    again.begin(journal.lineage, 150)
    again.write(10**15)

    expected = GapTracker()
    expected.add_ticks(heard(0, 150))
    assert (expected.export_symbols(), since) == (told(home).symbols, told(home).since)


@pytest.mark.parametrize(("first_row", "last_row"), [(None, 90), (None, 120), (111, 120)])
def test_where_file_and_journal_do_not_meet_it_begins_anew(home: Home, first_row: int | None, last_row: int) -> None:
    """Rows it counted are gone, or rows it never counted: false gaps would be worse than none; `since` is later."""
    vitals = Vitals.create(home.vitals_path("writer"), "writer")
    lived = GapReporter(home, vitals)
    journal = Journal.open(home.journal_directory("kr.tick"), JOURNAL["kr.tick"])
    journal.roll([])
    lived.begin(journal.lineage, 0)
    lived.add_ticks(heard(0, 100), 100)
    lived.write(10**15)

    again = GapReporter(home, vitals)
    if first_row is not None:
        again.replay(journalled(heard(110, 120), first_row))
    again.begin(journal.lineage, last_row)
    again.write(10**15)

    gap_shares = [symbol.gap_shares for symbol in told(home).symbols]
    assert gap_shares == ([] if first_row is None else [0])


def test_a_place_that_cannot_be_written_stops_nothing(home: Home) -> None:
    """A directory lies where the file should be: vitals are set all the same."""
    (home.run / "volume.json").mkdir()
    vitals = Vitals.create(home.vitals_path("writer"), "writer")
    gaps = GapReporter(home, vitals)
    gaps.begin("lineage", 0)
    gaps.add_ticks(heard(0, 500), 450)

    gaps.write(10**15)

    assert vitals.get("gap_shares") == 100
