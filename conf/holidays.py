"""Holiday table of the `holidays` library, cached as a file in the home.

    python -m conf.holidays 2024 2029 ──JSON──> HOME/run/calendar.json ──> every process of the home

Guarantees:
    * A process reads a file of some kilobytes. The library takes 0.2 s and 20 MB, so it runs in a subprocess, once, when the
      file is missing, ends too soon or is of another version.
    * If the table cannot be computed, only weekends and [calendar] count, and a warning is logged.
    * A file that cannot be read or written costs the next process the computation, and nothing else.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import msgspec

from conf.calendar import NO_HOLIDAYS, HolidayTable
from conf.files.replacement import replace_file
from conf.market import KR, US

YEARS_BACK, YEARS_AHEAD = 2, 3
"""Years that are computed; a file is used while it reaches from one year back to one year ahead."""

COMPUTE_TIMEOUT_S = 60.0


def load_holidays(file: Path, year: int) -> HolidayTable:
    """The days around `year`, from `file` or computed (and written to `file` if its directory exists and can be written)."""
    found = _read_cached(file)
    try:
        if found.source == library_version() and found.first.year < year < found.last.year:
            return found
        computed = _compute_in_subprocess(year - YEARS_BACK, year + YEARS_AHEAD)
    except (ImportError, OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
        _warn(
            "cannot compute the holiday table ({}); using weekends, [calendar] and {}: "
            "run `{} -m conf.holidays {} {}` to see why",
            *(error, file.name if found.source else "no cached table", sys.executable, year, year),
        )
        return found
    if file.parent.is_dir():
        _write_cached(file, computed)
    return computed


def library_version() -> str:
    """The library and its version, out of the name of its folder, which is found at once. PackageNotFoundError."""
    spec = find_spec("holidays")
    place = Path(spec.origin).parents[1] if spec and spec.origin else Path()
    names = [path.name for path in place.glob("holidays-*.dist-info")]
    if len(names) == 1:
        return f"holidays {names[0].removeprefix('holidays-').removesuffix('.dist-info')}"
    from importlib.metadata import version  # on demand: it reads and parses the whole description

    return f"holidays {version('holidays')}"


def _warn(message: str, *values: object) -> None:
    from loguru import logger  # on demand: it takes longer to load than most commands to run

    logger.warning(message, *values)


def _read_cached(file: Path) -> HolidayTable:
    try:
        return msgspec.json.decode(file.read_bytes(), type=HolidayTable)
    except FileNotFoundError:
        return NO_HOLIDAYS
    except (OSError, msgspec.MsgspecError) as error:
        _warn("{}: cannot be read ({}): it is computed again", file, error)
        return NO_HOLIDAYS


def _write_cached(file: Path, table: HolidayTable) -> None:
    try:
        replace_file(file, msgspec.json.encode(table))
    except OSError as error:
        _warn("{}: cannot be written ({}): every process computes it again until it can", file, error)


@cache
def _compute_in_subprocess(first: int, last: int) -> HolidayTable:
    """The table of the years `first` to `last`, computed in a subprocess. SubprocessError, MsgspecError."""
    completed = subprocess.run(
        [sys.executable, "-m", "conf.holidays", str(first), str(last)],
        capture_output=True,
        check=True,
        timeout=COMPUTE_TIMEOUT_S,
    )
    return msgspec.json.decode(completed.stdout, type=HolidayTable)


def compute_holidays(first: int, last: int) -> HolidayTable:
    """Compute the table in this process: imports the library."""
    from holidays import financial_holidays

    years = range(first, last + 1)
    korea = financial_holidays("XKRX", years=years, language="en_US")
    new_york = financial_holidays("XNYS", years=years, language="en_US")
    half_days = financial_holidays("XNYS", years=years, language="en_US", categories=("half_day",))
    return HolidayTable(
        library_version(),
        date(first, 1, 1),
        date(last, 12, 31),
        {KR.name: dict(sorted(korea.items())), US.name: dict(sorted(new_york.items()))},
        {US.name: {day: name for day, name in sorted(half_days.items()) if day not in new_york}},
    )


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(compute_holidays(int(sys.argv[1]), int(sys.argv[2]))))
