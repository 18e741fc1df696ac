"""Settings loader: default.toml, the home's collector.toml over it, secrets from the environment or the home's .env.

    conf/default.toml ──┐
    HOME/collector.toml ┴─> Settings (frozen, typed, checked)        environment ─┐
                                                                     HOME/.env ───┴─> Secrets

Guarantees:
    * Wrong settings are found before anything starts, all in one run; each fault reads `file: key: what is wrong: what to write`.
    * A file that begins with a byte order mark is read like any other.
    * A secret's value is in no message and no repr.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from dotenv import dotenv_values

from conf.calendar import PHASES, TABLES
from conf.settings import Fault, Settings, SettingsError
from conf.text.language import Language, choose_language
from conf.text.secret_mask import remember_secrets
from conf.text.toml_syntax import Mistake, find_mistakes
from conf.validation import find_violations

SETTINGS_FILE = "collector.toml"
SECRETS_FILE = ".env"
RELAY_TOKEN = "RELAY_TOKEN"


class Secrets:
    """A broker's key pair; its repr shows neither key nor secret."""

    __slots__ = ("app_key", "app_secret")

    def __init__(self, app_key: str, app_secret: str) -> None:
        self.app_key = app_key
        self.app_secret = app_secret

    def __repr__(self) -> str:
        return "Secrets(hidden)"


def load_settings(home: Path) -> Settings:
    """The validated settings of a home. SettingsError with everything that cannot be used."""
    settings, faults = read_settings(home)
    if faults or settings is None:
        raise SettingsError(*faults)
    return settings


def read_settings(home: Path) -> tuple[Settings | None, list[Fault]]:
    """The settings of a home, with the default for what cannot be used, and all faults; None if nothing can be judged."""
    file = home / SETTINGS_FILE
    if not home.is_dir():
        return None, [Fault(home, "home", "no_home")]
    defaults = tomllib.loads(resources.files("conf").joinpath("default.toml").read_text())
    try:
        text = file.read_text(encoding="utf-8-sig") if file.exists() else ""
    except UnicodeDecodeError:
        return None, [Fault(file, "file", "not_utf8")]
    except OSError as error:
        return None, [Fault(file, "file", "unreadable", reason=error.strerror or "cannot be read")]
    own, mistakes = find_mistakes(text, {name for table in defaults.values() for name in table})
    faults = [_describe_mistake(file, mistake) for mistake in mistakes]
    if own is None:
        return None, faults
    known = _allowed_keys(defaults, own)
    faults += _take_out_unknown(file, own, known, "", known)
    merged = _merge(defaults, own)
    faults += (unusable := list(_take_out_wrong_types(file, merged, defaults)))
    settings = msgspec.convert(merged, Settings)
    wrong = tuple(fault.key for fault in unusable if fault.code != "not_str")
    violated: set[str] = set()
    for violation in find_violations(settings):
        keys = {violation.key, *violation.compared}
        if not keys & violated and not any(_concerns(key, wrong) for key in keys):
            violated.add(violation.key)
            faults.append(Fault(file, violation.key, violation.code, **violation.values))
            _take_out(merged, violation.key, defaults)
    return msgspec.convert(merged, Settings), faults


def choose_home_language(home: Path) -> Language:
    """The language of a home, even of one whose other settings cannot be used."""
    settings, _ = read_settings(home)
    return choose_language(settings.ui.language if settings is not None else "")


def load_secrets(home: Path, broker: str, environ: Mapping[str, str] = os.environ, number: int = 1) -> Secrets:
    """Key pair `number` (1, 2, ...) of `broker` from the environment, else from HOME/.env (mode 0600).

    From then on the process hides both in all that it logs, keeps or prints. SettingsError names the variable.
    """
    file = home / SECRETS_FILE
    stored = _read_env_file(file)
    values, faults = [], []
    for name in _key_variables(broker, number):
        value = environ.get(name) or stored.get(name) or ""
        if not value:
            faults.append(Fault(file, name, "secret_missing", name=name))
        elif not value.isascii() or not value.isprintable() or " " in value:
            faults.append(Fault("environment" if environ.get(name) else file, name, "secret_blanks"))
        values.append(value)
    if faults:
        raise SettingsError(*faults)
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
            raise SettingsError(Fault(home / SECRETS_FILE, name, "url_blanks"))
    remember_secrets(*urls.values())
    ping = urls.pop("NOTIFY_PING_URL", "")
    if ping and not ping.startswith(("http://", "https://")):
        raise SettingsError(Fault(home / SECRETS_FILE, "NOTIFY_PING_URL", "not_web_address"))
    return NotifyUrls(urls, ping)


def load_relay_token(home: Path, environ: Mapping[str, str] = os.environ) -> str:
    """RELAY_TOKEN from the environment, else from HOME/.env; "" if there is none. Hidden from then on. SettingsError."""
    file = home / SECRETS_FILE
    token = environ.get(RELAY_TOKEN) or _read_env_file(file).get(RELAY_TOKEN) or ""
    if not token.isascii() or not token.isprintable() or " " in token:
        raise SettingsError(Fault(file, RELAY_TOKEN, "secret_blanks"))
    if token:
        remember_secrets(token)
    return token


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
                raise SettingsError(Fault(home / SECRETS_FILE, name, "secret_twice", other=holders[value]))


def _key_variables(broker: str, number: int) -> tuple[str, str]:
    """The variables of a key pair: KIS_APP_KEY and KIS_APP_SECRET, then KIS_APP_KEY_2 and so on."""
    suffix = f"_{number}" if number > 1 else ""
    return f"{broker.upper()}_APP_KEY{suffix}", f"{broker.upper()}_APP_SECRET{suffix}"


def _read_env_file(file: Path) -> dict[str, str | None]:
    try:
        if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise SettingsError(Fault(file, "mode", "secret_mode", file=file))
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(Fault(file, "file", "secret_file", reason=error.strerror or "cannot be read")) from None
    except UnicodeDecodeError:  # its message quotes the file
        raise SettingsError(Fault(file, "file", "secret_not_utf8")) from None
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


_SECRET_NAME = re.compile(r"(\w+_)?(app_?)?(key|secret)(_\d+)?|\w*(token|passw|account)\w*", re.IGNORECASE)


def _describe_mistake(file: Path, mistake: Mistake) -> Fault:
    shown = [str(line) for line in mistake.lines[:_MAX_LINES]] + ["..."] * (len(mistake.lines) > _MAX_LINES)
    values = {"line": ", ".join(shown), "text": mistake.text, "meant": mistake.meant, "reason": mistake.reason}
    return Fault(file, "syntax", mistake.code, **values)


_MAX_LINES = 5


def _take_out_unknown(
    file: Path, own: dict[str, Any], known: dict[str, Any], prefix: str, root: dict[str, Any]
) -> Iterator[Fault]:
    """Take out what default.toml does not have, or has as a table where this is none; a fault for each."""
    for key, value in list(own.items()):
        path = prefix + key
        fault = None
        if key not in known:
            fault = _explain_unknown(file, path, key, known, root)
        elif isinstance(known[key], dict) and not isinstance(value, dict):
            fault = Fault(file, path, "not_table", found=_format_toml(value), table=path)
        elif isinstance(known[key], dict):
            free_keys = dict.fromkeys(value, "") if path in _FREE_KEY_TABLES else {}
            yield from _take_out_unknown(file, value, free_keys | known[key], f"{path}.", root)
        elif prefix.startswith(("sessions.", "special_day.")) and not isinstance(value, str):
            fault = Fault(file, path, "not_span", found=_format_toml(value))
        elif prefix == "calendar.special." and not isinstance(value, str):
            fault = Fault(file, path, "not_kind", found=_format_toml(value))
        if fault is not None:
            del own[key]
            yield fault


def _explain_unknown(file: Path, path: str, key: str, known: dict[str, Any], root: dict[str, Any]) -> Fault:
    """The fault of an unknown name: a former one, a secret, one of another table, one that is spelt alike, or none of these."""
    if path in _RENAMED:
        return Fault(file, path, "renamed", name=_RENAMED[path])
    if _SECRET_NAME.fullmatch(key):
        return Fault(file, path, "unknown_secret")
    tables = [f"[{table}]" for table, rows in root.items() if key in rows and f"{table}.{key}" != path]
    if tables:
        return Fault(file, path, "unknown_elsewhere", tables=", ".join(tables))
    if close := difflib.get_close_matches(key, known, 1):
        return Fault(file, path, "unknown_close", close=path.removesuffix(key) + close[0])
    return Fault(file, path, "unknown", known=", ".join(known))


def _take_out_wrong_types(file: Path, merged: dict[str, Any], defaults: dict[str, Any]) -> Iterator[Fault]:
    """Put the default for what has the wrong type, and text for a number that needed only quotes; a fault for each."""
    for table, kinds in _read_types().items():
        for name, kind in kinds.items():
            found = list(_find_wrong_types(file, f"{table}.{name}", merged[table][name], kind, defaults[table][name]))
            yield from found
            if any(fault.code != "not_str" for fault in found):
                merged[table] = merged[table] | {name: defaults[table][name]}
            elif found:
                merged[table] = merged[table] | {name: _as_text(f"{table}.{name}", merged[table][name])}


@cache
def _read_types() -> dict[str, dict[str, Any]]:
    """The type of each setting, by table."""
    tables = {name: hint for name, hint in get_type_hints(Settings).items() if isinstance(hint, type)}
    return {name: get_type_hints(table) for name, table in tables.items()}


def _find_wrong_types(file: Path, key: str, value: Any, hint: Any, default: Any) -> Iterator[Fault]:
    """A fault for a value that is not of this type, or one for each such item of a list or table."""
    try:
        msgspec.convert(value, hint)
        return
    except msgspec.ValidationError:
        kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is list and isinstance(value, list):
        for number, item in enumerate(value):
            yield from _find_wrong_types(file, f"{key}[{number}]", item, inner[0], default)
    elif kind is dict and isinstance(value, dict):
        for name, item in value.items():
            yield from _find_wrong_types(file, f"{key}.{name}", item, inner[1], 1)
    elif kind is Literal:
        yield Fault(file, key, "not_choice", found=_format_toml(value), choices=", ".join(map(_format_toml, inner)))
    elif kind is str and isinstance(value, list | dict):
        yield Fault(file, key, "not_text", found=_format_toml(value), example=_format_toml(default))
    elif kind is str:
        yield Fault(file, key, "not_str", found=_format_toml(value), example=_format_toml(_as_text(key, value)))
    else:
        is_one = kind is list and isinstance(value, str) and inner == (str,)
        example = _format_toml([value] if is_one else default)
        yield Fault(file, key, f"not_{kind.__name__}", found=_format_toml(value), example=example)


def _as_text(key: str, value: Any) -> Any:
    """What was meant by a value without quotes: of a code the six digits; of a list item by item."""
    if isinstance(value, list):
        return [_as_text(key, item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and key.startswith(("universe.", "shards.")):
        return f"{value:06d}"
    return value if isinstance(value, str) else _format_toml(value)


def _concerns(key: str, wrong: tuple[str, ...]) -> bool:
    """Whether a key is one of these, a part of one, or has one as a part."""
    parts = re.split(r"[.\[]", key)
    return any(all(a == b for a, b in zip(parts, re.split(r"[.\[]", other), strict=False)) for other in wrong)


def _take_out(merged: dict[str, Any], key: str, defaults: dict[str, Any]) -> None:
    """Put the default for a setting, or for the table in which the user chooses the keys."""
    table, _, name = key.partition(".")
    name = re.split(r"[.\[]", name)[0]
    if name in defaults[table]:
        merged[table] = merged[table] | {name: defaults[table][name]}
    else:
        merged[table] = defaults[table]


def _format_toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
