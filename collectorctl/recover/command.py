"""The two commands: words in, words and an exit status out.

    exit 0 every instrument has what was asked for   1 not so   2 a day or an option that cannot be   75 another run is at work

Promises: an error is one line on stderr; with --json the certificates (or the plan) are all that is on stdout.
Leaves to others: the work (run.py, verify.py), tables (show.py).
"""

from __future__ import annotations

import os
from datetime import date

import click
import msgspec
from rich.console import Console

from brokers.history import quotes
from collectorctl.recover import us_job
from collectorctl.recover.certificate.certify import Certificate, Grade
from collectorctl.recover.download.pager import Caller
from collectorctl.recover.horizon import OutOfReach, parse_day
from collectorctl.recover.job import FAILURES, Request, alone, recovering
from collectorctl.recover.progress import Shown, parse_span, show_certificates, show_plan, show_standing
from collectorctl.recover.verify import Verified
from collectorctl.recover.verify import verify as verified
from collectorctl.supervision.status_table import wide_console
from conf.home import Home
from conf.instrument import parse
from conf.market import KR, US, Market
from conf.process import EXIT_BUG
from writer.publish.partition import PublicationError

USAGE = 2
WHOLE = (Grade.PROVEN, Grade.RECONCILED)


def recover(home: Home, text: str, symbols: str, mode: str, budget: str, dry_run: bool, as_json: bool) -> int:
    """Plan, and unless `dry_run` recover; the exit status. UsageError, SettingsError, Busy."""
    day = _day(home, text)
    try:
        instruments = [parse(name.strip()) for name in symbols.split(",") if name.strip()]
        request = Request(day, instruments, mode, parse_span(budget) if budget else None)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    console = wide_console(stderr=True) if as_json else wide_console()
    try:
        with Shown(console) as shown, recovering(home, request, shown, writes=not dry_run) as run:
            items = run.plan()
            if not as_json or not dry_run:
                show_plan(console, items)
            if dry_run:
                if as_json:
                    _say([{**msgspec.to_builtins(one), "shares": one.shares} for one in items])
                return 0
            certificates = run.recover(items)
    except OutOfReach as error:
        return _fail(str(error), USAGE)
    except FAILURES as error:
        return _fail(str(error), EXIT_BUG)
    _tell(console, certificates, as_json)
    content = (*WHOLE, Grade.MINUTE_ONLY)
    return 0 if all(one.certificate in content for one in certificates) else EXIT_BUG


def recover_us(home: Home, text: str, symbols: str, dry_run: bool, as_json: bool) -> int:
    """Minute bars and certificates of a US day; the exit status. UsageError, SettingsError, Busy."""
    day = _day(home, text, US)
    try:
        chosen = [parse(name.strip()) for name in symbols.split(",") if name.strip()]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if strange := [str(one) for one in chosen if one.market is not US]:
        raise click.UsageError(f"{', '.join(strange)}: not of the US market")
    instruments = chosen or home.settings.instruments(US.name)
    console = wide_console(stderr=True) if as_json else wide_console()
    try:
        us_job.check(home, day, {one.venue for one in instruments})
        if dry_run:
            found = us_job.standing(home, day, instruments)
            _say(found) if as_json else show_standing(console, found)
            return 0
        fd = alone(home)
        try:
            calls = quotes(home, us_job.BROKER)
            try:
                caller = Caller(calls, home.settings.recover, console.print)
                certificates = us_job.recover(home, caller, day, instruments, console.print)
            finally:
                calls.close()
        finally:
            os.close(fd)
    except OutOfReach as error:
        return _fail(str(error), USAGE)
    except (*FAILURES, us_job.NotOver) as error:
        return _fail(str(error), EXIT_BUG)
    _tell(console, certificates, as_json)
    return 0 if all(one.certificate == Grade.MINUTE_ONLY for one in certificates) else EXIT_BUG


def verify(home: Home, text: str, as_json: bool, market: Market = KR) -> int:
    """Judge the day again; the exit status. UsageError."""
    day = _day(home, text, market)
    try:
        found = verified(home, day, market)
    except (PublicationError, OSError) as error:
        return _fail(str(error), EXIT_BUG)
    if not found:
        market_option = "" if market is KR else f" --market {market.name}"
        return _fail(
            f"{day}: there is no certificate: run `collectorctl recover --date {day}{market_option}`", EXIT_BUG
        )
    if as_json:
        _say(found)
        return 0 if all(one.good for one in found) else EXIT_BUG
    show_certificates(wide_console(), [one.now for one in found])
    for one in found:
        if one.differs:
            click.echo(f"{_name(one)}: the stored certificate says otherwise: {', '.join(one.differs)}", err=True)
    return 0 if all(one.good for one in found) else EXIT_BUG


def _name(one: Verified) -> str:
    return f"{one.now.symbol} {one.now.venue}"


def _day(home: Home, text: str, market: Market = KR) -> date:
    try:
        return parse_day(text, home.clock().now_ns(), market)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _tell(console: Console, certificates: list[Certificate], as_json: bool) -> None:
    if as_json:
        _say(certificates)
    else:
        show_certificates(console, certificates)


def _say(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _fail(words: str, code: int) -> int:
    click.echo(f"collectorctl: {words}", err=True)
    return code
