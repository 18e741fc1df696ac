"""Capture of raw frames: the switch of each feed, and what has been captured.

Guarantees:
    * A running collector acts on the switch within about a second; nothing is restarted.
    * The switch stays as it is across restarts.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from conf.home import Home
from ringbuf.vitals import VitalsError, read_snapshot


class CaptureStatus(msgspec.Struct, frozen=True):
    """The capture of one feed; `frames` and `dropped` since its collector's start."""

    feed: str
    is_on: bool
    files: int
    bytes: int
    frames: int
    dropped: int


def switch_capture(home: Home, feed: str, on: bool) -> None:
    """Switch the capture of a feed on or off."""
    path = home.capture_switch_path(feed)
    if on:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(0o600)
    else:
        path.unlink(missing_ok=True)


def read_capture(home: Home, feeds: list[str]) -> list[CaptureStatus]:
    """The capture of each feed that is on or has files."""
    found = []
    for feed in feeds:
        files = list_captured(home, feed)
        is_on = home.capture_switch_path(feed).exists()
        if is_on or files:
            size = sum(path.stat().st_size for path in files if path.exists())  # the oldest may go at any time
            found.append(CaptureStatus(feed, is_on, len(files), size, *_read_counters(home, feed)))
    return found


def list_captured(home: Home, feed: str) -> list[Path]:
    """The files of a feed in the order of their frames."""
    return sorted(home.capture_directory(feed).glob("*.jsonl.gz"))


def _read_counters(home: Home, feed: str) -> tuple[int, int]:
    try:
        counters = read_snapshot(home.vitals_path(feed)).counters
    except (FileNotFoundError, VitalsError):
        return 0, 0
    return counters["capture_frames"], counters["capture_dropped"]
