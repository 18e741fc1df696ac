"""Disk guard: what recovery and the gap filler may not use is left to the writer.

Guarantees:
    * Below disk.min_free_bytes, or where the room cannot be measured, the guard names place, room and limit.
    * Neither collectors nor the writer ask it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from conf.home import Home


class DiskSpaceLow(OSError):
    """The room that is left belongs to the writer; the message has place, room and remedy."""


def measure_free_bytes(data: Path) -> int:
    """Free bytes of the file system that the data of a home are on, or would be. OSError."""
    return shutil.disk_usage(next(path for path in (data, *data.parents) if path.exists())).free


def find_low_space(home: Home) -> str:
    """Why nothing may be fetched and stored now but what the collectors receive; empty while there is room."""
    limit = home.settings.disk.min_free_bytes
    try:
        free_bytes = measure_free_bytes(home.data)
    except OSError as error:
        return f"{home.data}: the room on its disk is unknown: {error.strerror}: look at the disk"
    if free_bytes >= limit:
        return ""
    return (
        f"{home.data}: {free_bytes / 1e6:,.0f} MB free, less than disk.min_free_bytes ({limit / 1e6:,.0f} MB): nothing is "
        "fetched until there is room: remove or move files (`collectorctl clean --dry-run`)"
    )


def require_space(home: Home) -> None:
    """DiskSpaceLow while the room that is left belongs to the writer."""
    if reason := find_low_space(home):
        raise DiskSpaceLow(reason)
