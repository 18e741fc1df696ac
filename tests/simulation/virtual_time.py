"""Virtual time: what the product's modules find under the name `time` while a simulation runs.

Guarantees:
    * No time passes but what the scheduler, or a sleep of the code under test, lets pass.
    * Every module of the product that is loaded reads this clock, whoever wrote it; the test's own machinery reads the real one,
      and so does a thread that an earlier test of this process left behind.
    * The process number is the same in every run: the product writes it into events, and their length is that of its digits.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

PRODUCT = ("conf", "ringbuf", "brokers", "writer", "collectorctl")
BOOT_MONO_NS = 1_000_000 * 1_000_000_000
PID = 4711


class VirtualTime:
    """The functions of the module `time` that the product uses, over one number."""

    def __init__(self, calendar_ns: int) -> None:
        self.mono_ns = BOOT_MONO_NS
        self.true_offset_ns = calendar_ns - BOOT_MONO_NS
        """Calendar less monotonic time, as the exchange has it."""
        self.boot_ns = 0
        """What CLOCK_MONOTONIC is behind `mono_ns`, which the scheduler counts in."""
        self.step_ns = 0
        """By how much this machine's wall clock is wrong."""
        self.sleep: Callable[[float], None] = self.pass_seconds
        """What a sleep does; the scheduler lets others act meanwhile."""

    @property
    def calendar_ns(self) -> int:
        """The exchange's time."""
        return self.mono_ns + self.true_offset_ns

    def monotonic_ns(self) -> int:
        return self.mono_ns - self.boot_ns

    def monotonic(self) -> float:
        return self.monotonic_ns() / 1e9

    def time_ns(self) -> int:
        return self.calendar_ns + self.step_ns

    def time(self) -> float:
        return self.time_ns() / 1e9

    def reboot(self, uptime_ns: int) -> None:
        """The machine has just come up: CLOCK_MONOTONIC begins anew."""
        self.boot_ns = self.mono_ns - uptime_ns

    def pass_seconds(self, seconds: float) -> None:
        """That much time goes by."""
        self.mono_ns += max(1, round(seconds * 1e9))


class _TimeOfThread:
    """`virtual` for the thread that made this, the module `time` for all others."""

    def __init__(self, virtual: VirtualTime) -> None:
        self._virtual, self._thread = virtual, get_ident()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._virtual if get_ident() == self._thread else time, name)


@contextmanager
def installed(virtual: VirtualTime) -> Iterator[None]:
    """Every loaded module of the product reads `virtual` instead of the clock, in this thread, whose process is PID."""
    patched = [
        module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in PRODUCT and getattr(module, "time", None) is time
    ]
    mine, getpid, thread = _TimeOfThread(virtual), os.getpid, get_ident()
    for module in patched:
        module.time = mine  # type: ignore[attr-defined]
    os.getpid = lambda: PID if get_ident() == thread else getpid()
    try:
        yield
    finally:
        os.getpid = getpid
        for module in patched:
            module.time = time  # type: ignore[attr-defined]
