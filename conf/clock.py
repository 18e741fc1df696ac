"""The home's clock: monotonic time, and its mapping to the real or a simulated calendar.

    calendar_ns
        ^            simulated, speed 150
        |          /
        |        /       real, speed 1 (re-anchored when the wall clock is stepped)
        |      / ......
        |    /.....
        +---+---------------> mono_ns     CLOCK_MONOTONIC, equal in all processes
            anchor

Guarantees:
    * `mono_ns` never goes back and is comparable between processes.
    * `to_calendar_ns(mono_ns)` is linear between two re-anchorings.
    * All processes of a home use one mapping: the anchor of a simulated clock is a file in run/.

Not handled here:
    * Waiting, which is always done in monotonic seconds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from pathlib import Path

import msgspec

from conf.files.lock import directory_lock
from conf.files.replacement import replace_file

KST = timezone(timedelta(hours=9), "Asia/Seoul")
"""Korea has no daylight saving: a fixed offset is exact."""

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS
FUTURE_TOLERANCE_NS = 4 * HOUR_NS
"""An exchange stamps nothing that is yet to happen; a wall clock that is some hours slow must not redate everything."""
MIN_STEP_NS = SECOND_NS // 2
"""A wall clock this far off the mapping was stepped, not slewed (NTP slews both clocks together)."""


class Anchor(msgspec.Struct, frozen=True):
    """One point of the mapping and its slope; `boot` identifies the boot for which mono_ns is valid."""

    mono_ns: int
    calendar_ns: int
    speed: float
    boot: str


def read_boot_id() -> str:
    """The kernel's id of this boot: monotonic times of another boot are not comparable."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass
class Clock:
    """Calendar time as a straight line over monotonic time."""

    anchor: Anchor
    is_simulated: bool = False
    total_step_ns: int = 0

    def mono_ns(self) -> int:
        """Nanoseconds of CLOCK_MONOTONIC: for order, windows and waiting."""
        return time.monotonic_ns()

    def to_calendar_ns(self, mono_ns: int) -> int:
        """Calendar time, ns since 1970 UTC, of a monotonic instant."""
        elapsed_ns = mono_ns - self.anchor.mono_ns
        return self.anchor.calendar_ns + (round(elapsed_ns * self.anchor.speed) if self.is_simulated else elapsed_ns)

    def now_ns(self) -> int:
        """Calendar time now, ns since 1970 UTC."""
        return self.to_calendar_ns(time.monotonic_ns())

    def detect_step(self) -> int:
        """Re-anchor a real clock if the wall clock was stepped; the step in ns, 0 if none. Call about once a second."""
        if self.is_simulated:
            return 0
        fresh = _real_anchor()
        step = fresh.calendar_ns - self.to_calendar_ns(fresh.mono_ns)
        if abs(step) < MIN_STEP_NS:
            return 0
        self.anchor = fresh
        self.total_step_ns += step
        return step


def real() -> Clock:
    """The real clock."""
    return Clock(_real_anchor())


def simulated(start: str, speed: float, anchor_file: Path) -> Clock:
    """The simulated clock of the home: the first process writes the anchor, the others read it.

    `start` is an ISO time with offset. A file of another boot, start or speed is replaced, and so is one that
    does not decode. LockHeld.
    """
    begin_ns = round(datetime.fromisoformat(start).timestamp()) * SECOND_NS
    boot = read_boot_id()

    def read() -> Anchor | None:
        found = _read_anchor(anchor_file)
        return found if found and (found.boot, found.calendar_ns, found.speed) == (boot, begin_ns, speed) else None

    anchor = read()
    if anchor is None:
        anchor_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with directory_lock(anchor_file.parent):
            anchor = read()
            if anchor is None:
                anchor = Anchor(time.monotonic_ns(), begin_ns, speed, boot)
                replace_file(anchor_file, msgspec.json.encode(anchor))
    return Clock(anchor, is_simulated=True)


def parse_seconds_of_day(digits: str | bytes, max_hour: int = 23) -> int:
    """A vendor's HHMMSS as seconds since midnight. ValueError when it is not a time of day."""
    number = int(digits) if len(digits) == 6 and digits.isascii() and digits.isdigit() else 999_999
    hour, minute, second = number // 10_000, number // 100 % 100, number % 100
    if hour > max_hour or minute > 59 or second > 59:
        raise ValueError(f"{digits!r} is not a time of day: HHMMSS was expected")
    return hour * 3600 + minute * 60 + second


def parse_time_of_day(digits: str | bytes, near_ns: int) -> int:
    """The instant of a vendor's HHMMSS, Korean time: of the days around `near_ns` the one that comes closest to it.

    ns since 1970 UTC. ValueError when it is not a time of day. (The Korean feeds send no date.)
    """
    of_day_ns = (parse_seconds_of_day(digits) - 9 * 3600) * SECOND_NS
    return of_day_ns + (near_ns - of_day_ns + DAY_NS // 2) // DAY_NS * DAY_NS


def date_time_of_day(digits: str | bytes, recv_ns: int) -> tuple[int, bool]:
    """The instant of a vendor's HHMMSS received at `recv_ns`, and whether it is of the day before because today's is yet to come.

    As `parse_time_of_day`. ValueError.
    """
    return _date_time_of_day(digits, recv_ns // SECOND_NS)


@lru_cache(maxsize=64)
def _date_time_of_day(digits: str | bytes, recv_second: int) -> tuple[int, bool]:
    """As above: exchange times, half days and the tolerance are whole seconds, so that a fraction changes nothing."""
    recv_ns = recv_second * SECOND_NS
    exch_ns = parse_time_of_day(digits, recv_ns)
    is_future = exch_ns - recv_ns > FUTURE_TOLERANCE_NS
    return exch_ns - DAY_NS * is_future, is_future


def parse_instant(zone: tzinfo, day: str, digits: str, near_ns: int) -> int:
    """The instant of a vendor's YYYYMMDD and HHMMSS in `zone`, ns since 1970 UTC; from 240000 to 475959 it is of the next day.

    Of the two that it has when clocks are set back, the one closer to `near_ns`. ValueError when it is no date and time, or one
    that clocks set forward left out.
    """
    hour, of_hour = divmod(parse_seconds_of_day(digits, max_hour=47), 3600)
    hour_starts = _find_hour_starts(zone, day, hour)
    begin = (
        hour_starts[0]
        if len(hour_starts) == 1
        else min(hour_starts, key=lambda ns: abs(ns + of_hour * SECOND_NS - near_ns))
    )
    return begin + of_hour * SECOND_NS


@lru_cache(maxsize=1024)
def _find_hour_starts(zone: tzinfo, day: str, hour: int) -> tuple[int, ...]:
    """When an hour of a date (YYYYMMDD) begins, ns since 1970 UTC: twice where clocks are set back by an hour. ValueError."""
    if not (len(day) == 8 and day.isascii() and day.isdigit()):
        raise ValueError(f"{day!r} is not a date: YYYYMMDD was expected")
    at = datetime(int(day[:4]), int(day[4:6]), int(day[6:])) + timedelta(days=hour // 24, hours=hour % 24)
    found = [round(at.replace(tzinfo=zone, fold=fold).timestamp()) for fold in (0, 1)]
    if datetime.fromtimestamp(found[0], zone).replace(tzinfo=None) != at:
        raise ValueError(f"{day} {hour:02}h does not exist in {zone}: clocks were set forward")
    return tuple(seconds * SECOND_NS for seconds in dict.fromkeys(found))


def floor_to_hour(ns: int) -> int:
    """The beginning of the hour an instant lies in (Korea's offset is whole hours)."""
    return ns // (3600 * SECOND_NS) * (3600 * SECOND_NS)


def kst_midnight_ns(day: date) -> int:
    """Korean midnight, ns since 1970 UTC."""
    return round(datetime(day.year, day.month, day.day, tzinfo=KST).timestamp()) * SECOND_NS


def to_kst(ns: int) -> datetime:
    """An instant as a Korean date and time, to the microsecond."""
    return datetime.fromtimestamp(ns // SECOND_NS, UTC).astimezone(KST).replace(microsecond=ns % SECOND_NS // 1000)


def _real_anchor() -> Anchor:
    """Both clocks at one instant; read again if the process was suspended in between."""
    while True:
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        if after - before < MIN_STEP_NS // 10:
            return Anchor((before + after) // 2, wall, 1.0, "")


def _read_anchor(path: Path) -> Anchor | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Anchor)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
