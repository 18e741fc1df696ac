"""Implementation of the commands recover and verify: arguments in, output and exit status out.

    exit 0 every instrument is complete   1 incomplete   2 invalid day or option   75 another run is active

Guarantees:
    * An error is one line on stderr; with --json only the certificates (or the plan) are on stdout, of a range by day.
    * Of a range, a day whose certificates are final and still hold is not recovered again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date

import msgspec

from collectorctl.commands.options import DayChoice
from collectorctl.commands.ranges import DayResult, count_grades, finish_range
from collectorctl.recover import us_job
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import FINAL_GRADES, Certificate, Grade
from collectorctl.recover.horizon import DayUnavailable
from collectorctl.recover.job import FAILURES, RecoveryRequest, recovery_job
from collectorctl.recover.plan import InstrumentPlan
from collectorctl.recover.progress import ConsoleProgress, parse_duration, show_certificates, show_day_states, show_plan
from collectorctl.recover.store import day_ticks
from collectorctl.recover.verify import (
    DayVerification,
    VerifiedCertificate,
    format_recovery_command,
    verify_day,
    verify_days,
)
from collectorctl.recover.verify_cluster import ClusterRefused, verify_on_cluster
from collectorctl.report.store import write_report_after
from collectorctl.terminal import TextConsole, echo, echo_json, usage_error, wide_console
from conf.home import Home
from conf.instrument import Instrument, parse_instrument
from conf.market import KR, US, Market
from conf.process import EXIT_ALREADY_RUNNING, EXIT_BUG, AlreadyRunning

EXIT_USAGE = 2


def recover(home: Home, days: DayChoice, symbols: str, mode: str, budget: str, dry_run: bool, as_json: bool) -> int:
    """Plan, and unless `dry_run` recover; the exit status. UsageError, SettingsError, AlreadyRunning."""
    instruments = _parse_symbols(symbols)
    try:
        budget_s = parse_duration(budget) if budget else None
    except ValueError as error:
        raise usage_error(str(error)) from None
    chosen = days.resolve(home)
    console = wide_console(stderr=True) if as_json else wide_console()
    with ConsoleProgress(console) as progress:

        def work(day: date) -> DayResult:
            request = RecoveryRequest(day, instruments, mode, budget_s)
            return _recover_day(home, request, progress, dry_run, not (as_json and dry_run))

        if days.is_range:
            results = _recover_range(home, chosen, work, progress, console, instruments, dry_run)
        else:
            results = [work(chosen[0])]
    return _finish(console, results, as_json, days.is_range)


def recover_us(home: Home, days: DayChoice, symbols: str, dry_run: bool, as_json: bool) -> int:
    """Minute bars and certificates of US days; the exit status. UsageError, SettingsError, AlreadyRunning."""
    chosen = _parse_symbols(symbols)
    if foreign := [str(one) for one in chosen if one.market is not US]:
        raise usage_error(f"{', '.join(foreign)}: not of the US market")
    instruments = chosen or home.settings.instruments(US.name)
    console = wide_console(stderr=True) if as_json else wide_console()
    found = days.resolve(home, US)

    def work(day: date) -> DayResult:
        return _recover_us_day(home, day, instruments, dry_run, console)

    if not days.is_range:
        return _finish(console, [work(found[0])], as_json, False)
    with ConsoleProgress(console) as progress:
        results = _recover_range(home, found, work, progress, console, instruments, dry_run, US)
    return _finish(console, results, as_json, True)


def _recover_day(
    home: Home, request: RecoveryRequest, progress: ConsoleProgress, dry_run: bool, shows_plan: bool
) -> DayResult:
    """Recover a day, or plan it. SettingsError, AlreadyRunning."""
    day = request.day
    try:
        with recovery_job(home, request, progress, writes=not dry_run) as job:
            plans = job.plan()
            if shows_plan:
                show_plan(progress.console, plans)
            if dry_run:
                note = f"{sum(one.shares for one in plans):,} shares missing, about {sum(one.pages for one in plans)} pages"
                return DayResult(day, 0, "planned", note, plans)
            certificates = job.recover(plans)
    except DayUnavailable as error:
        return DayResult(day, EXIT_USAGE, "unavailable", str(error))
    except FAILURES as error:
        return DayResult(day, EXIT_BUG, "failed", str(error))
    write_report_after(home, day)
    return _judge(day, certificates, FINAL_GRADES)


def _recover_us_day(
    home: Home, day: date, instruments: list[Instrument], dry_run: bool, console: TextConsole
) -> DayResult:
    try:
        if dry_run:
            us_job.check_recoverable(home, day, {one.venue for one in instruments})
            states = us_job.load_day_states(home, day, instruments)
            return DayResult(day, 0, "planned", f"{len(states)} instruments", states)
        certificates = us_job.recover(home, day, instruments, console.print)
    except DayUnavailable as error:
        return DayResult(day, EXIT_USAGE, "unavailable", str(error))
    except FAILURES as error:
        return DayResult(day, EXIT_BUG, "failed", str(error))
    return _judge(day, certificates, (Grade.MINUTE_ONLY,))


def _recover_range(
    home: Home,
    days: list[date],
    work: Callable[[date], DayResult],
    progress: ConsoleProgress,
    console: TextConsole,
    instruments: list[Instrument],
    dry_run: bool,
    market: Market = KR,
) -> list[DayResult]:
    """The results of all days; those that are settled are left alone."""
    results = []
    for number, day in enumerate(days):
        progress.on_day(day, number, len(days))
        settled = _find_settled(home, day, instruments, market)
        if settled:
            results.append(_judge(day, settled, FINAL_GRADES)._replace(outcome="unchanged"))
            continue
        try:
            results.append(work(day))
        except AlreadyRunning as error:
            results.append(DayResult(day, EXIT_ALREADY_RUNNING, "busy", str(error)))
        if results[-1].status and not dry_run:
            console.print(f"{day}: {results[-1].note}")
    return results


def _find_settled(home: Home, day: date, instruments: list[Instrument], market: Market) -> list[Certificate]:
    """The certificates of a day that need no other run: final ones of every instrument, which the files bear out."""
    stored = store.load(home.data, day, market)
    wanted = set(instruments) or {Instrument(*key) for key in stored}
    if market is KR and not instruments:
        wanted |= day_ticks.find_instruments(home.data / market.name / "tick", day)
    found = verify_day(home, day, market, wanted).certificates if stored else []
    is_settled = {Instrument(one.now.symbol, one.now.venue) for one in found} == wanted and all(
        one.now.certificate in FINAL_GRADES and not one.differs for one in found
    )
    return [one.now for one in found] if is_settled else []


def _judge(day: date, certificates: list[Certificate], accepted: Sequence[Grade]) -> DayResult:
    is_complete = all(one.certificate in accepted for one in certificates)
    grades = count_grades(one.certificate for one in certificates)
    return DayResult(day, 0 if is_complete else EXIT_BUG, "recovered", grades, certificates)


def _finish(console: TextConsole, results: list[DayResult], as_json: bool, is_range: bool) -> int:
    """Print what came of it; the exit status."""
    if is_range:
        return finish_range(console, [one._replace(result=_to_json(one.result)) for one in results], as_json)
    one = results[0]
    if one.result is None:
        return _fail(one.note, one.status)
    if as_json:
        echo_json(_to_json(one.result))
    elif one.outcome != "planned":
        show_certificates(console, one.result)
    elif one.result and not isinstance(one.result[0], InstrumentPlan):
        show_day_states(console, one.result)
    return one.status


def _to_json(found: Sequence[object] | None) -> object:
    """Certificates as they are; plans with what they add up to."""
    if not found:
        return found
    return [
        {**msgspec.to_builtins(one), "shares": one.shares} if isinstance(one, InstrumentPlan) else one for one in found
    ]


def verify(home: Home, days: DayChoice, jobs: int, as_json: bool, market: Market = KR, cluster: str = "") -> int:
    """Certify days again, by `jobs` processes or the workers of `cluster`; the exit status. UsageError."""
    chosen = days.resolve(home, market)
    if not days.is_range and not cluster:
        return _verify_one(verify_day(home, chosen[0], market), as_json, market)
    console = wide_console(stderr=as_json)
    with ConsoleProgress(console) as progress:

        def on_done(done: int) -> None:
            progress.on_day(None, done, len(chosen))

        try:
            found = (
                verify_on_cluster(home, chosen, market, cluster, on_done)
                if cluster
                else verify_days(home, chosen, market, jobs, on_done)
            )
        except ClusterRefused as error:
            raise usage_error(f"--cluster: {error}") from None
    if not days.is_range:
        return _verify_one(found[0], as_json, market)
    return finish_range(console, [_judge_verification(one, market) for one in found], as_json)


def _judge_verification(one: DayVerification, market: Market) -> DayResult:
    if one.failure or not one.certificates:
        return DayResult(
            one.day, EXIT_BUG, "failed" if one.failure else "uncertified", one.failure or _advise(one, market)
        )
    if one.retired:
        note = f"{one.retired}; before that {count_grades(each.now.certificate for each in one.certificates)}"
        return DayResult(one.day, 0, "retired", note, one.certificates)
    contradicted = [
        f"{_format_name(each)} differs: {', '.join(each.differs)}" for each in one.certificates if each.differs
    ]
    note = "; ".join([count_grades(each.now.certificate for each in one.certificates), *contradicted])
    passed = all(each.passed for each in one.certificates)
    outcome = "contradicted" if contradicted else "whole" if passed else "not whole"
    return DayResult(one.day, 0 if passed else EXIT_BUG, outcome, note, one.certificates)


def _verify_one(one: DayVerification, as_json: bool, market: Market) -> int:
    found = one.certificates
    if one.failure or not found:
        return _fail(one.failure or _advise(one, market), EXIT_BUG)
    if one.retired:
        echo(f"{one.retired}; the certificates are those of before", err=True)
    if as_json:
        echo_json(found)
    else:
        show_certificates(wide_console(), [each.now for each in found])
        for each in found:
            if each.differs:
                echo(f"{_format_name(each)}: the stored certificate differs: {', '.join(each.differs)}", err=True)
    return 0 if one.retired or all(each.passed for each in found) else EXIT_BUG


def _advise(one: DayVerification, market: Market) -> str:
    return f"{one.day}: there is no certificate: run {format_recovery_command(one.day, market)}"


def _format_name(one: VerifiedCertificate) -> str:
    return f"{one.now.symbol} {one.now.venue}"


def _parse_symbols(symbols: str) -> list[Instrument]:
    try:
        return [parse_instrument(name.strip()) for name in symbols.split(",") if name.strip()]
    except ValueError as error:
        raise usage_error(str(error)) from None


def _fail(message: str, code: int) -> int:
    echo(f"collectorctl: {message}", err=True)
    return code
