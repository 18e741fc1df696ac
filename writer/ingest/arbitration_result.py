"""Result of first-wins arbitration: what becomes of each book (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NEW = -1
"""In `ArbitrationResult.twin_of`: a new row."""


class ArbitrationResult(NamedTuple):
    """The result for n books; each array has shape (n,).

    `twin_of` int64: NEW, or the row this book is the twin of; `hour_ns` int64: start of the hour it is stored in (a twin's is its
    row's); `late` bool; `identity`: 16 bytes each, the content's digest; `lag_ns` int64: how much later than that row it was
    received, 0 for a new row; `differs` bool: it has other details than that row; `changes`: (venue, detail, whether it tells two
    books of the venue apart from now on).
    """

    twin_of: np.ndarray
    hour_ns: np.ndarray
    late: np.ndarray
    identity: list[bytes]
    lag_ns: np.ndarray
    differs: np.ndarray
    changes: Sequence[tuple[int, str, bool]] = ()


def join_results(results: Sequence[ArbitrationResult]) -> ArbitrationResult:
    """The result for the books of all these, one after the other."""
    if len(results) == 1:
        return results[0]
    return ArbitrationResult(
        np.concatenate([one.twin_of for one in results]),
        np.concatenate([one.hour_ns for one in results]),
        np.concatenate([one.late for one in results]),
        [identity for one in results for identity in one.identity],
        np.concatenate([one.lag_ns for one in results]),
        np.concatenate([one.differs for one in results]),
        [change for one in results for change in one.changes],
    )
