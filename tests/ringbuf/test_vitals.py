"""Vitals: what a process writes is what a reader sees, whole, at any time, also after its death."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.small_disk import fill_disk, small_disk

from ringbuf import layout, vitals
from ringbuf.vitals import (
    COUNTERS,
    ProcessState,
    Vitals,
    VitalsError,
    VitalsSnapshot,
    compute_percentiles,
    read_heartbeat,
    read_snapshot,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kis.vitals"


def test_what_is_written_is_read(path: Path) -> None:
    """Name, pid, start, heartbeat, state, detail and counters come across."""
    before_ns, before_mono_ns = time.time_ns(), time.monotonic_ns()
    page = Vitals.create(path, "kis")
    page.add("frames")
    page.add("frames", 4)
    page.set("connected", 3)
    page.set("connected", 2)
    page.set_state(ProcessState.STREAMING, "삼성전자 and 40 others")

    reading = read_snapshot(path)

    assert (reading.name, reading.pid) == ("kis", os.getpid())
    assert before_ns <= reading.start_ns <= time.time_ns()
    assert before_mono_ns <= reading.heartbeat_mono_ns <= time.monotonic_ns()
    assert (reading.state, reading.detail) == ("streaming", "삼성전자 and 40 others")
    assert {name: value for name, value in reading.counters.items() if value} == {"frames": 5, "connected": 2}
    assert list(reading.counters) == list(COUNTERS)
    assert (page.get("frames"), page.get("bytes")) == (5, 0)
    assert (reading.latency_count, reading.latency_ns) == (0, {"50": 0, "99": 0, "99.9": 0})


def test_a_fresh_page_is_starting_and_alive(path: Path) -> None:
    """State and heartbeat stand from the first instant at which the page can be read."""
    Vitals.create(path, "writer")

    reading = read_snapshot(path)

    assert (reading.state, reading.detail) == ("starting", "")
    assert reading.heartbeat_mono_ns > 0


def test_a_beat_moves_the_heartbeat_and_nothing_else(path: Path) -> None:
    """Alive is one store."""
    page = Vitals.create(path, "kis")
    before = read_snapshot(path)

    page.heartbeat()
    after = read_snapshot(path)

    assert after.heartbeat_mono_ns > before.heartbeat_mono_ns
    assert {f: getattr(after, f) for f in VitalsSnapshot.__struct_fields__ if f != "heartbeat_mono_ns"} == {
        f: getattr(before, f) for f in VitalsSnapshot.__struct_fields__ if f != "heartbeat_mono_ns"
    }


def test_a_new_life_begins_a_new_page(path: Path) -> None:
    """Counters start again, and whoever still has the old page open does not disturb the new one."""
    old = Vitals.create(path, "kis")
    old.add("frames", 7)

    Vitals.create(path, "kis")
    old.set_state(ProcessState.STOPPED)

    assert read_snapshot(path).counters["frames"] == 0
    assert read_snapshot(path).state == "starting"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_counter_that_is_not_in_the_vocabulary_is_a_mistake(path: Path) -> None:
    """KeyError at once, instead of a count that nobody finds."""
    page = Vitals.create(path, "kis")

    with pytest.raises(KeyError):
        page.add("framse")
    with pytest.raises(KeyError):
        page.set("framse", 1)


def test_the_vocabulary_fits_the_page() -> None:
    """No name twice, room for each, and nothing on the page overlaps."""
    assert len(set(COUNTERS)) == len(COUNTERS) <= layout.MAX_COUNTERS
    assert layout.NAME_AT + layout.NAME_BYTES == layout.STATE_AT
    assert layout.STATE_AT + layout.STATE_BYTES == layout.DETAIL_AT
    assert layout.DETAIL_AT + layout.DETAIL_BYTES == layout.COUNTERS_AT
    assert layout.COUNTERS_AT + 8 * layout.MAX_COUNTERS == layout.LATENCY_AT
    assert layout.LATENCY_AT + 8 * layout.LATENCY_BUCKETS == layout.VITALS_BYTES
    assert 8 * layout.TEXT_CHECKSUM + 8 <= layout.NAME_AT


@given(st.lists(st.integers(1, 10**13), min_size=1, max_size=300), st.sampled_from([50, 99, 99.9]))
def test_a_percentile_is_right_within_a_quarter(durations_ns: list[int], percent: float) -> None:
    """Never below the true one, at most 25 % above it, from a nanosecond to hours."""
    buckets = [0] * layout.LATENCY_BUCKETS
    for ns in durations_ns:
        buckets[vitals._bucket_index(ns)] += 1
    rank = -(-len(durations_ns) * round(percent * 10) // 1000)
    true = sorted(durations_ns)[rank - 1]

    found = vitals._compute_percentile(buckets, percent)

    assert true <= found <= true * 1.25


def test_latencies_are_counted_with_their_weight(path: Path) -> None:
    """One slow record among a thousand shows in the last percentile only; durations of 0, below 0 or of years are kept too."""
    page = Vitals.create(path, "kis")
    page.record_latency(1_000, 998)
    page.record_latency(1_000_000, 2)

    reading = read_snapshot(path)

    assert reading.latency_count == 1000
    assert 1_000 <= reading.latency_ns["50"] <= 1_250
    assert 1_000 <= reading.latency_ns["99"] <= 1_250
    assert 1_000_000 <= reading.latency_ns["99.9"] <= 1_250_000
    for ns in (0, -5, 2**62):
        page.record_latency(ns)
    assert read_snapshot(path).latency_count == 1003


def test_the_latency_between_two_readings_is_their_difference(path: Path) -> None:
    """What was slow before the first reading does not colour the time after it."""
    page = Vitals.create(path, "kis")
    page.record_latency(50_000_000, 1000)
    before = np.array(read_snapshot(path).latency_buckets)
    page.record_latency(1_000, 10)

    between = compute_percentiles(np.array(read_snapshot(path).latency_buckets) - before)

    assert {"50", "99", "99.9"} == set(between)
    assert all(1_000 <= ns <= 1_250 for ns in between.values())


@given(st.text(max_size=600))
def test_any_text_is_cut_to_whole_letters(text: str) -> None:
    """What does not fit is left off behind a whole UTF-8 letter; nothing that an error message may contain can fail."""
    page = vitals.Vitals.__new__(Vitals)
    page._mmap = bytearray(layout.VITALS_BYTES)

    page._write_text(layout.DETAIL_AT, layout.DETAIL_BYTES, text)
    found = vitals._read_text(bytes(page._mmap), layout.DETAIL_AT, layout.DETAIL_BYTES)

    assert text.startswith(found)
    assert len(found.encode()) >= min(len(text.partition("\0")[0].encode()), layout.DETAIL_BYTES - 4)


def test_a_file_name_that_is_no_text_can_be_said(path: Path) -> None:
    """Python gives such names lone surrogates, which UTF-8 refuses: a process must not die of its own complaint."""
    page = Vitals.create(path, "kis")

    page.set_state(ProcessState.REFUSED, "cannot read \udcff.toml")

    assert read_snapshot(path).detail == "cannot read ?.toml"


SPEAKER = """
import sys
import threading
import time
from pathlib import Path
from ringbuf.vitals import ProcessState, Vitals
page = Vitals.create(Path(sys.argv[1]), "speaker")
page.add("frames", 3)
texts = [(state, state[0] * 380) for state in map(ProcessState, ("waiting", "publishing", "closed_market", "done", "stopped"))]
while True:
    for state, detail in texts:
        page.set_state(state, detail)
        time.sleep(0.00005)
    if page.get("books") == 0:
        page.set("books", 1)
        print("begun", flush=True)
"""


@pytest.fixture
def speaker(path: Path):
    """A process that changes what it says ten thousand times a second."""
    process = subprocess.Popen([sys.executable, "-c", SPEAKER, path], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"begun\n"
    yield process
    process.kill()
    process.wait()


def test_a_reader_never_sees_half_a_sentence(path: Path, speaker: subprocess.Popen) -> None:
    """State and detail always belong together and are whole, however fast they change; else the page says interrupted."""
    seen, interrupted = set(), 0
    give_up = time.monotonic() + 3
    while time.monotonic() < give_up:
        reading = read_snapshot(path)
        if reading.state == ProcessState.INTERRUPTED:
            interrupted += 1
            continue
        assert reading.detail == reading.state[0] * 380 or (reading.state, reading.detail) == ("starting", ""), reading
        seen.add(reading.state)

    assert {"waiting", "publishing", "closed_market", "done", "stopped"} <= seen
    assert interrupted < 5


def test_a_page_survives_its_process(path: Path, speaker: subprocess.Popen) -> None:
    """After SIGKILL the last words and counts are there; a sentence that was being written is called interrupted."""
    speaker.send_signal(signal.SIGKILL)
    speaker.wait()

    reading = read_snapshot(path)

    assert (reading.pid, reading.counters["frames"]) == (speaker.pid, 3)
    assert reading.state == ProcessState.INTERRUPTED or reading.detail == reading.state[0] * 380


def test_a_sentence_that_stays_broken_off_is_called_so(path: Path) -> None:
    """A process stopped in the middle of `say` must not be quoted with two halves."""
    page = Vitals.create(path, "kis")
    page.set_state(ProcessState.STREAMING, "all is well")
    page._write_text(layout.STATE_AT, layout.STATE_BYTES, "refused")

    reading = read_snapshot(path)

    assert (reading.state, reading.pid) == (ProcessState.INTERRUPTED, os.getpid())
    assert "all is well" not in reading.detail


def test_no_page_is_file_not_found(path: Path) -> None:
    """A process that never ran is told apart from one that is dead."""
    with pytest.raises(FileNotFoundError):
        read_snapshot(path)


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        (0, "not a vitals page"),
        (layout.VERSION, "written by another version"),
        (layout.COUNTERS_HASH, "written by another version"),
    ],
)
def test_a_page_of_another_version_is_refused(path: Path, word: int, complaint: str) -> None:
    """Magic, version and vocabulary are checked; the message says which file and what to do."""
    page = Vitals.create(path, "kis")
    page._words[word] -= 1

    with pytest.raises(VitalsError, match=complaint) as refusal:
        read_snapshot(path)

    assert str(path) in str(refusal.value)
    assert "restart the process" in str(refusal.value)


@pytest.mark.parametrize("word", [layout.VERSION, layout.COUNTERS_HASH])
def test_pid_and_heartbeat_are_read_in_every_version(path: Path, word: int) -> None:
    """While an upgrade has processes of two versions, each can tell whether the other hangs; no page says nothing."""
    page = Vitals.create(path, "kis")
    page._words[word] += 1
    page.heartbeat(77)

    assert read_heartbeat(path) == (os.getpid(), 77)
    page._words[layout.MAGIC] = 0
    assert read_heartbeat(path) is None
    path.write_bytes(b"")
    assert read_heartbeat(path) is None
    path.unlink()
    assert read_heartbeat(path) is None


@pytest.mark.parametrize("change", [lambda t: f"{t}\x00x"[:4096], lambda t: "x" * 4097, lambda t: ""])
def test_a_file_that_is_no_page_is_refused(path: Path, change) -> None:
    """Short, long or empty files are no vitals."""
    path.write_text(change("short"))

    with pytest.raises(VitalsError, match="not a vitals page"):
        read_snapshot(path)


def test_another_vocabulary_is_refused(path: Path) -> None:
    """A reader with one counter more or in another order would put numbers under wrong names."""
    script = (
        "import sys; from pathlib import Path; import ringbuf.vitals as v; from hashlib import sha256\n"
        "import importlib.util\n"
        "spec = importlib.util.find_spec('ringbuf.vitals'); source = Path(spec.origin).read_text()\n"
        'source = source.replace(\'"frames",\', \'"bytes",\', 1).replace(\'"bytes",\\n    "books"\', \'"frames",\\n    "books"\')\n'
        "module = {'__name__': 'other'}; sys.modules['other'] = v; exec(compile(source, 'other', 'exec'), module)\n"
        "assert sorted(module['COUNTERS']) == sorted(v.COUNTERS) and module['COUNTERS'] != v.COUNTERS\n"
        "module['Vitals'].create(Path(sys.argv[1]), 'kis')"
    )
    subprocess.run([sys.executable, "-c", script, path], check=True, timeout=60)

    with pytest.raises(VitalsError, match="another version"):
        read_snapshot(path)


def test_a_page_is_for_its_owner_only(path: Path) -> None:
    """Mode 0600."""
    Vitals.create(path, "kis")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_room_for_another_page_that_of_the_previous_process_is_used(tmp_path: Path) -> None:
    """A full disk keeps no process that ran before from starting: the page is cleared, and nothing else is left behind."""
    with small_disk(tmp_path / "disk", 1) as disk:
        path = disk / "kis.vitals"
        before = Vitals.create(path, "kis")
        before.add("frames", 7)
        before.set_state(ProcessState.STREAMING, "41 subscriptions")
        last_ns = read_snapshot(path).heartbeat_mono_ns
        before.close()
        fill_disk(disk)

        page = Vitals.create(path, "kis")

        reading = read_snapshot(path)
        assert (reading.pid, reading.state, reading.detail) == (os.getpid(), "starting", "")
        assert reading.counters["frames"] == 0 and reading.heartbeat_mono_ns > last_ns
        assert page.previous_heartbeat_ns == last_ns
        assert sorted(found.name for found in disk.iterdir()) == ["ballast", "kis.vitals"]
        with pytest.raises(OSError, match=r"No space left on device: '.*kiwoom\.vitals'"):
            Vitals.create(disk / "kiwoom.vitals", "kiwoom")
        assert sorted(found.name for found in disk.iterdir()) == ["ballast", "kis.vitals"]


def test_a_page_whose_directory_is_deleted_is_made_again_by_the_next_heartbeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its counters and its text; what the process writes afterwards is in it, from every thread."""
    monkeypatch.setattr(vitals, "PATH_CHECK_NS", 0)
    directory = tmp_path / "shm"
    directory.mkdir()
    (tmp_path / "ring").symlink_to(directory)
    path = tmp_path / "ring" / "kis.vitals"
    page = Vitals.create(path, "kis")
    page.add("frames", 5)
    page.set_state(ProcessState.STREAMING, "all is well")
    path.unlink()
    directory.rmdir()
    writers = [threading.Thread(target=lambda: [page.add("books") for _ in range(2000)]) for _ in range(3)]
    for writer in writers:
        writer.start()

    page.heartbeat()
    for writer in writers:
        writer.join()

    reading = read_snapshot(path)
    assert (reading.pid, reading.state, reading.detail) == (os.getpid(), "streaming", "all is well")
    assert (reading.counters["frames"], reading.counters["books"]) == (5, 6000)
    assert [file.name for file in directory.iterdir()] == ["kis.vitals"]
