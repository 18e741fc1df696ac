"""The writer's eye on the watchdog, which has one on every other process: a watchdog that hangs is replaced.

    run/watchdog.lock ──holder──> pid ──┐
    vitals page of that pid: heartbeat ─┴─> SIGABRT, then SIGKILL: supervisord starts it again

Guarantees:
    * The limits are those of the watchdog itself, [watchdog] stale_s and start_s, and one look is never enough: SIGABRT at the
      second, SIGKILL at the third. SIGKILL ends a process that was stopped, too.
    * Its page is not needed for that: the process is the one that holds the lock of its name.
    * A missing page is no reason while the writer's own page is missing as well: the ring directory was deleted.

Not handled here:
    * A watchdog that does not run: supervisord starts it again.
    * Writer and watchdog hung at once: under systemd, WatchdogSec= of the unit (README).
"""

from __future__ import annotations

import fcntl
import os
import signal
from contextlib import suppress

from loguru import logger

from conf.clock import SECOND_NS
from conf.files.lock import find_lock_holder
from conf.home import Home
from conf.process import is_waiting_for_disk
from ringbuf.vitals import Vitals, read_heartbeat

WATCHDOG = "watchdog"
LOOK_INTERVAL_NS = 5 * SECOND_NS


class WatchdogGuard:
    """What the writer knows of the watchdog from look to look."""

    def __init__(self, home: Home, vitals: Vitals) -> None:
        self._lock_path = home.lock_path(WATCHDOG)
        self._page_path = home.vitals_path(WATCHDOG)
        self._vitals = vitals
        self._stale_ns = round(home.settings.watchdog.stale_s * SECOND_NS)
        self._start_ns = round(home.settings.watchdog.start_s * SECOND_NS)
        self._looked_ns = 0
        self._pid = 0
        self._page_seen_ns = 0  # or since when the process is known
        self._hung_looks = 0

    def poll(self, now_ns: int) -> None:
        """Look if it is time to (mono_ns), and signal a watchdog that hangs."""
        if now_ns - self._looked_ns < LOOK_INTERVAL_NS:
            return
        self._looked_ns = now_ns
        try:
            pid = self._find_pid()
            reason = self._hung_reason(pid, now_ns) if pid else ""
            if reason and is_waiting_for_disk(pid):  # a kill would not end that
                reason = ""
        except OSError as error:  # no descriptor, ...: nothing is known
            logger.warning("{}: the watchdog cannot be looked at: {}", self._lock_path, error)
            return
        self._hung_looks = self._hung_looks + 1 if reason else 0
        if self._hung_looks < 2:
            return
        number = signal.SIGABRT if self._hung_looks == 2 else signal.SIGKILL
        logger.warning("{}: {}: {}", WATCHDOG, reason, number.name)
        self._vitals.add("orders")
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def _hung_reason(self, pid: int, now_ns: int) -> str:
        """Why the process is held to be hung, "" if it is not. OSError."""
        heartbeat_ns = self._read_heartbeat(pid)
        if pid != self._pid:
            self._pid, self._hung_looks, self._page_seen_ns = pid, 0, now_ns
        if heartbeat_ns is not None:
            self._page_seen_ns = now_ns
            age_ns = now_ns - heartbeat_ns
            return f"no heartbeat for {age_ns / SECOND_NS:.0f} s" if age_ns > self._stale_ns else ""
        if not self._vitals.path.exists():
            self._page_seen_ns = now_ns
        missing_ns = now_ns - self._page_seen_ns
        return f"no vitals page for {missing_ns / SECOND_NS:.0f} s" if missing_ns > self._start_ns else ""

    def _read_heartbeat(self, pid: int) -> int | None:
        """The last heartbeat (mono_ns) of that process; None without a page of it."""
        page = read_heartbeat(self._page_path)
        return page.mono_ns if page is not None and page.pid == pid else None

    def _find_pid(self) -> int:
        """The process that holds the lock of the watchdog's name; 0 if none does. OSError."""
        try:
            fd = os.open(self._lock_path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return find_lock_holder(fd) or 0
        finally:
            os.close(fd)
        return 0
