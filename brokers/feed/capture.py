r"""Capture of a feed's frames as received, for somebody who can mend a decoder; off unless it is switched on.

    connections ──offer──> queue, bounded ──thread──> blocks ──> data/capture/FEED/TIME.jsonl.gz
                                               `- looks once a second whether run/capture/FEED exists: on

    a line   {"recv_ns":...,"mono_ns":...,"broker":"kis","connection":1,"text":"..."}     "base64" for bytes that are not UTF-8
             {"recv_ns":...,"dropped":12}                                                 frames that are missing here

Guarantees:
    * No connection waits for the disk: what cannot be written in time is dropped and counted, in the vitals and in the file.
    * No frame that we send is captured; of what is received no key, secret or token is kept, however it was written.
    * A block is a gzip member of whole lines: after a kill all blocks but the last can be read; a block is at most a second old.
    * The files of a feed never have more than capture.max_bytes together; the oldest is removed first.
    * A fault of the capture ends neither the feed nor the capture.
"""

from __future__ import annotations

import errno
import gzip
import os
import re
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
from loguru import logger

from brokers.feed.quarantine import encode_line
from conf.clock import SECOND_NS, Clock, to_kst
from conf.files.lock import is_file_of
from conf.home import Home
from conf.text.secret_mask import MASK, hide_secrets_in
from ringbuf.vitals import Vitals

POLL_S = 1.0
CLOSE_S = 1.0
"""Longest wait for the last block at a stop; a disk that takes longer costs it."""
MAX_WAITING_BYTES = 16 << 20
BLOCK_BYTES = 1 << 18
FRAMES_PER_TURN = 16
"""Frames that are encoded in one go, half a millisecond's work: connections run in between."""
FILES = 16
"""Files into which capture.max_bytes is divided."""
COMPRESSION = 3
LOG_INTERVAL_S = 60.0

_CREDENTIAL = re.compile(
    rb'("(?:iv|key|\w*(?:token|secret|app\w*key|secret\w*key))"\s*:\s*")(?:[^"\\]|\\.)+', re.IGNORECASE
)
"""Keys of a session that a server hands out with its answers, and whatever else calls itself one."""


class _Batch(NamedTuple):
    """What one poll of a connection brought, or how many frames were dropped here."""

    connection: int
    messages: list[tuple[bytes, int]]
    dropped: int = 0


class _Block:
    """Lines that are written together: how many frames are in them, and how many they say are missing."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.size = self.frames = self.dropped = self.recv_ns = 0

    def add(self, line: bytes, recv_ns: int, frames: int = 0, dropped: int = 0) -> None:
        """One more line."""
        self.lines.append(line)
        self.size += len(line)
        self.frames += frames
        self.dropped += dropped
        self.recv_ns = self.recv_ns or recv_ns


class FrameCapture:
    """The capture of one feed: the queue, and the thread that writes it."""

    def __init__(self, home: Home, feed: str, vitals: Vitals, clock: Clock) -> None:
        table = home.settings.capture
        self.is_on = False
        self._feed, self._vitals, self._clock = feed, vitals, clock
        self._switch = home.capture_switch_path(feed)
        self._files = CaptureFiles(home.capture_directory(feed), table.max_bytes, table.min_free_bytes)
        self._lock = threading.Lock()
        self._queue: deque[_Batch] = deque()
        self._queue_bytes = 0
        self._unrecorded = 0  # dropped, and no file tells of it yet
        self._logged_s = -LOG_INTERVAL_S
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{feed} capture", daemon=True)

    def start(self) -> None:
        """Begin to look at the switch."""
        self._thread.start()

    def offer(self, messages: list[tuple[bytes, int]], connection: int) -> None:
        """Frames that a connection received, each with its mono_ns; never blocks."""
        if not self.is_on:
            return
        size = sum(len(payload) for payload, _ in messages)
        with self._lock:
            if self._queue_bytes + size <= MAX_WAITING_BYTES:
                self._queue_bytes += size
                self._queue.append(_Batch(connection, messages))
                return
            if not self._queue or not self._queue[-1].dropped:
                self._queue.append(_Batch(connection, [], 0))
            self._queue[-1] = self._queue[-1]._replace(dropped=self._queue[-1].dropped + len(messages))
        self._vitals.add("capture_dropped", len(messages))

    def close(self) -> None:
        """Write what waits, if the disk takes it soon."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopping.is_set()
            try:
                self.poll()
            except Exception:  # noqa: BLE001 whatever is wrong here, the feed goes on and the next block is tried
                logger.exception("{}: a capture of frames failed", self._feed)
            self._stopping.wait(POLL_S)

    def poll(self) -> None:
        """Look at the switch and write what waits; once a second, in the thread."""
        was_on, self.is_on = self.is_on, self._switch.exists()
        if self.is_on and not was_on:
            logger.info("frames are captured into {}", self._files.directory)
        with self._lock:
            batches, self._queue, self._queue_bytes = self._queue, deque(), 0
        block = _Block()
        for batch in batches:
            self._unrecorded += batch.dropped
            for payload, mono_ns in batch.messages:
                recv_ns = self._clock.to_calendar_ns(mono_ns)
                self._add_gap(block, recv_ns)
                block.add(self._encode(payload, recv_ns, mono_ns, batch.connection), recv_ns, frames=1)
                if block.frames % FRAMES_PER_TURN == 0:
                    time.sleep(0)  # a connection that waits for the interpreter has it now
                if block.size >= BLOCK_BYTES:
                    self._write(block)
                    block = _Block()
        self._add_gap(block, self._clock.now_ns())
        if block.lines:
            self._write(block)
        if was_on and not self.is_on:
            self._files.close()
            logger.info("frames are no longer captured")

    def _encode(self, payload: bytes, recv_ns: int, mono_ns: int, connection: int) -> bytes:
        hidden = hide_secrets_in(payload, lambda: time.sleep(0))
        hidden = _CREDENTIAL.sub(rb"\g<1>" + MASK.encode(), hidden)
        return encode_line(hidden, recv_ns=recv_ns, mono_ns=mono_ns, broker=self._feed, connection=connection)

    def _add_gap(self, block: _Block, recv_ns: int) -> None:
        """A line for frames that were dropped before this instant."""
        if dropped := self._unrecorded:
            self._unrecorded = 0
            line = msgspec.json.encode({"recv_ns": recv_ns, "dropped": dropped}) + b"\n"
            block.add(line, recv_ns, dropped=dropped)

    def _write(self, block: _Block) -> None:
        compressed = gzip.compress(b"".join(block.lines), COMPRESSION, mtime=0)
        failure = self._files.append(compressed, block.recv_ns)
        if not failure:
            self._vitals.add("capture_frames", block.frames)
            self._vitals.add("capture_bytes", len(compressed))
            return
        self._vitals.add("capture_dropped", block.frames)
        self._unrecorded += block.frames + block.dropped
        if time.monotonic() - self._logged_s >= LOG_INTERVAL_S:
            self._logged_s = time.monotonic()
            logger.warning("captured frames are dropped: {}", failure)


class CaptureFiles:
    """The files of one feed, by the receive time of their first frame: appended by block, rotated, bounded."""

    def __init__(self, directory: Path, max_bytes: int, min_free_bytes: int) -> None:
        self.directory = directory
        self._max_bytes, self._file_max_bytes = max_bytes, max_bytes // FILES
        self._min_free_bytes = min_free_bytes
        self._path, self._fd, self._size = directory, -1, 0

    def append(self, block: bytes, recv_ns: int) -> str:
        """Append one block; an empty string, or why it could not be kept."""
        if len(block) > self._file_max_bytes:
            return f"a block of {len(block)} bytes is more than a file may have: capture.max_bytes is {self._max_bytes}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            free_bytes = (disk := os.statvfs(self.directory)).f_bavail * disk.f_frsize
            if free_bytes - len(block) < self._min_free_bytes:
                return f"the disk has {free_bytes} bytes left: capture.min_free_bytes is {self._min_free_bytes}"
            if self._size + len(block) > self._file_max_bytes or (
                self._fd >= 0 and not is_file_of(self._path, self._fd)
            ):
                self.close()
            if self._fd < 0:
                self._open(recv_ns)
            self._write(block)
        except OSError as error:
            self.close()
            return f"{self.directory}: cannot be written: {error.strerror}"
        return ""

    def _open(self, recv_ns: int) -> None:
        """A new file, after the oldest have made room for all it may hold."""
        files = [(path, path.stat().st_size) for path in sorted(self.directory.glob("*.jsonl.gz"))]
        total = sum(size for _, size in files)
        for path, size in files:
            if total + self._file_max_bytes <= self._max_bytes:
                break
            path.unlink()
            total -= size
        name = f"{to_kst(recv_ns):%Y-%m-%dT%H-%M-%S}.{recv_ns % SECOND_NS:09}.jsonl.gz"
        self._path = self.directory / name
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _write(self, block: bytes) -> None:
        """All of it or none; the file is not used again if something of it stays."""
        written = os.write(self._fd, block)
        if written < len(block):
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written

    def close(self) -> None:
        """Use another file from now on."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size = -1, 0
