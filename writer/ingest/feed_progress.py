"""Progress of one feed: how far it has come in the exchange's time, and how late it is by its own measure (pure).

    made       10:00:01        02        03 . . . . . 15        exchange seconds
    received   10:00:01.1      02.1                   16.3 all at once: the collector was stopped
    late                0         0                   13 .. 0 s

Guarantees:
    * A feed whose stamps are always behind, or that is always slow, is not late: what is usual is learned within BASE_NS.
    * One stale stamp makes no feed late, and one from the future is no measure of anything.
    * A step of the wall clock changes nothing; after a reboot, when CLOCK_MONOTONIC begins anew, everything is learned anew.
    * Equal records give equal results.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conf.clock import MINUTE_NS
from ringbuf.records import UNDEFINED

BASE_NS = MINUTE_NS
"""The usual delay is the smallest of this and the span before."""


def compute_made_ns(exch_ns: np.ndarray, calendar_speed: float) -> np.ndarray:
    """The exchange's stamps in nanoseconds of the monotonic clock, up to a constant; UNDEFINED where there is none. int64 (n,).

    The wall clock of this machine has no part in it: a step of it makes no feed late.
    """
    if calendar_speed == 1.0:
        return exch_ns
    return np.where(exch_ns == UNDEFINED, UNDEFINED, np.rint(exch_ns / calendar_speed).astype(np.int64))


class FeedProgress:
    """One feed."""

    def __init__(self, min_lateness_ns: int, tolerance_ns: int) -> None:
        """`min_lateness_ns`: a smaller delay beyond the usual one is none, nor is a stamp `tolerance_ns` ahead."""
        self.received_ns = 0
        """When its newest record was received."""
        self.reach_ns = UNDEFINED
        """Its newest stamp."""
        self._min_lateness_ns = min_lateness_ns
        self._tolerance_ns = tolerance_ns
        self._span = 0
        self._smallest_ns: int | None = None
        self._smallest_before_ns: int | None = None
        self.usual_delay_ns: int | None = None
        """Its smallest delay of late; None before there was one."""

    def export_state(self) -> list:
        """All of it, fit for JSON."""
        return [self.received_ns, self.reach_ns, self._span, self._smallest_ns, self._smallest_before_ns]

    def restore_state(self, state: Sequence) -> None:
        """Restore what `export_state` returned."""
        self.received_ns, self.reach_ns, self._span, self._smallest_ns, self._smallest_before_ns = state
        known = [delay_ns for delay_ns in (self._smallest_ns, self._smallest_before_ns) if delay_ns is not None]
        self.usual_delay_ns = min(known, default=None)

    def advance(self, mono_ns: int, made_ns: int) -> bool:
        """It delivered a record; whether it is late with it."""
        if mono_ns < self.received_ns - BASE_NS:  # of another boot
            self.received_ns, self.reach_ns = 0, UNDEFINED
            self._smallest_ns = self._smallest_before_ns = self.usual_delay_ns = None
        if mono_ns > self.received_ns:
            self.received_ns = mono_ns
        if made_ns == UNDEFINED:
            return False
        if mono_ns // BASE_NS != self._span:
            self._span = mono_ns // BASE_NS
            self._smallest_before_ns, self._smallest_ns = self._smallest_ns, None
            self.usual_delay_ns = self._smallest_before_ns
        usual_ns = self.usual_delay_ns
        if usual_ns is not None and mono_ns - made_ns < usual_ns - self._tolerance_ns:
            return False
        if made_ns > self.reach_ns:
            self.reach_ns = made_ns
        delay_ns = mono_ns - self.reach_ns
        if self._smallest_ns is None or delay_ns < self._smallest_ns:
            self._smallest_ns = delay_ns
            if usual_ns is None or delay_ns < usual_ns:
                self.usual_delay_ns = delay_ns
        return usual_ns is not None and delay_ns - usual_ns >= self._min_lateness_ns
