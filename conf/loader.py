"""Settings loader: default.toml, the home's collector.toml over it, secrets from the environment or the home's .env.

    conf/default.toml ──┐
    HOME/collector.toml ┴─> Settings (frozen, typed, checked)        environment ─┐
                                                                     HOME/.env ───┴─> Secrets

Guarantees:
    * A wrong setting is found before anything starts; every error reads `file: key: what is wrong: what to write`.
    * A secret's value is in no message and no repr.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
from dotenv import dotenv_values

from conf.calendar import PHASES, TABLES
from conf.settings import Settings, SettingsError
from conf.text.secret_mask import remember_secrets
from conf.validation import first_violation

SETTINGS_FILE = "collector.toml"
SECRETS_FILE = ".env"


class Secrets:
    """A broker's key pair; its repr shows neither key nor secret."""

    __slots__ = ("app_key", "app_secret")

    def __init__(self, app_key: str, app_secret: str) -> None:
        self.app_key = app_key
        self.app_secret = app_secret

    def __repr__(self) -> str:
        return "Secrets(hidden)"


def load_settings(home: Path) -> Settings:
    """The validated settings of a home. SettingsError for anything that cannot be used."""
    file = home / SETTINGS_FILE
    if not home.is_dir():
        raise SettingsError(
            home, "home", "there is no such directory", "name a home that exists, or make one: collectorctl init"
        )
    defaults = tomllib.loads(resources.files("conf").joinpath("default.toml").read_text())
    try:
        own = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            file, "syntax", str(error), "correct that line; `collectorctl init` shows the form"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(file, "file", str(error), "make it a UTF-8 text file that you may read") from None
    _reject_unknown(file, own, _allowed_keys(defaults, own), "")
    try:
        settings = msgspec.convert(_merge(defaults, own), Settings)
    except msgspec.ValidationError as error:
        raise _format_error(file, error, defaults) from None
    violation = first_violation(settings)
    if violation is not None:
        raise SettingsError(file, *violation)
    return settings


def load_secrets(home: Path, broker: str, environ: Mapping[str, str] = os.environ, number: int = 1) -> Secrets:
    """Key pair `number` (1, 2, ...) of `broker` from the environment, else from HOME/.env (mode 0600).

    From then on the process hides both in all that it logs, keeps or prints. SettingsError names the variable.
    """
    file = home / SECRETS_FILE
    stored = _read_env_file(file)
    values = []
    for name in _key_variables(broker, number):
        value = environ.get(name) or stored.get(name)
        if not value:
            write = f"write a line {name}=... there, or set it in the environment"
            raise SettingsError(file, name, "is missing", write)
        if not value.isascii() or not value.isprintable() or " " in value:
            where = "environment" if environ.get(name) else file
            raise SettingsError(where, name, "has blanks or letters that no key has", "copy the key again")
        values.append(value)
    remember_secrets(*values)
    return Secrets(*values)


class NotifyUrls:
    """URLs of services by the name of their variable, and the one to ping ("" for none); its repr shows none."""

    __slots__ = ("ping", "services")

    def __init__(self, services: dict[str, str], ping: str) -> None:
        self.services = services
        self.ping = ping

    def __repr__(self) -> str:
        return "NotifyUrls(hidden)"


def load_notify_urls(home: Path, environ: Mapping[str, str] = os.environ) -> NotifyUrls:
    """NOTIFY_URL, NOTIFY_URL_2, ... and NOTIFY_PING_URL, from the environment, else from HOME/.env.

    From then on the process hides them in all that it logs, keeps or prints. SettingsError.
    """
    known = _read_env_file(home / SECRETS_FILE) | {name: value for name, value in environ.items() if value}
    urls = {name: value for name, value in sorted(known.items()) if value and _NOTIFY_VARIABLE.fullmatch(name)}
    for name, value in urls.items():
        if not value.isprintable() or " " in value:
            raise SettingsError(home / SECRETS_FILE, name, "has blanks", "write it as one word, blanks as %20")
    remember_secrets(*urls.values())
    ping = urls.pop("NOTIFY_PING_URL", "")
    if ping and not ping.startswith(("http://", "https://")):
        raise SettingsError(home / SECRETS_FILE, "NOTIFY_PING_URL", "is no web address", "write https://HOST/PATH")
    return NotifyUrls(urls, ping)


_NOTIFY_VARIABLE = re.compile(r"NOTIFY_URL(?:_[1-9]\d?)?|NOTIFY_PING_URL")


def count_keys(home: Path, broker: str, environ: Mapping[str, str] = os.environ) -> int:
    """The number of key pairs of `broker`: the first, and 2, 3, ... up to the highest that has a variable. SettingsError."""
    known = _read_env_file(home / SECRETS_FILE) | {name: value for name, value in environ.items() if value}
    numbered = re.compile(rf"{broker.upper()}_APP_(?:KEY|SECRET)_([1-9]\d?)")
    return max([1, *(int(found[1]) for name, value in known.items() if value and (found := numbered.fullmatch(name)))])


def reject_duplicate_keys(home: Path, brokers: Iterable[str], environ: Mapping[str, str] = os.environ) -> None:
    """SettingsError if an app key is configured twice: a vendor allows it one session. Missing keys are skipped."""
    stored = _read_env_file(home / SECRETS_FILE)
    holders: dict[str, str] = {}
    for broker in brokers:
        for number in range(1, count_keys(home, broker, environ) + 1):
            name, _ = _key_variables(broker, number)
            value = environ.get(name) or stored.get(name)
            if value and holders.setdefault(value, name) != name:
                what = f"is the same key as {holders[value]}"
                raise SettingsError(
                    home / SECRETS_FILE, name, what, "one key holds one session: write another, or none"
                )


def _key_variables(broker: str, number: int) -> tuple[str, str]:
    """The variables of a key pair: KIS_APP_KEY and KIS_APP_SECRET, then KIS_APP_KEY_2 and so on."""
    suffix = f"_{number}" if number > 1 else ""
    return f"{broker.upper()}_APP_KEY{suffix}", f"{broker.upper()}_APP_SECRET{suffix}"


def _read_env_file(file: Path) -> dict[str, str | None]:
    try:
        if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise SettingsError(file, "mode", "others than you may read it", f"run: chmod 600 {file}")
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(
            file, "file", error.strerror or "cannot be read", "make it a file that you may read"
        ) from None
    except UnicodeDecodeError:  # its message quotes the file
        raise SettingsError(file, "file", "is not UTF-8 text", "write it again; keys are plain ASCII") from None
    return dotenv_values(stream=StringIO(text), interpolate=False)


def _merge(defaults: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`own` merged over `defaults`, table by table."""
    merged = dict(defaults)
    for key, value in own.items():
        base = defaults.get(key)
        merged[key] = _merge(base, value) if isinstance(base, dict) else value
    return merged


_FREE_KEY_TABLES = {"shards.rate", "calendar.special"}
"""Tables whose keys the user chooses."""


def _allowed_keys(defaults: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Allowed keys: those of default.toml, any phase at any venue, and special days that `own` defines."""
    day = {venue: dict.fromkeys(PHASES, "") for venue in TABLES}
    kinds = own.get("special_day")
    own_kinds = kinds if isinstance(kinds, dict) else ()
    return defaults | {"sessions": day, "special_day": dict.fromkeys([*defaults["special_day"], *own_kinds], day)}


_RENAMED = {
    "feed.backoff_most_s": "feed.backoff_max_s",
    "feed.frame_most_bytes": "feed.frame_max_bytes",
    "fill": "gapfill",
    "health.books_least": "health.min_books",
    **{f"{feed}.registrations": f"{feed}.max_subscriptions" for feed in ("kis", "kiwoom", "us")},
    **{f"{feed}.register_spacing_ms": f"{feed}.subscribe_spacing_ms" for feed in ("kis", "kiwoom", "us")},
    "kiwoom.register_chunk": "kiwoom.subscribe_chunk",
    "quarantine.most_bytes": "quarantine.max_bytes",
    "recover.calls_per_s_most": "recover.max_calls_per_s",
    "shards.A": "shards.kis",
    "shards.B": "shards.kiwoom",
    "watchdog.fill_memory_mb": "watchdog.gapfill_memory_mb",
    "watchdog.leave_s": "watchdog.terminate_timeout_s",
    "watchdog.revive_s": "watchdog.fatal_restart_s",
    "writer.segment_most_bytes": "writer.segment_max_bytes",
}
"""Former keys and their present names."""


def _reject_unknown(file: Path, own: dict[str, Any], known: dict[str, Any], prefix: str) -> None:
    """SettingsError for the first key that default.toml does not have, or that is no table where it has one."""
    for key, value in own.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            if prefix + key in _RENAMED:
                raise SettingsError(file, prefix + key, "unknown setting", f"it is now {_RENAMED[prefix + key]}")
            write = f"did you mean {prefix}{close[0]}?" if close else f"known here: {', '.join(known)}"
            raise SettingsError(file, prefix + key, "unknown setting", write)
        if isinstance(known[key], dict):
            if not isinstance(value, dict):
                write = f"begin it with a line [{prefix}{key}]"
                raise SettingsError(file, prefix + key, f"is a table, not {_format_toml(value)}", write)
            free_keys = dict.fromkeys(value, "") if prefix + key in _FREE_KEY_TABLES else {}
            _reject_unknown(file, value, free_keys | known[key], f"{prefix}{key}.")
        elif prefix.startswith(("sessions.", "special_day.")) and not isinstance(value, str):
            raise SettingsError(file, prefix + key, f"{_format_toml(value)} is no span of time", 'e.g. "09:00-15:20"')
        elif prefix == "calendar.special." and not isinstance(value, str):
            raise SettingsError(file, prefix + key, f"{_format_toml(value)} is no kind of day", 'e.g. "exam_day"')


def _format_error(file: Path, error: msgspec.ValidationError, defaults: dict[str, Any]) -> SettingsError:
    """The SettingsError of msgspec's message, `Expected ... - at `$.a.b[0]``."""
    what, _, path = str(error).partition(" - at `$.")
    key = path.rstrip("`")
    table, name = re.sub(r"\[[^]]*\]", "", key).split(".")
    choices = _allowed_values(get_type_hints(get_type_hints(Settings)[table])[name])
    if choices:
        write = f"one of {', '.join(map(_format_toml, choices))}"
    elif "date" in what:
        write = 'a date, e.g. "2026-12-25"'
    else:
        write = f"the default is {_format_toml(defaults[table][name])}"
    return SettingsError(file, key, what[:1].lower() + what[1:].replace("`array`", "`list`"), write)


def _allowed_values(hint: Any) -> tuple[str, ...]:
    """The allowed strings of a setting's type, () if any string is allowed: of Literal["P", "B"] or of a list of them."""
    inner = get_args(hint)
    return inner if all(isinstance(value, str) for value in inner) else _allowed_values(inner[0])


def _format_toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
