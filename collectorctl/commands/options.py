"""Shared options of commands.

Guarantees:
    * Every reporting command prints JSON with --json.
    * Days are chosen in the same way everywhere: one day, or the trading days of a range by the home's calendar, ascending.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from functools import wraps
from typing import Any, NamedTuple

import click

from collectorctl.terminal import usage_error
from conf.home import Home
from conf.market import KR, MARKETS, Market

MAX_RANGE_DAYS = 3660

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
market_option = click.option(
    "--market", type=click.Choice(list(MARKETS)), default="kr", show_default=True, help="Which exchanges."
)


class DayChoice(NamedTuple):
    """The options that choose days, as they were written; "" for those that were not."""

    single: str
    first: str
    last: str
    newest: str

    @property
    def is_range(self) -> bool:
        """Whether several days are asked for, however many there are."""
        return not self.single

    def resolve(self, home: Home, market: Market = KR, closed_too: bool = False) -> list[date]:
        """The days, at least one; `closed_too`: of a range also those without a session. UsageError."""
        from collectorctl.recover.horizon import find_last_ended_day, find_trading_days, parse_day

        chosen = [bool(self.single), bool(self.first or self.last), bool(self.newest)]
        if sum(chosen) != 1 or (self.last and not self.first):
            raise usage_error("name the days: --date DAY, or --from DAY --to DAY, or --last 20d")
        now_ns = home.load_clock().now_ns()
        try:
            if self.single:
                return [parse_day(self.single, now_ns, market)]
            calendar = home.load_calendar()
            ended = find_last_ended_day(calendar, market, now_ns)
            if self.newest:
                count = parse_count(self.newest)
                last = ended
                days = find_trading_days(calendar, market, ended - timedelta(days=2 * count + 30), ended)[-count:]
            else:
                first = parse_day(self.first, now_ns, market)
                last = parse_day(self.last, now_ns, market) if self.last else ended
                if last > market.to_local(now_ns).date():
                    raise ValueError(f"{last}: is in the future")
                if not first <= last <= first + timedelta(days=MAX_RANGE_DAYS):
                    raise ValueError(f"{first} to {last}: name the earlier day first, and at most ten years")
                days = find_trading_days(calendar, market, first, last)
        except ValueError as error:
            raise usage_error(str(error)) from None
        if not days:
            raise usage_error("no trading day is in that range")
        return [days[0] + timedelta(days=number) for number in range((last - days[0]).days + 1)] if closed_too else days

    def resolve_dates(self, home: Home, market: Market) -> list[date]:
        """The days as dates of directories: of a range also those without a session that have rows of the next one. UsageError."""
        days = self.resolve(home, market)
        if not (self.is_range and market.has_business_date):
            return days
        stored = {path.name for path in (home.data / market.name).glob("*/date=*")}
        return [one for one in self.resolve(home, market, True) if one in days or f"date={one}" in stored]


def parse_count(text: str) -> int:
    """The number of "20d" or "20". ValueError."""
    if not (found := re.fullmatch(r"(\d{1,4})d?", text)) or not 0 < int(found[1]) <= MAX_RANGE_DAYS // 2:
        raise ValueError(f"{text!r} is no number of days: write 20d")
    return int(found[1])


def choose_days(last_option: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options that choose days, for a command that gets a DayChoice as `days`; `last_option`: the name of the range's end."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.option(
            "--date", "date_text", default="", help="The trading day: 2026-11-20, 20261120, today, yesterday."
        )
        @click.option("--from", "first", default="", help="The first of several days.")
        @click.option(last_option, "last_day", default="", help="The last of them [default: the newest that is over].")
        @click.option("--last", "newest", default="", help="The newest trading days that are over, e.g. 20d.")
        @wraps(command)
        def with_days(*args: Any, date_text: str, first: str, last_day: str, newest: str, **options: Any) -> Any:
            return command(*args, days=DayChoice(date_text, first, last_day, newest), **options)

        return with_days

    return decorate


day_options = choose_days("--to")
"""The options --date, --from, --to and --last."""
