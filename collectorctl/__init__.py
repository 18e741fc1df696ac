"""Command line over a home, the processes beside collectors and writer, and the interface for readers of the data.

`collectorctl.open("~/collector")` is the data of a home, read only: docs/reading.md.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collectorctl.reader.home import HomeReader

__all__ = ["open"]


def open(path: str | PathLike[str]) -> HomeReader:
    """The reader of a home: stored books and ticks, certificates, and what is received now.

    Raises:
        FileNotFoundError: there is no home at `path`.
        SettingsError: its settings cannot be read.
    """
    from collectorctl.reader.home import HomeReader  # on demand: every process of the tree imports this package

    return HomeReader(path)
