"""Validation of settings beyond their types: ranges, forms, agreement between settings.

Guarantees:
    * `find_violations` is pure and finds every one; settings without a violation can be used by every process.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from ipaddress import ip_address
from itertools import pairwise
from typing import NamedTuple
from urllib.parse import urlsplit

from conf.calendar import CLOSED
from conf.instrument import VENUE_BY_EXCHANGE, guess_instrument, parse_instrument
from conf.market import KR, MARKETS, Market
from conf.settings import Settings
from conf.universe.listing import has_expressions, is_expression, parse_expression


class Violation(NamedTuple):
    """The key of a setting, the code of what is wrong with it, the values of its message, the settings it is compared with."""

    key: str
    code: str
    values: Mapping[str, object] = {}
    compared: tuple[str, ...] = ()


def find_violations(settings: Settings) -> Iterator[Violation]:
    """All violations in `settings`, in the order of default.toml within each kind of rule."""
    for check in (
        _check_numbers,
        _check_universe,
        _check_shards,
        _check_paths,
        _check_clock,
        _check_sessions,
        _check_special_days,
        _check_addresses,
        _check_relations,
    ):
        yield from check(settings)


_MINIMUM = {
    "shards.takeover_after_s": 1,
    "shards.give_back_after_s": 1,
    "ring.orderbook_capacity": 1024,
    "ring.tick_capacity": 1024,
    "kis.max_subscriptions": 1,
    "kis.subscribe_spacing_ms": 0,
    "kis.cut_wait_s": 0,
    "kiwoom.max_subscriptions": 1,
    "kiwoom.subscribe_chunk": 1,
    "kiwoom.subscribe_spacing_ms": 0,
    "kiwoom.cut_wait_s": 0,
    "us.max_subscriptions": 1,
    "us.subscribe_spacing_ms": 0,
    "us.cut_wait_s": 0,
    "feed.dead_after_s": 1,
    "feed.silent_after_s": 1,
    "feed.acknowledge_within_s": 0.5,
    "feed.symbol_silent_after_s": 1,
    "feed.sleep_margin_s": 60,
    "feed.backoff_first_s": 0.05,
    "feed.backoff_max_s": 0.05,
    "feed.max_connects_per_hour": 3,
    "feed.coalesce_ms": 0,
    "feed.frame_max_bytes": 65536,
    "quarantine.max_bytes": 0,
    "capture.max_bytes": 16 << 20,
    "capture.min_free_bytes": 0,
    "disk.min_free_bytes": 0,
    "disk.warn_days": 0,
    "retention.quarantine_days": 0,
    "retention.capture_days": 0,
    "retention.staging_days": 0,
    "retention.uncertified_days": 0,
    "retention.log_days": 0,
    "retention.orderbook_days": 0,
    "retention.tick_days": 0,
    "retention.event_days": 0,
    "retention.feed_health_days": 0,
    "retention.us_orderbook_days": 0,
    "retention.us_tick_days": 0,
    "retention.us_event_days": 0,
    "writer.watermark_ms": 0,
    "writer.twin_window_s": 0.1,
    "writer.fsync_every_s": 0,
    "writer.grace_s": 0.1,
    "writer.late_every_s": 1,
    "writer.row_group_rows": 1024,
    "writer.segment_max_bytes": 1 << 20,
    "health.window_s": 1,
    "health.min_books": 10,
    "recover.calls_per_s_first": 0.1,
    "recover.max_calls_per_s": 0.1,
    "recover.attempts": 1,
    "recover.tick_days": 1,
    "recover.minute_days": 1,
    "recover.after_close_minutes": 0,
    "recover.retry_s": 1,
    "gapfill.calls_per_s": 0.1,
    "gapfill.settle_s": 0,
    "gapfill.max_pages": 1,
    "gapfill.attempts": 1,
    "metrics.port": 1,
    "relay.kis_port": 1,
    "relay.kiwoom_port": 1,
    "zmq.port": 1,
    "zmq.resend_port": 1,
    "zmq.resend_mb": 1,
    "zmq.high_water": 1,
    "notify.repeat_minutes": 0.05,
    "notify.ping_s": 1,
    "watchdog.stale_s": 3,
    "watchdog.start_s": 15,
    "watchdog.terminate_timeout_s": 1,
    "watchdog.fatal_restart_s": 1,
    "watchdog.disk_alarm_s": 1,
    "watchdog.kis_memory_mb": 50,
    "watchdog.kiwoom_memory_mb": 50,
    "watchdog.us_memory_mb": 50,
    "watchdog.writer_memory_mb": 200,
    "watchdog.gapfill_memory_mb": 50,
    "watchdog.notify_memory_mb": 50,
    "log.retention": 1,
}

MAX_GAPFILL_CALLS_PER_S = 18
"""Calls a second that KIS answers for one appkey (docs/wire/kis.md 1.6)."""

MAX_PORT = 65535

MIN_MARKET_DAYS = 8
"""Days of market data that reports, exports and a starting writer look back at."""

_MAXIMUM = 1 << 40
"""Upper bound of any count, size or duration; keeps every number within 64 bits and every wait finite."""

_MAXIMA = {"feed.coalesce_ms": 100}  # longer, and the times of receipt say little
"""Lower ones."""


def _check_numbers(settings: Settings) -> Iterator[Violation]:
    for key, minimum in _MINIMUM.items():
        table, name = key.split(".")
        value = getattr(getattr(settings, table), name)
        if math.isnan(value):
            yield Violation(key, "not_number", {"limit": minimum})
        elif value < minimum:
            yield Violation(key, "too_small", {"value": value, "limit": minimum})
        elif value > (maximum := _MAXIMA.get(key, _MAXIMUM)):
            yield Violation(key, "too_large", {"value": value, "limit": maximum})


def _check_universe(settings: Settings) -> Iterator[Violation]:
    for market in MARKETS.values():
        seen: set[str] = set()
        for number, text in enumerate(getattr(settings.universe, market.name)):
            key = f"universe.{market.name}[{number}]"
            yield from _check_entry(key, text, market)
            if text in seen:
                yield Violation(key, "instrument_twice", {"found": text})
            seen.add(text)
    if not settings.universe.kr:
        yield Violation("universe.kr", "nothing_kr")
    if settings.us.enabled and not settings.universe.us:
        yield Violation("universe.us", "nothing_us", compared=("us.enabled",))


def _check_entry(key: str, text: str, market: Market) -> Iterator[Violation]:
    try:
        if is_expression(text) and market is KR:
            parse_expression(text)
        elif (instrument := parse_instrument(text)).market is not market:
            yield Violation(key, "other_market", {"found": text, "market": instrument.market.name})
    except ValueError:
        yield (
            Violation(key, "not_expression", {"found": text}) if is_expression(text) else _explain_instrument(key, text)
        )


def _explain_instrument(key: str, text: str) -> Violation:
    if meant := guess_instrument(text):
        return Violation(key, "not_instrument_meant", {"found": repr(text), "meant": meant})
    return Violation(key, "not_instrument", {"found": repr(text), "exchanges": ", ".join(VENUE_BY_EXCHANGE)})


def _check_shards(settings: Settings) -> Iterator[Violation]:
    groups: dict[str, str] = {}
    is_closed = not has_expressions(settings.universe.kr)  # else a code that is not selected today may be tomorrow
    for group in ("kis", "kiwoom"):
        for number, text in enumerate(getattr(settings.shards, group)):
            key = f"shards.{group}[{number}]"
            if is_closed and text not in settings.universe.kr:
                yield Violation(key, "not_in_universe", {"found": text}, ("universe.kr",))
            if text in groups:
                yield Violation(key, "already_in", {"found": text, "other": f"shards.{groups[text]}"})
            groups[text] = group
    for text, rate in settings.shards.rate.items():
        if is_closed and text not in settings.universe.kr:
            yield Violation(f"shards.rate.{text}", "not_in_universe", {"found": text}, ("universe.kr",))
        if not 0 < rate <= _MAXIMUM:  # a nan is refused as well
            yield Violation(f"shards.rate.{text}", "not_rate", {"value": rate})


def _check_paths(settings: Settings) -> Iterator[Violation]:
    for name in ("data", "run", "log"):
        if not getattr(settings.paths, name).strip():
            yield Violation(f"paths.{name}", "path_empty", {"example": name})


def _check_clock(settings: Settings) -> Iterator[Violation]:
    start, speed = settings.clock.start, settings.clock.speed
    if not start:
        if speed != 1.0:
            yield Violation("clock.speed", "speed_alone", compared=("clock.start",))
        return
    try:
        aware = datetime.fromisoformat(start).tzinfo is not None
    except ValueError:
        aware = False
    if not aware:
        yield Violation("clock.start", "not_start", {"found": repr(start)})
    if not 0 < speed <= 86_400:
        yield Violation("clock.speed", "not_speed", {"value": speed})


_EVENING = {
    hours.table: f"{24 - hours.evening_hours}:00" for market in MARKETS.values() for hours in market.venues.values()
}
_SPAN_PATTERN = re.compile(r"((?:[01]\d|2[0-3]):[0-5]\d)-((?:[01]\d|2[0-3]):[0-5]\d|24:00)")


def _check_sessions(settings: Settings) -> Iterator[Violation]:
    for venue, phases in settings.sessions.items():
        yield from _check_phases(f"sessions.{venue}", phases)
    for kind, venues in settings.special_day.items():
        for venue, phases in venues.items():
            yield from _check_phases(f"special_day.{kind}.{venue}", phases)


def _check_phases(table: str, phases: Mapping[str, str]) -> Iterator[Violation]:
    spans = []
    evening = _EVENING.get(table.rpartition(".")[2], "24:00")
    for phase, span in phases.items():
        match = _SPAN_PATTERN.fullmatch(span)
        if span and match is None:
            yield Violation(f"{table}.{phase}", "not_span", {"found": repr(span)})
        elif match is not None:
            begin, end = match[1], match[2]
            if phase == "night_market" and begin >= evening:
                begin = "00:00"  # of its own day; the evening before has no other phase
            if begin >= end:
                yield Violation(f"{table}.{phase}", "span_backwards", {"found": repr(span)})
            if end > evening:
                yield Violation(f"{table}.{phase}", "span_evening", {"found": repr(span), "limit": evening})
            if begin < end:
                spans.append((begin, end, phase))
    for (_, end, earlier), (begin, _, later) in pairwise(sorted(spans)):
        if begin < end:
            yield Violation(
                f"{table}.{later}",
                "span_overlap",
                {"begin": begin, "earlier": earlier, "end": end},
                (f"{table}.{earlier}",),
            )


def _check_special_days(settings: Settings) -> Iterator[Violation]:
    for day, kind in settings.calendar.special.items():
        try:
            date.fromisoformat(day)
        except ValueError:
            yield Violation(f"calendar.special.{day}", "not_day")
        if kind and kind != CLOSED and kind not in settings.special_day:
            yield Violation(
                f"calendar.special.{day}",
                "kind_missing",
                {"found": repr(kind), "choices": ", ".join([*settings.special_day, CLOSED])},
                ("special_day",),
            )


def _check_addresses(settings: Settings) -> Iterator[Violation]:
    keys = (("ws_url", ("ws", "wss")), ("rest_url", ("http", "https")))
    for name, more in (("kis", (("master_url", ("http", "https")),)), ("kiwoom", ()), ("us", ())):
        for key, schemes in (*keys, *more):
            address = getattr(getattr(settings, name), key)
            if not _is_address(address, schemes):
                yield Violation(f"{name}.{key}", "not_address", {"found": repr(address), "scheme": schemes[1]})


def _is_address(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and text.split() == [text]
    except ValueError:  # a port that is no number, an unfinished [IPv6]
        return False


def _check_relations(settings: Settings) -> Iterator[Violation]:
    window_s, grace_s = settings.writer.twin_window_s, settings.writer.grace_s
    if grace_s <= window_s:
        yield Violation(
            "writer.grace_s", "grace_short", {"value": grace_s, "limit": window_s}, ("writer.twin_window_s",)
        )
    for table, name, other in (
        ("feed", "backoff_max_s", "backoff_first_s"),
        ("recover", "max_calls_per_s", "calls_per_s_first"),
    ):
        value, minimum = (getattr(getattr(settings, table), each) for each in (name, other))
        if value < minimum:
            values = {"value": value, "other": other, "limit": minimum}
            yield Violation(f"{table}.{name}", "below_other", values, (f"{table}.{other}",))
    if (rate := settings.gapfill.calls_per_s) > MAX_GAPFILL_CALLS_PER_S:
        yield Violation("gapfill.calls_per_s", "beyond_kis", {"value": rate, "limit": MAX_GAPFILL_CALLS_PER_S})
    for key, port in (
        ("metrics.port", settings.metrics.port),
        ("relay.kis_port", settings.relay.kis_port),
        ("relay.kiwoom_port", settings.relay.kiwoom_port),
        ("zmq.port", settings.zmq.port),
        ("zmq.resend_port", settings.zmq.resend_port),
    ):
        if port > MAX_PORT:
            yield Violation(key, "not_port", {"value": port, "limit": MAX_PORT})
    for key, port, other, taken in (
        ("relay.kiwoom_port", settings.relay.kiwoom_port, "relay.kis_port", settings.relay.kis_port),
        ("zmq.resend_port", settings.zmq.resend_port, "zmq.port", settings.zmq.port),
    ):
        if port == taken:
            yield Violation(key, "port_twice", {"value": port, "other": other}, (other,))
    try:
        ip_address(settings.relay.address)
    except ValueError:
        yield Violation("relay.address", "not_ip_address", {"found": repr(settings.relay.address)})
    uncertified_days, needed_days = settings.retention.uncertified_days, 2 * settings.recover.tick_days
    if 0 < uncertified_days < needed_days:
        values = {"value": uncertified_days, "limit": needed_days}
        yield Violation("retention.uncertified_days", "retention_short", values, ("recover.tick_days",))
    for name in ("orderbook", "tick", "event", "feed_health", "us_orderbook", "us_tick", "us_event"):
        if 0 < (days := getattr(settings.retention, f"{name}_days")) < MIN_MARKET_DAYS:
            yield Violation(f"retention.{name}_days", "retention_recent", {"value": days, "limit": MIN_MARKET_DAYS})
