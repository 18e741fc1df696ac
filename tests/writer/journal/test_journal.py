"""The journal: what is in it stays in it, and what is torn is cut exactly."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.former_journal import write_former_segment
from support.writer_data import NINE_NS, ROOT, make_ticks

from writer import durable_io
from writer.journal.entries import EXPANDED, JOURNAL, build_entries, expand_entries
from writer.journal.journal import Journal, JournalError
from writer.journal.reader import list_segments, read_batches, read_lineage, read_rows
from writer.journal.segment import Damage

HOUR = 3600 * 1_000_000_000


def batch_of(journal: Journal, count: int, hour: int = NINE_NS) -> pa.RecordBatch:
    """The next entries of a tick journal."""
    first = journal.last_row + 1
    return build_entries("kr.tick", make_ticks(range(first, first + count), exch_ns=hour), first, None)


def opened(directory: Path) -> Journal:
    """The journal as it is recovered, with a new segment."""
    journal = Journal.open(directory, JOURNAL["kr.tick"])
    journal.roll([])
    return journal


def filled(directory: Path, batches: int, count: int = 7) -> Journal:
    """A journal with some batches; positions count the rows."""
    journal = opened(directory)
    for _ in range(batches):
        journal.append(batch_of(journal, count), {"kis.tick": [1, journal.last_row + count + 1]})
    journal.sync()
    return journal


def damages_of(directory: Path) -> tuple[Journal, list[Damage]]:
    """The journal as it is recovered, with a new segment, and what it reported."""
    found: list[Damage] = []
    journal = Journal.open(directory, JOURNAL["kr.tick"], on_damage=found.append)
    journal.roll([])
    return journal, found


def rows_in(directory: Path) -> list[int]:
    """Entry numbers of everything readable."""
    return [row for batch in read_rows(directory) for row in batch.column("row").to_pylist()]


def test_what_was_appended_is_found_again_with_its_positions(place: Path) -> None:
    """Rows, row numbers, positions and hours survive; the next segment goes on counting."""
    filled(place, 3).close()

    journal = Journal.open(place, JOURNAL["kr.tick"])

    assert (journal.last_row, journal.positions) == (21, {"kis.tick": [1, 22]})
    assert journal.segments[0].newest_rows == {NINE_NS: 21}
    assert list(range(1, 22)) == rows_in(place)


def test_the_newest_segment_alone_knows_everything(place: Path) -> None:
    """With every older segment gone, positions, row numbers, ceilings and lineage go on."""
    journal = filled(place, 2)
    journal.roll([["005930", 1, 20000, 77]])
    lineage = journal.lineage
    assert [place / "000000000001.journal"] == journal.prune({NINE_NS: 14})
    journal.close()

    again = opened(place)
    again.append(batch_of(again, 1), again.positions)

    assert (lineage, 15, {"kis.tick": [1, 15]}) == (again.lineage, again.last_row, again.positions)
    assert (
        Journal.open(place, JOURNAL["kr.tick"]).volume_high_water == [["005930", 1, 20000, 77]]
        or again.volume_high_water
    )
    assert sorted(path.name for path in place.iterdir()) == ["000000000002.journal", "000000000003.journal"]


def test_a_tail_torn_at_any_byte_costs_only_the_last_batch(place: Path) -> None:
    """Cut at every offset of the last batch: the batches before it are whole, positions are theirs, the log ends there."""
    filled(place, 3).close()
    path = place / "000000000001.journal"
    whole = path.read_bytes()
    last = list(read_batches(path))[-1]

    for cut in range(last.begin, last.end):
        path.write_bytes(whole[:cut])

        journal = Journal.open(place, JOURNAL["kr.tick"])

        assert (journal.last_row, journal.positions) == (14, {"kis.tick": [1, 15]}), cut
        assert last.begin == path.stat().st_size


def test_a_segment_torn_before_its_first_batch_was_never_there(place: Path) -> None:
    """Killed while beginning a segment: the one before it is the newest again, and its number is not lost."""
    journal = filled(place, 2)
    journal.roll([])
    journal.close()
    path = place / "000000000002.journal"
    whole = path.read_bytes()
    first, second = read_batches(path)

    for cut in (0, 1, 87, 88, 89, first.end - 1, first.end, second.end - 1, second.end):
        path.write_bytes(whole[:cut])

        journal = Journal.open(place, JOURNAL["kr.tick"])

        assert (14, {"kis.tick": [1, 15]}) == (journal.last_row, journal.positions), cut
        assert (cut >= first.end) == path.exists() == (len(journal.segments) == 2), cut


def test_a_zeroed_tail_is_torn_too(place: Path) -> None:
    """After a power cut a file can be longer than what was written."""
    filled(place, 2).close()
    path = place / "000000000001.journal"
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"\0" * 5000)

    journal = Journal.open(place, JOURNAL["kr.tick"])

    assert (14, size) == (journal.last_row, path.stat().st_size)


@pytest.mark.parametrize("where", ["body", "header", "metadata", "first opening", "second opening", "both openings"])
def test_damage_in_the_middle_costs_what_it_hit_and_the_file_is_kept(place: Path, where: str) -> None:
    """Batches on both sides of it are used, the rows in it counted; the file is kept once the rest of it is published."""
    filled(place, 5).close()
    path = place / "000000000001.journal"
    data = bytearray(path.read_bytes())
    first, second, *batches = read_batches(path)
    third = batches[2]
    places = {
        "body": [third.end - 100],
        "header": [third.begin],
        "metadata": [data.index(b"kis.tick", third.begin)],
        "first opening": [40],
        "second opening": [second.end - 100],
        "both openings": [first.end - 100, second.end - 100],
    }
    for at in places[where]:
        data[at : at + 4] = bytes(octet ^ 0x55 for octet in data[at : at + 4])
    path.write_bytes(data)

    journal, (damage,) = damages_of(place)

    survivors = list(range(1, 36)) if "opening" in where else [*range(1, 15), *range(22, 36)]
    assert survivors == rows_in(place) or where == "both openings"
    assert survivors == [row for batch in read_rows(place, JOURNAL["kr.tick"]) for row in batch["row"].to_pylist()]
    assert (path, 35 - len(survivors)) == (damage.path, damage.lost_rows)
    assert (journal.last_row, journal.positions) == (35, {"kis.tick": [1, 36]})
    assert [] == journal.prune({NINE_NS: 35})
    assert bytes(data) == (place / "000000000001.journal.damaged").read_bytes()
    assert [place / "000000000002.journal"] == list_segments(place)


def test_a_damaged_end_is_read_again_from_the_rings_and_no_loss_in_the_next_life(place: Path) -> None:
    """The last batch of the newest segment: positions are those before it; once they were read again, nothing is missing."""
    filled(place, 3).close()
    path = place / "000000000001.journal"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)

    journal, (damage,) = damages_of(place)
    journal.append(batch_of(journal, 7), {"kis.tick": [1, 22]})
    journal.close()
    journal, later = damages_of(place)

    assert (7, True, 14) == (damage.lost_rows, damage.is_tail, damage.after_row)
    assert ([], list(range(1, 22))) == (later, rows_in(place))


def test_a_damaged_end_that_was_not_read_again_is_a_loss_in_every_life(place: Path) -> None:
    """The last batch of an older segment: what follows begins behind it."""
    journal = filled(place, 3)
    journal.roll([])
    journal.append(batch_of(journal, 7), {"kis.tick": [1, 29]})
    journal.close()
    path = place / "000000000001.journal"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)

    for _ in range(2):
        journal, (damage,) = damages_of(place)
        journal.close()

        assert (7, path) == (damage.lost_rows, damage.path)
        assert ([*range(1, 15), *range(22, 29)], 28) == (rows_in(place), journal.last_row)


def test_a_frame_of_another_place_or_of_before_is_damage(place: Path) -> None:
    """A disk that answers with an old block: its checksum is right, but it is not what was written there."""
    filled(place, 3).close()
    path = place / "000000000001.journal"
    data = path.read_bytes()
    *_, second, third = read_batches(path)
    assert second.end - second.begin == third.end - third.begin

    path.write_bytes(data[: third.begin] + data[second.begin : second.end])

    _, (damage,) = damages_of(place)
    assert (third.begin, len(data)) == (damage.begin, damage.end)
    assert list(range(1, 15)) == rows_in(place)


@pytest.mark.parametrize(
    ("change", "words"),
    [(("writer.journal.frame.FORMAT", 3), "format 3"), (("writer.journal.journal.VERSION", 3), "version 3")],
)
def test_a_journal_of_another_version_is_refused_before_anything_is_touched(
    place: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, int], words: str
) -> None:
    """Also where another segment would have been cut."""
    with monkeypatch.context() as context:
        context.setattr(*change)
        journal = Journal(place, JOURNAL["kr.tick"])
        journal.roll([])
        journal.close()
    with (place / "000000000001.journal").open("ab") as file:
        file.write(b"torn")
    before = {path.name: path.read_bytes() for path in place.iterdir()}

    with pytest.raises(JournalError, match=f"{words}.*collectorctl stop"):
        Journal.open(place, JOURNAL["kr.tick"])

    assert before == {path.name: path.read_bytes() for path in place.iterdir()}


def test_a_segment_goes_only_when_all_of_it_is_published(place: Path) -> None:
    """Also rows of other hours, and rows its twins belong to, must be published; the newest always stays."""
    journal = filled(place, 1)
    journal.append(batch_of(journal, 5, NINE_NS + HOUR), {})
    journal.roll([])

    assert journal.prune({NINE_NS: 7}) == []
    assert journal.prune({NINE_NS: 7, NINE_NS + HOUR: 11}) == []
    assert [place / "000000000001.journal"] == journal.prune({NINE_NS: 7, NINE_NS + HOUR: 12})
    assert journal.prune({NINE_NS: 99, NINE_NS + HOUR: 99}) == []


def test_two_journals_in_one_directory_are_refused(place: Path) -> None:
    """Segments of another lineage are named, not mixed in."""
    filled(place / "a", 1).close()
    filled(place / "b", 1).close()
    (place / "b" / "000000000001.journal").rename(place / "a" / "000000000002.journal")

    with pytest.raises(JournalError, match="several journals"):
        Journal.open(place / "a", JOURNAL["kr.tick"])


def test_a_reader_beside_a_live_writer_sees_whole_batches_only(place: Path) -> None:
    """Half a batch at the end is not there yet."""
    journal = filled(place, 2)
    path = place / "000000000001.journal"
    with path.open("ab") as file:
        file.write(b"\xff\xff\xff\xff\x10")

    assert list(range(1, 15)) == rows_in(place)

    journal.append(batch_of(journal, 3), {})

    assert list(range(1, 18)) == rows_in(place), "what an earlier failure left is cut off by the next append"


FULL = """
import resource, sys
from pathlib import Path
sys.path[:0] = {tests!r}
from test_journal import filled, batch_of
journal = filled(Path({place!r}), 2)
size, positions = journal.current.size, journal.positions
for limit in range(size, size + 4000, 13):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        journal.append(batch_of(journal, 20), {{"kis.tick": [1, 999]}})
        raise SystemExit("written beyond the limit")
    except OSError:
        assert (size, positions, 14) == (journal.current.path.stat().st_size, journal.positions, journal.last_row)
for limit in range(0, 1500, 13):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        journal.roll([])
        raise SystemExit("begun beyond the limit")
    except OSError:
        assert 1 == len(journal.segments) == len(list(Path({place!r}).iterdir()))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append(batch_of(journal, 20), {{"kis.tick": [1, 35]}})
"""


def test_a_write_that_fails_anywhere_leaves_the_log_as_it_was(place: Path) -> None:
    """A file that cannot grow, at many lengths: position and size stay, and writing goes on when there is room."""
    script = FULL.format(tests=[str(Path(__file__).parent), str(Path(__file__).parents[2])], place=str(place))

    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=True)

    journal = Journal.open(place, JOURNAL["kr.tick"])
    assert (34, {"kis.tick": [1, 35]}, list(range(1, 35))) == (journal.last_row, journal.positions, rows_in(place))


LINEAGE = "0123456789abcdef0123456789abcdef"


def write_former(place: Path, count: int = 3) -> list[Path]:
    """A journal of the format before: `count` segments of two batches of seven ticks."""
    last_row, paths = 0, []
    for number in range(1, count + 1):
        appended = [(pa.RecordBatch.from_pylist([], schema=EXPANDED["kr.tick"]), last_row)]
        for _ in range(2):
            ticks = make_ticks(range(last_row + 1, last_row + 8))
            entries = expand_entries("kr.tick", build_entries("kr.tick", ticks, last_row + 1, None))
            appended.append((entries, last_row + 7))
            last_row += 7
        paths.append(place / f"{number:012d}.arrows")
        write_former_segment(
            paths[-1],
            EXPANDED["kr.tick"],
            LINEAGE,
            [
                (batch, {"positions": {"kis.tick": [1, row + 1]}, "last_row": row} | ({} if n else {"ceilings": []}))
                for n, (batch, row) in enumerate(appended)
            ],
        )
    return paths


def test_a_journal_of_the_format_before_is_read_and_rewritten_once(place: Path) -> None:
    """Nothing is lost in an upgrade: every row, the positions, the lineage; readers see it before and after."""
    write_former(place)
    assert (list(range(1, 43)), {LINEAGE}) == (rows_in(place), set(map(read_lineage, list_segments(place))))

    journal, damages = damages_of(place)

    assert (LINEAGE, 42, {"kis.tick": [1, 43]}) == (journal.lineage, journal.last_row, journal.positions)
    assert ([], list(range(1, 43)), []) == (damages, rows_in(place), list(place.glob("*.arrows*")))
    assert [f"{n:012d}.journal" for n in range(1, 5)] == sorted(path.name for path in place.iterdir())
    journal.append(batch_of(journal, 3), journal.positions)
    assert list(range(1, 46)) == rows_in(place)


def test_an_upgrade_that_is_killed_is_done_again(place: Path) -> None:
    """Between the two names, or with half a file under a temporary one."""
    former = {path: path.read_bytes() for path in write_former(place)}
    opened(place).close()
    for path, data in former.items():
        path.write_bytes(data)
    (place / "000000000003.journal").unlink()
    (place / "000000000003.journal.tmp").write_bytes(b"half")

    journal = opened(place)

    assert (list(range(1, 43)), 42) == (rows_in(place), journal.last_row)
    assert [f"{n:012d}.journal" for n in range(1, 6)] == sorted(path.name for path in place.iterdir())


@pytest.mark.parametrize("at", [4, -100, -3000])
def test_a_damaged_segment_of_the_format_before_is_kept(place: Path, at: int) -> None:
    """What is whole of it is used."""
    paths = write_former(place)
    data = bytearray(paths[1].read_bytes())
    data[at] ^= 0x55
    paths[1].write_bytes(data)

    journal = opened(place)

    assert set(range(1, 43)) - set(range(15, 29)) <= set(rows_in(place))
    assert (42, LINEAGE) == (journal.last_row, journal.lineage)
    assert bytes(data) == (place / "000000000002.arrows.damaged").read_bytes()


def test_a_journal_of_the_format_before_and_of_another_version_is_refused_untouched(place: Path) -> None:
    """Nothing is rewritten of what could not be read right."""
    (path, *_) = write_former(place)
    batch = pa.RecordBatch.from_pylist([], schema=JOURNAL["kr.tick"])
    write_former_segment(path, batch.schema, LINEAGE, [(batch, {"last_row": 0})], version=3)
    data = path.read_bytes()

    with pytest.raises(JournalError, match=r"version 3.*collectorctl stop"):
        Journal.open(place, JOURNAL["kr.tick"])

    assert (data, 3) == (path.read_bytes(), len(list(place.iterdir())))


def test_events_written_with_the_earlier_column_names_are_read_with_the_present_ones(place: Path) -> None:
    """`words` and `number` are `message` and `value`."""
    batch = pa.RecordBatch.from_pydict({"row": [1, 2], "number": [7, None], "words": ["why", None]})
    write_former_segment(place / "1.arrows", batch.schema, LINEAGE, [(batch, {"last_row": 2})])

    (found,) = read_batches(place / "1.arrows")

    assert found.entries.to_pydict() == {"row": [1, 2], "value": [7, None], "message": ["why", None]}


class FailingDisk:
    """fsyncs fail on demand, and the pages that were not durable are gone with the failure, as the kernel has it."""

    def __init__(self) -> None:
        self.failures = 0
        """How many of the next fsyncs fail."""
        self.dropped: dict[Path, bytes] = {}
        """What each file held before its pages were dropped."""
        self._durable_bytes: dict[Path, int] = {}

    @contextmanager
    def installed(self) -> Iterator[FailingDisk]:
        """Every fsync of a journal's file goes through here."""
        with pytest.MonkeyPatch.context() as patch:
            remove = durable_io.remove

            def forget(path: Path) -> None:
                self._durable_bytes.pop(path, None)
                self.dropped.pop(path, None)
                remove(path)

            patch.setattr(durable_io, "sync", self._sync)
            patch.setattr(durable_io, "remove", forget)
            yield self

    def _sync(self, fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if self.failures:
            self.failures -= 1
            self.dropped[path] = path.read_bytes()
            os.ftruncate(fd, self._durable_bytes.get(path, 0))
            raise OSError(errno.EIO, "pages gone")
        self._durable_bytes[path] = os.fstat(fd).st_size


def test_what_a_failed_fsync_dropped_is_written_again_into_the_next_segment(place: Path) -> None:
    """Nothing is appended to the file that failed, however often it is tried; rows and positions go on, each once."""
    with FailingDisk().installed() as disk:
        journal = filled(place, 2)
        journal.append(batch_of(journal, 7), {"kis.tick": [1, 22]})
        journal.append(batch_of(journal, 7), {"kis.tick": [1, 29]})
        disk.failures = 1
        with pytest.raises(OSError, match="pages gone"):
            journal.sync()
        for attempt in (journal.sync, lambda: journal.append(batch_of(journal, 1), {})):
            with pytest.raises(OSError, match="no new segment could be begun yet"):
                attempt()
        assert list(range(1, 15)) == rows_in(place)
        disk.failures = 1
        with pytest.raises(OSError, match="pages gone"):
            journal.roll([])

        journal.roll([["005930", 1, 20000, 77]])
        journal.append(batch_of(journal, 7), {"kis.tick": [1, 36]})
        journal.sync()

        assert list(range(1, 36)) == rows_in(place)
        journal.close()
        again = Journal.open(place, JOURNAL["kr.tick"])
        assert (35, {"kis.tick": [1, 36]}) == (again.last_row, again.positions)
        assert [["005930", 1, 20000, 77]] == again.volume_high_water
        assert [{NINE_NS: 14}, {NINE_NS: 35}] == [segment.newest_rows for segment in again.segments]


def test_rows_that_are_on_the_disk_after_all_are_cut_where_the_next_segment_begins(place: Path) -> None:
    """The whole old segment comes back after a power cut: each row is there once, as the later segment has it."""
    with FailingDisk().installed() as disk:
        journal = filled(place, 2)
        journal.append(batch_of(journal, 7), {"kis.tick": [1, 22]})
        disk.failures = 1
        with pytest.raises(OSError, match="pages gone"):
            journal.sync()
        journal.roll([])
        journal.append(batch_of(journal, 3), {"kis.tick": [1, 25]})
        journal.roll([])
        journal.close()
        (path,) = disk.dropped
        path.write_bytes(disk.dropped[path])

        again = opened(place)

    assert list(range(1, 25)) == rows_in(place)
    assert (24, {"kis.tick": [1, 25]}) == (again.last_row, again.positions)


def test_what_a_failed_fsync_drops_at_a_start_is_read_from_the_rings_again(place: Path) -> None:
    """A killed writer had not synced its last batch, and the first fsync of the next drops it: positions follow what is left."""
    with FailingDisk().installed() as disk:
        journal = opened(place)
        journal.append(batch_of(journal, 7), {"kis.tick": [1, 8]})
        journal.sync()
        journal.append(batch_of(journal, 7), {"kis.tick": [1, 15]})
        journal.close()
        disk.failures = 1

        again = opened(place)

    assert (7, {"kis.tick": [1, 8]}) == (again.last_row, again.positions)
    assert list(range(1, 8)) == rows_in(place)


def test_a_killed_writers_tail_is_made_durable_before_the_next_segment_counts_on_it(place: Path) -> None:
    """Its fsync fails at the next start: the segment is written again, at that start or the next; a second fsync proves nothing."""
    with FailingDisk().installed() as disk:
        filled(place, 2).close()
        path = place / "000000000001.journal"
        whole = path.read_bytes()
        disk.failures = 2
        with pytest.raises(OSError, match="pages gone"):
            opened(place)
        path.write_bytes(whole)  # still in the cache
        before = path.stat().st_ino

        journal = opened(place)

        assert before != path.stat().st_ino, "a new file"
    assert 14 == journal.last_row and list(range(1, 15)) == rows_in(place)


STEPS = st.lists(
    st.sampled_from(
        ["append", "append", "sync", "failing sync", "roll", "failing roll", "kill", "kill, failing start", "power cut"]
    ),
    max_size=30,
)


@settings(deadline=None)
@given(STEPS)
def test_whatever_fsyncs_fail_every_durable_row_is_there_once_and_positions_follow_the_rows(steps: list[str]) -> None:
    """Appends, fsyncs and segments in any order, some failing; kills, and power cuts after which dropped tails are there again.

    A position is its last row + 1 throughout, so that what is not in the journal is read from the ring again.
    """
    with tempfile.TemporaryDirectory(prefix="cc-", dir="/tmp") as directory, FailingDisk().installed() as disk:
        place = Path(directory)
        journal, durable_row = opened(place), 0
        for step in steps:
            try:
                if step == "append":
                    journal.append(batch_of(journal, 3), {"kis.tick": [1, journal.last_row + 4]})
                elif step.startswith(("kill", "power cut")):
                    journal.close()
                    disk.failures = int(step.endswith("failing start") and bool(list(place.glob("*.journal"))))
                    if step == "power cut":
                        for path, content in disk.dropped.items():
                            if path.exists():
                                path.write_bytes(content)
                        disk.dropped.clear()
                    journal = opened(place)
                    assert durable_row <= journal.last_row
                else:
                    disk.failures = int(step.startswith("failing"))
                    (journal.roll([]) if step.endswith("roll") else journal.sync())
                    durable_row = journal.last_row
            except OSError:
                pass
            disk.failures = 0
        journal.close()

        journal = opened(place)

        assert durable_row <= journal.last_row
        assert list(range(1, journal.last_row + 1)) == rows_in(place)
        assert not journal.last_row or {"kis.tick": [1, journal.last_row + 1]} == journal.positions
        journal.close()
