"""Home of a simulator: settings that point at it, and invented keys.

    collectorctl simulate --home NEW ──> NEW/.env  NEW/collector.toml, then what `init` makes

Guarantees:
    * Nothing that exists is changed. collector.toml comes whole, after .env: there is no home with a part of it.
    * No two homes have the same keys: two of one host may run side by side.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

from brokers.simulator.addresses import HOST, SERVED_FEEDS
from collectorctl.init import comment_out_settings, create_home
from conf.files.replacement import PRIVATE, replace_file
from conf.home import reject_unusable_path
from conf.loader import SECRETS_FILE, SETTINGS_FILE
from conf.settings import Settings

Addresses = Mapping[str, Mapping[str, str]]

SECRET_NAMES = tuple(f"{feed.upper()}_APP_{part}" for feed in SERVED_FEEDS for part in ("KEY", "SECRET"))


def create_simulated_home(root: Path, addresses: Addresses) -> list[tuple[Path, bool]]:
    """Make a home at these addresses; each path, and whether it was made now. SettingsError, OSError."""
    reject_unusable_path(root.resolve())
    root.mkdir(parents=True, exist_ok=True)
    made = dict[Path, bool]()
    env, settings = root / SECRETS_FILE, root / SETTINGS_FILE
    if not env.exists():
        lines = "".join(f"{name}=simulated-{secrets.token_hex(16)}\n" for name in SECRET_NAMES)
        replace_file(env, lines.encode(), PRIVATE)
        made[env] = True
    if not settings.exists():
        manual = resources.files("conf").joinpath("default.toml").read_text(encoding="utf-8")
        replace_file(settings, insert_addresses(comment_out_settings(manual), addresses).encode())
        made[settings] = True
    return list((dict(create_home(root)) | made).items())


def insert_addresses(settings: str, addresses: Addresses) -> str:
    """The settings with these addresses."""
    for feed, urls in addresses.items():
        lines = "".join(f'{name} = "{url}"\n' for name, url in urls.items())
        table = f"[{feed}]\n"
        settings = settings.replace(table, table + lines) if table in settings else f"{settings}{table}{lines}"
    return settings


def find_simulated_ports(settings: Settings) -> dict[str, int]:
    """The ports of this host that a home's addresses name, by feed."""
    found = {}
    for feed in SERVED_FEEDS:
        with suppress(ValueError):
            url = urlsplit(getattr(settings, feed).rest_url)
            if url.hostname == HOST and url.port:
                found[feed] = url.port
    return found
