"""Atomically replaced JSON snapshot for readers such as `status`.

    struct ──JSON──> .NAME.new ──rename──> HOME/run/NAME

Guarantees:
    * A reader finds a complete snapshot, this one or the one before; its age is how long ago it was written or confirmed.
    * A file that cannot be written stops nothing and is logged once.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from conf.files.replacement import replace_file


class SnapshotFile:
    """One file; `stale_content`: what a reader sees as long as it cannot be written."""

    def __init__(self, path: Path, stale_content: str) -> None:
        self.path = path
        self._stale_content = stale_content
        self._last_error = ""

    def write(self, snapshot: msgspec.Struct) -> bool:
        """Replace the file; whether that was possible."""
        try:
            replace_file(self.path, msgspec.json.encode(snapshot))
        except OSError as error:
            if str(error) != self._last_error:
                from loguru import logger  # on demand: readers of snapshots have no use for it

                logger.error("{}: status shows {} until it can be written", error, self._stale_content)
            self._last_error = str(error)
            return False
        return True

    def confirm(self) -> bool:
        """Set the file's time to now, since its content still holds; False where there is no such file, or that is impossible."""
        try:
            os.utime(self.path)
        except OSError:
            return False
        return True
