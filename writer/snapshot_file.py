"""A report for `status`, written over and over.

    struct ──JSON──> .NAME.new ──rename──> HOME/run/NAME

Promises: a reader finds a whole report, this one or the one before; a file that cannot be written stops nothing and is logged once.
Leaves to others: what is told, how often (gaps.py, lines.py).
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from loguru import logger


class ReportFile:
    """One file; `shows`: what a reader sees as long as it cannot be written."""

    def __init__(self, path: Path, shows: str) -> None:
        self.path = path
        self._shows = shows
        self._failed = ""

    def write(self, report: msgspec.Struct) -> None:
        """Replace the file."""
        aside = self.path.with_name(f".{self.path.name}.new")
        try:
            aside.write_bytes(msgspec.json.encode(report))
            aside.replace(self.path)
        except OSError as error:
            if str(error) != self._failed:
                logger.error("{}: status shows {} until it can be written", error, self._shows)
            self._failed = str(error)
