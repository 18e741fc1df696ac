"""Staging files of recovered rows between filling and publication, so that memory does not grow with symbols.

    data/recover/date=2026-11-20/005930/filled-1795132800.npy        rows of an hour (its start, s since 1970 UTC)

Guarantees:
    * Memory holds names only; files of an earlier run are not read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from conf.clock import HOUR_NS, SECOND_NS
from conf.instrument import Instrument


class StagingArea:
    """The rows of one run."""

    def __init__(self, folder: Callable[[Instrument], Path]) -> None:
        """`folder`: directory of an instrument's files."""
        self._folder = folder
        self._paths: dict[int, dict[Instrument, Path]] = {}

    def add(self, instrument: Instrument, trades: np.ndarray) -> None:
        """Store rows (TRADE_ROW). OSError."""
        hours = trades["exch_ns"] // HOUR_NS * HOUR_NS
        for hour in np.unique(hours).tolist():
            path = self._folder(instrument) / f"filled-{hour // SECOND_NS}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, trades[hours == hour])
            self._paths.setdefault(hour, {})[instrument] = path

    def hours(self) -> list[int]:
        """Hours with rows (their beginning, ns), oldest first."""
        return sorted(self._paths)

    def instruments(self, hour: int) -> list[Instrument]:
        """Who has rows in an hour, in order."""
        return sorted(self._paths.get(hour, {}))

    def load_rows(self, hour: int, instrument: Instrument) -> np.ndarray:
        """The rows (TRADE_ROW) of an instrument's hour."""
        return np.load(self._paths[hour][instrument])

    def clear(self) -> None:
        """Remove the files."""
        for paths in self._paths.values():
            for path in paths.values():
                path.unlink(missing_ok=True)
        self._paths.clear()
