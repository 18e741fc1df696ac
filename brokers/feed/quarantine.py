"""Quarantine: raw frames that could not be decoded, one JSON object a line, for `collectorctl reprocess`.

    data/quarantine/date=2026-11-20/kis.jsonl    {"recv_ns":...,"mono_ns":...,"broker":"kis","reason":"...","text":"..."}
                                                 bytes that are not UTF-8 come as "base64" instead of "text"

Guarantees:
    * A line has no control characters, whatever the frame has: JSON escapes them.
    * A line is written whole or not at all, also when the disk is full or several threads write.
    * A file grows to `max_bytes` and no further.
    * A full disk costs the frame, not the process; the return value reports it.
"""

from __future__ import annotations

import os
import threading
from base64 import b64encode
from pathlib import Path
from typing import Any

import msgspec

from conf.clock import to_kst
from conf.text.escape import escape_controls


def encode_line(raw: bytes, **fields: Any) -> bytes:
    """A frame and what is known of it as one line of JSON."""
    try:
        content = {"text": raw.decode()}
    except UnicodeDecodeError:
        content = {"base64": b64encode(raw).decode()}
    return f"{escape_controls(msgspec.json.encode(fields | content).decode())}\n".encode()


class Quarantine:
    """The quarantine of one broker."""

    def __init__(self, root: Path, broker: str, max_bytes: int) -> None:
        self._root = root
        self._broker = broker
        self._max_bytes = max_bytes
        self._lock = threading.Lock()

    def append(self, raw: bytes, reason: str, recv_ns: int, mono_ns: int) -> str:
        """Append one frame; an empty string, or why it could not be kept."""
        line = encode_line(raw, recv_ns=recv_ns, mono_ns=mono_ns, broker=self._broker, reason=reason)
        try:
            with self._lock:
                return self._write_line(f"date={to_kst(recv_ns):%Y-%m-%d}", line)
        except OSError as error:
            return f"quarantine cannot be written: {error}"

    def _write_line(self, date: str, line: bytes) -> str:
        directory = self._root / date
        directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(directory / f"{self._broker}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(fd).st_size
            if size + len(line) > self._max_bytes:
                return f"quarantine of {date} is full: quarantine.max_bytes is {self._max_bytes}"
            try:
                written = os.write(fd, line)
            except OSError:
                os.ftruncate(fd, size)
                raise
            if written < len(line):
                os.ftruncate(fd, size)
                return "quarantine cannot be written: no room for a complete line"
            return ""
        finally:
            os.close(fd)
