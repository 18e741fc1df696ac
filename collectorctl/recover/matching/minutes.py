"""Shares of a day's ticks by minute, compared with minute bars (pure).

    ticks 10:00:59 (5)  10:01:00 (7)  10:01:20 (2)      bars 10:00 12, 10:01 2      the 7 count for 10:00: no difference

Guarantees:
    * Where brokers may stamp differently, ticks of the second before or behind the edge of two minutes count for either, as far as
      the bars agree to the share.
"""

from __future__ import annotations

import numpy as np

from conf.clock import MINUTE_NS, SECOND_NS


def compute_minute_excess(
    exch_ns: np.ndarray, size: np.ndarray, minute_ns: np.ndarray, shares: np.ndarray, settle_edges: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Minutes, ascending, and how many shares the ticks have more than the bar; int64 (m,).

    Args:
        exch_ns: of n ticks in the order of their volume.
        size: of them.
        minute_ns: the beginnings of the bars.
        shares: of the bars.
        settle_edges: whether the ticks may be stamped otherwise than the bars.
    """
    minutes = exch_ns // MINUTE_NS
    begins = np.flatnonzero(np.diff(minutes, prepend=-1))  # few, since ticks come in order
    sums = np.add.reduceat(size, begins) if len(begins) else size
    found, which = np.unique(np.concatenate([minutes[begins] * MINUTE_NS, minute_ns]), return_inverse=True)
    excess = np.zeros(len(found), np.int64)
    np.add.at(excess, which, np.concatenate([sums, -shares]))
    if settle_edges and excess.any() and len(exch_ns):
        _settle_edges(exch_ns, size, found, excess)
    return found, excess


def _settle_edges(exch_ns: np.ndarray, size: np.ndarray, minutes: np.ndarray, excess: np.ndarray) -> None:
    """Let the ticks next to the edge of two minutes count for the other one where that makes the earlier one agree.

    One, two, three ... of them: stamped within a second of the edge, and not contradicted by the ticks around them.
    """
    earliest_after = np.minimum.accumulate(exch_ns[::-1])[::-1]
    latest_before = np.maximum.accumulate(exch_ns)
    for at in np.flatnonzero(np.diff(minutes) == MINUTE_NS).tolist():
        if not excess[at]:
            continue
        edge, is_behind = int(minutes[at + 1]), excess[at] < 0
        near = (earliest_after >= edge - SECOND_NS) & (latest_before <= edge)
        sizes = size[near & (exch_ns == (edge if is_behind else edge - SECOND_NS))]
        if abs(excess[at]) in np.cumsum(sizes if is_behind else sizes[::-1]):
            excess[at + 1] += excess[at]
            excess[at] = 0
