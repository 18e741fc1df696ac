"""Settings: default.toml, a home's collector.toml over it, secrets from the environment or the home's .env.

    conf/default.toml ──┐
    HOME/collector.toml ┴─> Settings (frozen, typed, checked)        environment ─┐
                                                                     HOME/.env ───┴─> Secrets

Promises: a wrong setting is found before anything starts, and every error reads `file: key: what is wrong: what to write`;
a secret's value is in no message and no repr.
Leaves to others: where files lie in a home (home.py), exit codes (process.py).
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from datetime import date, datetime
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec
from dotenv import dotenv_values

from conf.instrument import Instrument, parse

FILE = "collector.toml"
SECRETS_FILE = ".env"


class SettingsError(Exception):
    """A setting or secret that cannot be used; the message is the whole story."""

    def __init__(self, where: str | Path, key: str, what: str, write: str) -> None:
        super().__init__(f"{where}: {key}: {what}: {write}")


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of the TOML file: no defaults here, they stand in default.toml."""


class Universe(_Table):
    kr: list[str]


class Shards(_Table):
    A: list[str]
    B: list[str]


class Paths(_Table):
    data: str
    run: str
    log: str
    ring: str


class ClockTable(_Table):
    start: str
    speed: float


class Calendar(_Table):
    closed: list[date]


class RingTable(_Table):
    orderbook_capacity: int
    tick_capacity: int


class Kis(_Table):
    enabled: bool
    ws_url: str
    rest_url: str
    registrations: int
    register_spacing_ms: int
    customer_type: Literal["P", "B"]


class Kiwoom(_Table):
    enabled: bool
    ws_url: str
    rest_url: str
    registrations: int
    register_chunk: int
    register_spacing_ms: int


class Feed(_Table):
    dead_after_s: float
    silent_after_s: float
    acknowledge_within_s: float
    symbol_silent_after_s: float
    backoff_first_s: float
    backoff_most_s: float
    frame_most_bytes: int


class Quarantine(_Table):
    most_bytes: int


class Writer(_Table):
    watermark_ms: int
    twin_window_s: float
    identity_cum_volume: list[Literal["KRX", "NXT", "UN"]]
    fsync_every_s: float
    grace_s: float
    late_every_s: float
    row_group_rows: int
    segment_most_bytes: int


class Log(_Table):
    level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"]
    rotation: str
    retention: int


class Settings(_Table):
    """All settings of a home; see default.toml for what each means."""

    universe: Universe
    shards: Shards
    paths: Paths
    clock: ClockTable
    sessions: dict[Literal["KRX", "NXT", "UN"], dict[str, str]]
    calendar: Calendar
    ring: RingTable
    kis: Kis
    kiwoom: Kiwoom
    feed: Feed
    quarantine: Quarantine
    writer: Writer
    log: Log

    def instruments(self) -> list[Instrument]:
        """The Korean universe in order of priority."""
        return [parse(text) for text in self.universe.kr]


class Secrets:
    """A broker's key pair; shows nothing of itself."""

    __slots__ = ("app_key", "app_secret")

    def __init__(self, app_key: str, app_secret: str) -> None:
        self.app_key = app_key
        self.app_secret = app_secret

    def __repr__(self) -> str:
        return "Secrets(hidden)"


def load(home: Path) -> Settings:
    """The settings of a home, checked. SettingsError on anything that cannot be used."""
    file = home / FILE
    defaults = tomllib.loads(resources.files("conf").joinpath("default.toml").read_text())
    try:
        own = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            file, "syntax", str(error), "correct that line; `collectorctl init` shows the form"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(file, "file", str(error), "make it a UTF-8 text file that you may read") from None
    _refuse_unknown(file, own, defaults, "")
    try:
        settings = msgspec.convert(_over(defaults, own), Settings)
    except msgspec.ValidationError as error:
        raise _in_words(file, error, defaults) from None
    _check(file, settings)
    return settings


def load_secrets(home: Path, broker: str, environ: Mapping[str, str] = os.environ) -> Secrets:
    """The key pair of `broker` from the environment, else from HOME/.env (mode 0600). SettingsError names the variable."""
    prefix = broker.upper()
    stored = _read_env_file(home / SECRETS_FILE)
    values = []
    for name in (f"{prefix}_APP_KEY", f"{prefix}_APP_SECRET"):
        value = environ.get(name) or stored.get(name)
        if not value:
            raise SettingsError(
                home / SECRETS_FILE, name, "is missing", f"write a line {name}=... there, or set it in the environment"
            )
        if not value.isascii() or any(c.isspace() for c in value):
            raise SettingsError(home / SECRETS_FILE, name, "has blanks or non-ASCII letters", "copy the key again")
        values.append(value)
    return Secrets(*values)


def _read_env_file(file: Path) -> dict[str, str | None]:
    if not file.exists():
        return {}
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(file, "mode", "others than you may read it", f"run: chmod 600 {file}")
    return dotenv_values(file, interpolate=False)


def _over(defaults: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`own` laid over `defaults`, table by table."""
    merged = dict(defaults)
    for key, value in own.items():
        base = defaults.get(key)
        merged[key] = _over(base, value) if isinstance(base, dict) and isinstance(value, dict) else value
    return merged


def _refuse_unknown(file: Path, own: dict[str, Any], known: dict[str, Any], prefix: str) -> None:
    """SettingsError for the first key that default.toml does not have (phases of a session are free)."""
    for key, value in own.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            write = f"did you mean {prefix}{close[0]}?" if close else f"known here: {', '.join(known)}"
            raise SettingsError(file, prefix + key, "unknown setting", write)
        if isinstance(value, dict) and isinstance(known[key], dict) and prefix != "sessions.":
            _refuse_unknown(file, value, known[key], f"{prefix}{key}.")


def _in_words(file: Path, error: msgspec.ValidationError, defaults: dict[str, Any]) -> SettingsError:
    """msgspec's message, `Expected ... - at `$.a.b``, in the form of ours."""
    what, _, path = str(error).partition(" - at `$.")
    key = re.sub(r"\[\.\.\.\]", "", path.rstrip("`"))
    value: Any = defaults
    for part in key.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return SettingsError(file, key, what[:1].lower() + what[1:], f"the default is {_toml(value)}")


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


_AT_LEAST = {
    "ring.orderbook_capacity": 1024,
    "ring.tick_capacity": 1024,
    "kis.registrations": 1,
    "kis.register_spacing_ms": 0,
    "kiwoom.registrations": 1,
    "kiwoom.register_chunk": 1,
    "kiwoom.register_spacing_ms": 0,
    "feed.dead_after_s": 1,
    "feed.silent_after_s": 1,
    "feed.acknowledge_within_s": 0.5,
    "feed.symbol_silent_after_s": 1,
    "feed.backoff_first_s": 0.05,
    "feed.frame_most_bytes": 65536,
    "quarantine.most_bytes": 0,
    "writer.watermark_ms": 0,
    "writer.twin_window_s": 0.1,
    "writer.fsync_every_s": 0,
    "writer.late_every_s": 1,
    "writer.row_group_rows": 1024,
    "writer.segment_most_bytes": 1 << 20,
    "log.retention": 1,
}


def _check(file: Path, settings: Settings) -> None:
    """What types cannot say."""
    for key, least in _AT_LEAST.items():
        table, name = key.split(".")
        value = getattr(getattr(settings, table), name)
        if not value >= least:
            raise SettingsError(file, key, f"{value} is too small", f"write {least} or more")
    _check_instruments(file, settings)
    for name in ("kis", "kiwoom"):
        table = getattr(settings, name)
        for key, schemes in (("ws_url", ("ws://", "wss://")), ("rest_url", ("http://", "https://"))):
            if not getattr(table, key).startswith(schemes):
                raise SettingsError(
                    file, f"{name}.{key}", f"{getattr(table, key)!r} is no such address", f"begin with {schemes[1]}"
                )
    if settings.clock.start:
        try:
            aware = datetime.fromisoformat(settings.clock.start).tzinfo is not None
        except ValueError:
            aware = False
        if not aware:
            raise SettingsError(
                file,
                "clock.start",
                f"{settings.clock.start!r} is no ISO time with offset",
                'e.g. "2026-11-20T08:55:00+09:00"',
            )
        if not settings.clock.speed > 0:
            raise SettingsError(file, "clock.speed", f"{settings.clock.speed} is not forward", "write 1.0 or more")
    elif settings.clock.speed != 1.0:
        raise SettingsError(
            file, "clock.speed", "only a warped clock has a speed", "set clock.start as well, or leave 1.0"
        )
    if settings.writer.grace_s <= settings.writer.twin_window_s:
        raise SettingsError(
            file,
            "writer.grace_s",
            f"{settings.writer.grace_s} leaves no time for the last twins of an hour",
            f"write more than twin_window_s ({settings.writer.twin_window_s})",
        )
    if settings.feed.backoff_most_s < settings.feed.backoff_first_s:
        raise SettingsError(file, "feed.backoff_most_s", "is below backoff_first_s", "write a larger number of seconds")
    for venue, phases in settings.sessions.items():
        for phase, span in phases.items():
            if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-4]):[0-5]\d", span):
                raise SettingsError(
                    file, f"sessions.{venue}.{phase}", f"{span!r} is no span of time", 'e.g. "09:00-15:20"'
                )


def _check_instruments(file: Path, settings: Settings) -> None:
    seen: set[str] = set()
    for text in settings.universe.kr:
        try:
            parse(text)
        except ValueError as error:
            raise SettingsError(file, "universe.kr", "unknown form of symbol", str(error)) from None
        if text in seen:
            raise SettingsError(file, "universe.kr", f"{text} is named twice", "name each instrument once")
        seen.add(text)
    if not seen:
        raise SettingsError(file, "universe.kr", "nothing to collect", 'name instruments, e.g. kr = ["005930"]')
    groups: dict[str, str] = {}
    for group in ("A", "B"):
        for text in getattr(settings.shards, group):
            if text not in seen:
                raise SettingsError(
                    file, f"shards.{group}", f"{text} is not in universe.kr", "add it there or take it out here"
                )
            if text in groups:
                raise SettingsError(
                    file, f"shards.{group}", f"{text} is already in group {groups[text]}", "name it in one group"
                )
            groups[text] = group
