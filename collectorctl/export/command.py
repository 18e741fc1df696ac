"""Implementation of the command export: options in, output and exit status out.

exit 0 every day is exported and whole   1 a day is not   2 invalid day, symbol or option
"""

from __future__ import annotations

from datetime import date
from importlib.util import find_spec

from collectorctl.commands.options import DayChoice
from collectorctl.commands.ranges import DayResult, count_grades, finish_range, work_on_days
from collectorctl.export.certified import NotHandedOn
from collectorctl.export.day import DayExport, ExportRequest, export_day
from collectorctl.terminal import echo, usage_error, wide_console
from conf.home import Home
from conf.instrument import Instrument, parse_instrument
from conf.market import Market
from conf.process import EXIT_BUG
from writer.publish.verified_file import PartitionWriteError


def export(home: Home, days: DayChoice, symbols: str, request: ExportRequest, as_json: bool) -> int:
    """Export days; the exit status. UsageError."""
    if request.format == "nautilus" and find_spec("nautilus_trader") is None:
        raise usage_error("nautilus_trader is not installed: pip install -e '.[export]', in an environment of its own")
    request = request._replace(instruments=_parse_symbols(symbols, request.market))
    chosen, console = days.resolve(home, request.market), wide_console(stderr=as_json)
    refusals = NotHandedOn, PartitionWriteError, OSError
    results = work_on_days(
        console,
        chosen,
        lambda day, on_step: _judge(export_day(home, day, request, on_step)),
        refusals,
        "not exported",
    )
    if as_json or days.is_range:
        return finish_range(console, results, as_json)
    one = results[0]
    echo(f"collectorctl: {one.note}" if one.status else f"{one.day}: {one.note}", err=bool(one.status))
    return one.status


def _judge(one: DayExport) -> DayResult:
    """Status 1 unless the day is whole: nobody takes it for what it is not."""
    manifest = one.manifest
    grades = count_grades(
        verdict.certificate if verdict.holds or verdict.certificate is None else f"{verdict.certificate} (contradicted)"
        for verdict in manifest.instruments
    )
    rows = sum(file.rows or 0 for file in manifest.files)
    note = f"{one.directory}: {grades}; {len(manifest.files)} files, {rows:,} rows"
    day = date.fromisoformat(manifest.date)
    if manifest.is_whole:
        return DayResult(day, 0, "exported" if one.is_new else "unchanged", note, manifest)
    return DayResult(day, EXIT_BUG, "not whole", f"{day}: exported, but the day is not whole: {note}", manifest)


def _parse_symbols(symbols: str, market: Market) -> tuple[Instrument, ...]:
    try:
        found = tuple(sorted({parse_instrument(name.strip()) for name in symbols.split(",") if name.strip()}))
    except ValueError as error:
        raise usage_error(str(error)) from None
    if foreign := [str(one) for one in found if one.market is not market]:
        raise usage_error(f"{', '.join(foreign)}: not of the market {market.name}: name it with --market")
    return found
