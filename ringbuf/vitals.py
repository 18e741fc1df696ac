"""Vitals page: heartbeat, state, counters and latency histogram of a process in one memory-mapped page.

    process --heartbeat, counters, state--> NAME.vitals (4096 bytes, mmap) --read--> status, watchdog

Guarantees:
    * Writing is a store into memory without a system call, but for one look a second whether the page's path still exists;
      threads of the process may write at once, and no count is lost.
    * A page whose path was deleted is made again, with its content, by the next heartbeat.
    * A reader never disturbs the process and never reads a half-written text: the text carries its checksum, so that this
      holds on processors that reorder stores, too (layout.py).
    * The page outlives its process, so that a reader can tell an exit from a hang.
    * A page of another version is refused, but for pid and heartbeat, which are at their place in every version.
    * Where there is no room for another page, the page of the previous process is used again; a reader that comes while it is
      cleared is told that it is no vitals page.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
import zlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from ringbuf import layout
from ringbuf.access import create_file
from ringbuf.fields import fit_text
from ringbuf.lost_path import is_missing, restore_directory
from ringbuf.machine import check_machine

COUNTERS = (
    # collectors
    "frames",
    "bytes",
    "books",
    "ticks",
    "control",
    "quarantined",
    "quarantine_overflow",
    "connects",
    "connects_hour",
    "disconnects",
    "connected",
    "requested",
    "acknowledged",
    "refused",
    "resubscribed",
    "checksum_failed",
    "venue_mismatches",
    "wide_frames",
    "empty_trades",
    "last_data_mono_ns",
    "up_keys",
    "taken_over",
    "clock_steps",
    "list_number",
    "capture_frames",
    "capture_bytes",
    "capture_dropped",
    # writer
    "rows_in_kis",
    "rows_in_kiwoom",
    "rows_in_us",
    "books_in_kis",
    "books_in_kiwoom",
    "books_new",
    "books_twins",
    "twins_differ",
    "books_first_kis",
    "books_first_kiwoom",
    "books_late",
    "ticks_in",
    "journal_rows",
    "journal_bytes",
    "fsyncs",
    "hours_published",
    "rows_published",
    "late_rows",
    "journal_damaged",
    "journal_lost_rows",
    "lost_records",
    "damaged_records",
    "waiting_books",
    "backlog_records",
    "pauses",
    "gap_count",
    "gap_shares",
    "gap_value",
    "duplicate_ticks",
    "ticks_doubled",
    "ticks_contradicting",
    "gaps_confirmed_by_book",
    "rows_in_gapfill",
    "gapfill_refused_rows",
    # gapfill
    "gaps_asked",
    "gaps_filled",
    "gaps_given_up",
    "calls",
    "calls_limited",
    "calls_failed",
    "rows_rejected",
    "events",
    "degraded",
    "feeds_degraded",
    "twin_share_kis_e4",
    "twin_share_kiwoom_e4",
    "first_share_kis_e4",
    "first_share_kiwoom_e4",
    "lag_p50_us",
    "lag_p99_us",
    # watchdog
    "orders",
    # relay
    "clients",
    "clients_cut",
    "relayed",
    # zmq
    "published",
    "resent",
    "resend_gone",
    # notify
    "messages",
    "pings",
)
"""The names of all counters, for all processes; a counter that a process does not use stays zero."""

_COUNTER_INDEX = {name: number for number, name in enumerate(COUNTERS)}
_COUNTERS_HASH = int.from_bytes(sha256(" ".join(COUNTERS).encode()).digest()[:7], "little")
_SUB_BUCKETS = 4
"""Latency buckets per doubling: a percentile is right within 25 %."""


class ProcessState(StrEnum):
    """What a process is doing; `is_healthy` where it does everything it is there for."""

    STARTING = "starting"
    WAITING = "waiting"  # for room for its rings
    DISABLED = "disabled"
    CONNECTING = "connecting"
    LOGGING_IN = "logging_in"
    SUBSCRIBING = "subscribing"
    STREAMING = "streaming"
    CLOSED_MARKET = "closed_market"
    SLEEPING = "sleeping"  # disconnected outside the sessions
    DEGRADED = "degraded"  # streams, but a large share of the records is rejected
    RETRYING = "retrying"
    REFUSED = "refused"  # by the broker
    CONNECT_LIMIT = "connect_limit"  # no more connections for now: the vendor blocks who makes too many
    RUNNING = "running"
    PUBLISHING = "publishing"
    PAUSED = "paused"  # the disk cannot be written, or its last room belongs to the writer
    DISK_WAIT = "disk_wait"  # a write or fsync has not returned yet; everything else goes on
    DRAINING = "draining"
    RECOVERING = "recovering"
    FAILING = "failing"
    DONE = "done"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"  # read from a page whose process was stopped or killed while it was writing its state

    @property
    def is_healthy(self) -> bool:
        """Whether the process needs no attention."""
        return self in _HEALTHY


_HEALTHY = frozenset(
    [
        *(ProcessState.STREAMING, ProcessState.CLOSED_MARKET, ProcessState.SLEEPING, ProcessState.DISABLED),
        *(ProcessState.RUNNING, ProcessState.PUBLISHING, ProcessState.RECOVERING, ProcessState.DONE),
        ProcessState.DISK_WAIT,  # paused, which is not healthy, once it lasts
    ]
)

PATH_CHECK_NS = 1_000_000_000
"""Pause between two looks whether the page's path exists."""

_MAX_READ_ATTEMPTS = 100
"""Reads, a millisecond apart, before a page whose text stays incomplete is reported as interrupted."""


class VitalsError(Exception):
    """A page that cannot be read; the message has its path and the reason."""


class VitalsVersionError(VitalsError):
    """A page of another version: before or after an upgrade."""


class Heartbeat(NamedTuple):
    """Whose page it is, and its last heartbeat."""

    pid: int
    mono_ns: int


class VitalsSnapshot(msgspec.Struct, frozen=True):
    """A process's vitals at one instant; times in ns, `latency_ns` maps a percentile ("50", "99", "99.9") to ns.

    `latency_buckets`: the counts behind it; subtract those of an earlier read to get the interval between.
    """

    name: str
    pid: int
    start_ns: int
    heartbeat_mono_ns: int
    state: ProcessState
    detail: str
    counters: dict[str, int]
    latency_ns: dict[str, int]
    latency_count: int
    latency_buckets: list[int]


class Vitals:
    """A process's own page."""

    def __init__(self, path: Path, fd: int) -> None:
        check_machine()
        self.path = path
        self._directory = path.parent.resolve()
        self._path_checked_ns = time.monotonic_ns()
        self.previous_heartbeat_ns: int | None = None
        """The last heartbeat (mono_ns) of the previous process, see `last_heartbeat`."""
        self._lock = threading.Lock()  # between threads of this process; readers need none
        self._map(mmap.mmap(fd, layout.VITALS_BYTES))

    def _map(self, page: mmap.mmap) -> None:
        self._mmap = page
        # a memoryview of "q" loads and stores a word whole, at a third of numpy's cost
        self._words = memoryview(page).cast("q")
        self._counters = self._words[layout.COUNTERS_AT // 8 :][: layout.MAX_COUNTERS]
        self._latency = self._words[layout.LATENCY_AT // 8 :][: layout.LATENCY_BUCKETS]

    @classmethod
    def create(cls, path: Path, name: str) -> Self:
        """Create a page at `path` in place of the previous process's; state `starting`, with a first heartbeat.

        OSError without room for it if there is no page of a previous process to use again.
        """
        previous_heartbeat_ns = last_heartbeat(path)
        temporary = _temporary_path(path)
        try:
            fd, place = _allocate(temporary), temporary
        except OSError as error:
            fd, place = _open_allocated(path, error), path
        try:
            page = cls(path, fd)
        finally:
            os.close(fd)
        page._words[layout.MAGIC] = 0
        page._mmap[:] = bytes(layout.VITALS_BYTES)
        page.previous_heartbeat_ns = previous_heartbeat_ns
        page._words[layout.VERSION] = layout.VITALS_VERSION
        page._words[layout.COUNTERS_HASH] = _COUNTERS_HASH
        page._words[layout.PID] = os.getpid()
        page._words[layout.START_NS] = time.time_ns()
        page._write_text(layout.NAME_AT, layout.NAME_BYTES, name)  # its checksum comes with the state
        page.set_state(ProcessState.STARTING)
        page._words[layout.HEARTBEAT_MONO_NS] = time.monotonic_ns()
        page._words[layout.MAGIC] = layout.VITALS_MAGIC
        place.replace(path)
        return page

    def heartbeat(self, mono_ns: int | None = None) -> None:
        """Record a heartbeat, now or at `mono_ns`."""
        now_ns = time.monotonic_ns()
        if now_ns - self._path_checked_ns >= PATH_CHECK_NS:
            self._path_checked_ns = now_ns
            self._restore_path()
        self._words[layout.HEARTBEAT_MONO_NS] = now_ns if mono_ns is None else mono_ns

    def _restore_path(self) -> None:
        """Make the page again at its path if that was deleted; a failure is tried again at the next look."""
        from loguru import logger  # on demand: readers of pages have no use for it

        try:
            with self._lock:
                if not is_missing(self.path):
                    return
                restore_directory(self.path.parent, self._directory)
                if not is_missing(self.path):
                    return
                temporary = _temporary_path(self.path)
                fd = _allocate(temporary)
                try:
                    page = mmap.mmap(fd, layout.VITALS_BYTES)
                finally:
                    os.close(fd)
                page[:] = self._mmap[:]
                self._map(page)
                temporary.replace(self.path)
        except OSError as error:
            logger.error("{}: deleted while it is in use, and cannot be made again: {}", self.path, error)
        else:
            logger.warning("{}: was deleted while it is in use: made again", self.path)

    def add(self, counter: str, count: int = 1) -> None:
        """Add `count` to a counter."""
        with self._lock:
            self._counters[_COUNTER_INDEX[counter]] += int(count)

    def add_all(self, counts: Mapping[str, int]) -> None:
        """Add to several counters in one go."""
        with self._lock:
            for counter, count in counts.items():
                self._counters[_COUNTER_INDEX[counter]] += count

    def set(self, counter: str, value: int) -> None:
        """Set a counter that is a level."""
        with self._lock:
            self._counters[_COUNTER_INDEX[counter]] = int(value)

    def get(self, counter: str) -> int:
        """The value of a counter."""
        return self._counters[_COUNTER_INDEX[counter]]

    def record_latency(self, ns: int, count: int = 1) -> None:
        """Record a latency of `ns` nanoseconds for `count` records."""
        with self._lock:
            self._latency[_bucket_index(ns)] += count

    def set_state(self, state: ProcessState, detail: str = "") -> None:
        """Publish the state of the process, with a sentence of detail where it helps."""
        with self._lock:
            self._write_text(layout.STATE_AT, layout.STATE_BYTES, state)
            self._write_text(layout.DETAIL_AT, layout.DETAIL_BYTES, detail)
            self._words[layout.TEXT_CHECKSUM] = _text_checksum(self._mmap)

    def _write_text(self, at: int, size: int, text: str) -> None:
        self._mmap[at : at + size] = fit_text(text, size - 1).ljust(size, b"\0")

    def close(self) -> None:
        """Unmap; the page stays for readers."""
        for words in (self._counters, self._latency, self._words):
            words.release()
        self._mmap.close()


def _temporary_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _allocate(path: Path) -> int:
    """A new file at `path` with room for a page, open. OSError; then nothing is left of it."""
    fd = create_file(path, os.O_TRUNC)
    try:
        os.posix_fallocate(fd, 0, layout.VITALS_BYTES)
    except OSError:
        os.close(fd)
        path.unlink()
        raise
    return fd


def _open_allocated(path: Path, error: OSError) -> int:
    """Open the page at `path` if all of it is allocated; else `error`, which names no file by itself, with the path."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise OSError(error.errno, error.strerror, str(path)) from None
    found = os.fstat(fd)
    if found.st_size != layout.VITALS_BYTES or found.st_blocks * 512 < layout.VITALS_BYTES:
        os.close(fd)
        raise OSError(error.errno, error.strerror, str(path)) from None
    return fd


def read_snapshot(path: Path) -> VitalsSnapshot:
    """The vitals at `path`. FileNotFoundError if the process never ran; VitalsError if the page is not of this version."""
    with path.open("rb", buffering=0) as file:
        page, is_intact = _read_page(file.fileno())
    header = memoryview(page if len(page) == layout.VITALS_BYTES else bytes(64)).cast("q")
    if header[layout.MAGIC] != layout.VITALS_MAGIC:
        raise VitalsError(f"{path}: not a vitals page: restart the process it belongs to")
    if (header[layout.VERSION], header[layout.COUNTERS_HASH]) != (layout.VITALS_VERSION, _COUNTERS_HASH):
        raise VitalsVersionError(
            f"{path}: written by another version of collectorctl: restart the process it belongs to: "
            f"`collectorctl restart {path.stem}`"
        )
    counters = header[layout.COUNTERS_AT // 8 :][: len(COUNTERS)]
    latency = header[layout.LATENCY_AT // 8 :][: layout.LATENCY_BUCKETS].tolist()
    return VitalsSnapshot(
        name=_read_text(page, layout.NAME_AT, layout.NAME_BYTES),
        pid=header[layout.PID],
        start_ns=header[layout.START_NS],
        heartbeat_mono_ns=header[layout.HEARTBEAT_MONO_NS],
        state=ProcessState(_read_text(page, layout.STATE_AT, layout.STATE_BYTES) if is_intact else "interrupted"),
        detail=_read_text(page, layout.DETAIL_AT, layout.DETAIL_BYTES)
        if is_intact
        else "the process ended while writing its state",
        counters=dict(zip(COUNTERS, counters, strict=True)),
        latency_ns=compute_percentiles(latency),
        latency_count=sum(latency),
        latency_buckets=latency,
    )


def read_heartbeat(path: Path) -> Heartbeat | None:
    """Pid and heartbeat of the page at `path`, of whatever version it is; None without a page."""
    try:
        with path.open("rb", buffering=0) as file:
            page = file.read(layout.VITALS_BYTES)
    except FileNotFoundError:
        return None
    words = memoryview(page[: len(page) // 8 * 8]).cast("q")
    if len(words) <= layout.HEARTBEAT_MONO_NS or words[layout.MAGIC] != layout.VITALS_MAGIC:
        return None
    return Heartbeat(words[layout.PID], words[layout.HEARTBEAT_MONO_NS])


def last_heartbeat(path: Path) -> int | None:
    """The last heartbeat (mono_ns) of the process whose page is at `path`, if it was not stopped in order.

    None after an orderly stop, without a readable page, or for a page of another boot, whose times are not comparable.
    """
    try:
        previous = read_snapshot(path)
    except (FileNotFoundError, VitalsError):
        return None
    booted_ns = time.time_ns() - time.monotonic_ns()
    of_this_boot = previous.start_ns >= booted_ns and previous.heartbeat_mono_ns <= time.monotonic_ns()
    return previous.heartbeat_mono_ns if of_this_boot and previous.state != ProcessState.STOPPED else None


def compute_percentiles(buckets: Sequence[int]) -> dict[str, int]:
    """Percentiles of counts by bucket: percentile ("50", "99", "99.9") -> ns."""
    return {str(percent): _compute_percentile(buckets, percent) for percent in (50, 99, 99.9)}


def _read_page(fd: int) -> tuple[bytes, bool]:
    """A page, and whether its text is complete."""
    for _ in range(_MAX_READ_ATTEMPTS):
        page = os.pread(fd, layout.VITALS_BYTES + 1, 0)
        if int.from_bytes(page[8 * layout.TEXT_CHECKSUM :][:8], "little") == _text_checksum(page):
            return page, True
        time.sleep(0.001)  # let the process finish writing the text
    return page, False


def _text_checksum(page: bytes | mmap.mmap) -> int:
    return zlib.crc32(page[layout.NAME_AT : layout.COUNTERS_AT])


def _read_text(page: bytes, at: int, size: int) -> str:
    return page[at : at + size].partition(b"\0")[0].decode(errors="replace")


def _bucket_index(ns: int) -> int:
    """Bucket of a duration: four per doubling."""
    ns = max(ns, 1)
    octave = ns.bit_length() - 1
    sub_bucket = (ns << 2 >> octave) - _SUB_BUCKETS
    return min(octave * _SUB_BUCKETS + sub_bucket, layout.LATENCY_BUCKETS - 1)


def _compute_percentile(buckets: Sequence[int], percent: float) -> int:
    """Upper edge, ns, of the bucket of the percentile; 0 without counts."""
    sums = list(accumulate(buckets))
    if not sums[-1]:
        return 0
    bucket = bisect_left(sums, ceil(sums[-1] * percent / 100))
    return (_SUB_BUCKETS + bucket % _SUB_BUCKETS + 1 << bucket // _SUB_BUCKETS) >> 2
