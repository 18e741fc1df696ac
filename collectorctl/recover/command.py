"""Implementation of the commands recover and verify: arguments in, output and exit status out.

    exit 0 every instrument is complete   1 incomplete   2 invalid day or option   75 another run is active

Guarantees:
    * An error is one line on stderr; with --json only the certificates (or the plan) are on stdout.
"""

from __future__ import annotations

from datetime import date

import msgspec

from collectorctl.recover import us_job
from collectorctl.recover.certificate.certify import COMPLETE_GRADES, Certificate, Grade
from collectorctl.recover.horizon import DayUnavailable, parse_day
from collectorctl.recover.job import FAILURES, RecoveryRequest, recovery_job
from collectorctl.recover.progress import ConsoleProgress, parse_duration, show_certificates, show_day_states, show_plan
from collectorctl.recover.verify import VerifiedCertificate
from collectorctl.recover.verify import verify as verified
from collectorctl.report.store import write_report_after
from collectorctl.terminal import TextConsole, echo, echo_json, usage_error, wide_console
from conf.home import Home
from conf.instrument import parse_instrument
from conf.market import KR, US, Market
from conf.process import EXIT_BUG
from writer.publish.verified_file import PartitionWriteError

EXIT_USAGE = 2


def recover(home: Home, text: str, symbols: str, mode: str, budget: str, dry_run: bool, as_json: bool) -> int:
    """Plan, and unless `dry_run` recover; the exit status. UsageError, SettingsError, AlreadyRunning."""
    day = _parse_day(home, text)
    try:
        instruments = [parse_instrument(name.strip()) for name in symbols.split(",") if name.strip()]
        request = RecoveryRequest(day, instruments, mode, parse_duration(budget) if budget else None)
    except ValueError as error:
        raise usage_error(str(error)) from None
    console = wide_console(stderr=True) if as_json else wide_console()
    try:
        with ConsoleProgress(console) as progress, recovery_job(home, request, progress, writes=not dry_run) as job:
            plans = job.plan()
            if not as_json or not dry_run:
                show_plan(console, plans)
            if dry_run:
                if as_json:
                    echo_json([{**msgspec.to_builtins(one), "shares": one.shares} for one in plans])
                return 0
            certificates = job.recover(plans)
    except DayUnavailable as error:
        return _fail(str(error), EXIT_USAGE)
    except FAILURES as error:
        return _fail(str(error), EXIT_BUG)
    _print_certificates(console, certificates, as_json)
    write_report_after(home, day)
    accepted = (*COMPLETE_GRADES, Grade.MINUTE_ONLY)
    return 0 if all(one.certificate in accepted for one in certificates) else EXIT_BUG


def recover_us(home: Home, text: str, symbols: str, dry_run: bool, as_json: bool) -> int:
    """Minute bars and certificates of a US day; the exit status. UsageError, SettingsError, AlreadyRunning."""
    day = _parse_day(home, text, US)
    try:
        chosen = [parse_instrument(name.strip()) for name in symbols.split(",") if name.strip()]
    except ValueError as error:
        raise usage_error(str(error)) from None
    if foreign := [str(one) for one in chosen if one.market is not US]:
        raise usage_error(f"{', '.join(foreign)}: not of the US market")
    instruments = chosen or home.settings.instruments(US.name)
    console = wide_console(stderr=True) if as_json else wide_console()
    try:
        if dry_run:
            us_job.check_recoverable(home, day, {one.venue for one in instruments})
            found = us_job.load_day_states(home, day, instruments)
            echo_json(found) if as_json else show_day_states(console, found)
            return 0
        certificates = us_job.recover(home, day, instruments, console.print)
    except DayUnavailable as error:
        return _fail(str(error), EXIT_USAGE)
    except FAILURES as error:
        return _fail(str(error), EXIT_BUG)
    _print_certificates(console, certificates, as_json)
    return 0 if all(one.certificate == Grade.MINUTE_ONLY for one in certificates) else EXIT_BUG


def verify(home: Home, text: str, as_json: bool, market: Market = KR) -> int:
    """Certify the day again; the exit status. UsageError."""
    day = _parse_day(home, text, market)
    try:
        found = verified(home, day, market)
    except (PartitionWriteError, OSError) as error:
        return _fail(str(error), EXIT_BUG)
    if not found:
        market_option = "" if market is KR else f" --market {market.name}"
        return _fail(
            f"{day}: there is no certificate: run `collectorctl recover --date {day}{market_option}`", EXIT_BUG
        )
    if as_json:
        echo_json(found)
        return 0 if all(one.passed for one in found) else EXIT_BUG
    show_certificates(wide_console(), [one.now for one in found])
    for one in found:
        if one.differs:
            echo(f"{_format_name(one)}: the stored certificate differs: {', '.join(one.differs)}", err=True)
    return 0 if all(one.passed for one in found) else EXIT_BUG


def _format_name(one: VerifiedCertificate) -> str:
    return f"{one.now.symbol} {one.now.venue}"


def _parse_day(home: Home, text: str, market: Market = KR) -> date:
    try:
        return parse_day(text, home.load_clock().now_ns(), market)
    except ValueError as error:
        raise usage_error(str(error)) from None


def _print_certificates(console: TextConsole, certificates: list[Certificate], as_json: bool) -> None:
    if as_json:
        echo_json(certificates)
    else:
        show_certificates(console, certificates)


def _fail(message: str, code: int) -> int:
    echo(f"collectorctl: {message}", err=True)
    return code
