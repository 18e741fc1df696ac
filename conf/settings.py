"""Settings tables: the types of default.toml."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Literal

import msgspec

from conf.instrument import Instrument, parse_instrument
from conf.text.fault_messages import FAULTS
from conf.text.language import Language, Texts
from conf.universe.listing import UniverseList, has_expressions


class Fault:
    """A setting, secret or path that cannot be used: file, key, code, and the values of the message of that code."""

    __slots__ = ("code", "key", "values", "where")

    def __init__(self, where: str | Path, key: str, code: str, **values: object) -> None:
        self.where = str(where)
        self.key = key
        self.code = code
        self.values = values

    def format(self, language: Language = "en") -> str:
        """File, key, what is wrong, what to do."""
        return f"{self.where}: {self.key}: {Texts(language, FAULTS)(self.code, **self.values)}"

    def describe(self) -> dict[str, object]:
        """What JSON has of it, in English."""
        values = {
            name: value if isinstance(value, int | float | str) else str(value) for name, value in self.values.items()
        }
        return {"where": self.where, "key": self.key, "code": self.code, "values": values, "message": self.format()}


class SettingsError(Exception):
    """What cannot be used of a home: all that was found; its text is English."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(fault.format() for fault in faults))
        self.faults = faults


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of the TOML file: the defaults are in default.toml."""


class Universe(_Table, frozen=True):
    """Which instruments are collected, by market; `kr` as written, expressions among them."""

    kr: list[str]
    us: list[str]


class Shards(_Table, frozen=True):
    """Which feed collects the ticks of which symbols, and failover between them."""

    kis: list[str]
    kiwoom: list[str]
    rate: dict[str, float]
    takeover_after_s: float
    give_back_after_s: float


class Paths(_Table, frozen=True):
    """Directories, relative to the home."""

    data: str
    run: str
    log: str
    ring: str
    key_locks: str


class ClockTable(_Table, frozen=True):
    """Simulated clock of a demo; the real one where `start` is empty."""

    start: str
    speed: float


class CalendarTable(_Table, frozen=True):
    """Days that deviate from the computed calendar."""

    closed: list[date]
    open: list[date]
    us_closed: list[date]
    us_open: list[date]
    special: dict[str, str]


class RingTable(_Table, frozen=True):
    """Capacity of the rings, in records, how long they stay, and who may read them."""

    orderbook_capacity: int
    tick_capacity: int
    free_when_drained: bool
    reader_group: str


class _KisTable(_Table, frozen=True):
    """What KIS's feeds have in common."""

    enabled: bool
    ws_url: str
    rest_url: str
    max_subscriptions: int
    subscribe_spacing_ms: int
    customer_type: Literal["P", "B"]
    cut_wait_s: float


class Kis(_KisTable, frozen=True):
    """KIS: addresses, limits, subscription."""

    master_url: str
    market_status: bool


class Kiwoom(_Table, frozen=True):
    """Kiwoom: addresses, limits, subscription."""

    enabled: bool
    ws_url: str
    rest_url: str
    max_subscriptions: int
    subscribe_chunk: int
    subscribe_spacing_ms: int
    cut_wait_s: float


class Us(_KisTable, frozen=True):
    """KIS overseas: the keys of [kis], and whether the feed is the paid one."""

    paid: bool


class Feed(_Table, frozen=True):
    """Connections of every feed: timeouts, backoff, liveness."""

    dead_after_s: float
    silent_after_s: float
    acknowledge_within_s: float
    symbol_silent_after_s: float
    sleep_outside_sessions: bool
    sleep_margin_s: float
    backoff_first_s: float
    backoff_max_s: float
    max_connects_per_hour: int
    coalesce_ms: float
    frame_max_bytes: int


class Quarantine(_Table, frozen=True):
    """Raw frames that could not be decoded."""

    max_bytes: int


class Capture(_Table, frozen=True):
    """Raw frames as received, where that is switched on."""

    max_bytes: int
    min_free_bytes: int


class Disk(_Table, frozen=True):
    """Room on the disk: what is the writer's, and how early one is warned."""

    min_free_bytes: int
    warn_days: float


class Retention(_Table, frozen=True):
    """Days after which files are removed; 0: kept for ever. `require_copy`: where a copy of market data must be before."""

    quarantine_days: int
    capture_days: int
    staging_days: int
    uncertified_days: int
    log_days: int
    orderbook_days: int
    tick_days: int
    event_days: int
    feed_health_days: int
    us_orderbook_days: int
    us_tick_days: int
    us_event_days: int
    require_copy: str


class Writer(_Table, frozen=True):
    """Arbitration, journal and publication."""

    watermark_ms: int
    twin_window_s: float
    identity_cum_volume: list[Literal["KRX", "NXT", "UN"]]
    fsync_every_s: float
    grace_s: float
    late_every_s: float
    row_group_rows: int
    segment_max_bytes: int


class Health(_Table, frozen=True):
    """Detection of a degraded feed."""

    window_s: float
    min_books: int


class Recover(_Table, frozen=True):
    """Recovery after the close."""

    calls_per_s_first: float
    max_calls_per_s: float
    attempts: int
    tick_days: int
    minute_days: int
    automatic: bool
    after_close_minutes: float
    compact: bool
    retry_s: float


class Gapfill(_Table, frozen=True):
    """Backfill of gaps during the day."""

    enabled: bool
    calls_per_s: float
    settle_s: float
    max_pages: int
    attempts: int


class Metrics(_Table, frozen=True):
    """Endpoint for Prometheus."""

    enabled: bool
    port: int


class Relay(_Table, frozen=True):
    """The live stream as the vendors' WebSockets."""

    enabled: bool
    address: str
    kis_port: int
    kiwoom_port: int
    kis_widths: Literal["46/59", "46/62", "47/63"]


class Zmq(_Table, frozen=True):
    """The live stream over ZeroMQ."""

    enabled: bool
    port: int
    resend_port: int
    resend_mb: int
    high_water: int


class Notify(_Table, frozen=True):
    """Notifications of the verdict's findings."""

    enabled: bool
    min_level: Literal["repairing", "attention"]
    repeat_minutes: float
    ping_s: float
    report_url: str


class Watchdog(_Table, frozen=True):
    """Limits beyond which the watchdog acts."""

    stale_s: float
    start_s: float
    terminate_timeout_s: float
    fatal_restart_s: float
    disk_alarm_s: float
    kis_memory_mb: float
    kiwoom_memory_mb: float
    us_memory_mb: float
    writer_memory_mb: float
    gapfill_memory_mb: float
    notify_memory_mb: float


class Ui(_Table, frozen=True):
    """What people read."""

    language: Literal["", "en", "ko"]


class Log(_Table, frozen=True):
    """Log files."""

    level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"]
    rotation: str
    retention: int


class Settings(_Table, frozen=True):
    """All settings of a home; see default.toml for what each means."""

    universe: Universe
    shards: Shards
    paths: Paths
    clock: ClockTable
    sessions: dict[str, dict[str, str]]
    calendar: CalendarTable
    special_day: dict[str, dict[str, dict[str, str]]]
    ring: RingTable
    kis: Kis
    kiwoom: Kiwoom
    us: Us
    feed: Feed
    quarantine: Quarantine
    capture: Capture
    disk: Disk
    retention: Retention
    writer: Writer
    health: Health
    recover: Recover
    gapfill: Gapfill
    metrics: Metrics
    relay: Relay
    zmq: Zmq
    notify: Notify
    watchdog: Watchdog
    ui: Ui
    log: Log
    in_force: UniverseList | None = None
    """What the expressions of the universe gave; no setting."""

    def instruments(self, market: str = "kr") -> list[Instrument]:
        """The universe of a market in order of priority. SettingsError: expressions that nobody has resolved."""
        source = self.in_force or self.universe
        if self.in_force is None and has_expressions(self.universe.kr):
            raise SettingsError(Fault("collector.toml", "universe.kr", "universe_unresolved"))
        return [parse_instrument(text) for text in getattr(source, market)]
