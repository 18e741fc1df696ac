"""Channels: the services and the ping URL of a home, each called in a thread of its own.

    .env: NOTIFY_URL, NOTIFY_URL_2 ... ──> Channel (apprise)      NOTIFY_PING_URL ──> Channel (HTTP GET)

Guarantees:
    * A call that fails or hangs delays nobody but its own channel, which has one call at a time.
    * After a failure a channel pauses, up to BACKOFF_MAX_S; the reason is logged each time, without the URL.
    * apprise is imported only where a service is configured.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

import requests
from loguru import logger

from brokers.transport.backoff import Backoff
from conf.home import Home
from conf.loader import SECRETS_FILE, NotifyUrls, load_notify_urls
from conf.settings import Fault, SettingsError
from conf.text.secret_mask import hide_secrets

BACKOFF_FIRST_S, BACKOFF_MAX_S = 2.0, 300.0
PING_TIMEOUT_S = 10.0


class Message(NamedTuple):
    """What one call sends: `kind` as apprise has it, `number`: the last line in it."""

    kind: str
    title: str
    text: str
    number: int = 0


class DeliveryError(Exception):
    """A service did not take a message."""


class Channel:
    """One receiver: `name` for people, `fingerprint` for the ledger."""

    def __init__(self, name: str, fingerprint: str, call: Callable[[Message], None]) -> None:
        self.name, self.fingerprint = name, fingerprint
        self._call = call
        self._backoff = Backoff(BACKOFF_FIRST_S, BACKOFF_MAX_S)
        self._thread: threading.Thread | None = None
        self._failure: str | None = None
        self._message: Message | None = None
        self._ready_s = 0.0
        self.failing_since_s: float | None = None
        """Since when the call that goes on, or failed, has (monotonic); None while it has not."""

    def send_now(self, message: Message) -> None:
        """Send and wait. DeliveryError with the reason."""
        try:
            self._call(message)
        except Exception as error:  # noqa: BLE001 whatever a service's module raises is a failure of that service
            reason = str(error) if isinstance(error, DeliveryError) else type(error).__name__
            raise DeliveryError(hide_secrets(reason)) from None

    @property
    def is_ready(self) -> bool:
        """Whether it may be called now."""
        return self._thread is None and time.monotonic() >= self._ready_s

    def start(self, message: Message) -> None:
        """Send in the background."""
        self._message, self._failure = message, None
        self._thread = threading.Thread(target=self._work, args=(message,), name=self.name, daemon=True)
        if self.failing_since_s is None:
            self.failing_since_s = time.monotonic()
        self._thread.start()

    def poll(self) -> Message | None:
        """The message that has been delivered since the last look, if one has."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread = None
        if self._failure is None:
            self._backoff.reset()
            self.failing_since_s = None
            return self._message
        pause_s = self._backoff.next_s()
        self._ready_s = time.monotonic() + pause_s
        logger.warning("{}: not delivered: {}; tried again in {:.0f} s", self.name, self._failure, pause_s)
        return None

    def _work(self, message: Message) -> None:
        try:
            self.send_now(message)
        except DeliveryError as error:
            self._failure = str(error)


def open_channels(home: Home) -> tuple[list[Channel], Channel | None]:
    """The services, and the channel of the ping if there is one. SettingsError for a URL, or the lack of any."""
    urls = load_notify_urls(home.root)
    if not urls.services and not urls.ping:
        raise SettingsError(Fault(home.root / SECRETS_FILE, "NOTIFY_URL", "no_service"))
    services = [_open_service(home, name, url) for name, url in urls.services.items()]
    return services, _open_ping(urls)


def _open_service(home: Home, name: str, url: str) -> Channel:
    try:
        import apprise
    except ImportError:
        raise SettingsError(Fault(home.root / SECRETS_FILE, name, "no_apprise")) from None
    _reasons.install()
    # with a timeout of its own the library would make the calls in threads that all services share, and that delay the end of
    # the process
    asset = apprise.AppriseAsset(app_id="collectorctl", async_mode=False, storage_mode="memory", service_timeout=0)
    service = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if service is None:
        raise SettingsError(Fault(home.root / SECRETS_FILE, name, "not_service"))
    sender = apprise.Apprise(asset=asset)
    sender.add(service)

    def call(message: Message) -> None:
        _reasons.clear()
        if not sender.notify(message.text, message.title, message.kind, body_format="text"):
            raise DeliveryError(_reasons.last())

    return Channel(f"{name} ({service.service_name})", sha256(url.encode()).hexdigest()[:12], call)


def _open_ping(urls: NotifyUrls) -> Channel | None:
    if not urls.ping:
        return None

    def call(_: Message) -> None:
        response = requests.get(urls.ping, timeout=PING_TIMEOUT_S)
        if not response.ok:
            raise DeliveryError(f"HTTP {response.status_code}")

    return Channel("NOTIFY_PING_URL", "", call)


class _Reasons(logging.Handler):
    """The last warning of apprise in each thread; it logs nothing anywhere else."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._of = threading.local()

    def install(self) -> None:
        """Become the library's only log."""
        log = logging.getLogger("apprise")
        log.handlers, log.propagate = [self], False
        log.setLevel(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning."""
        self._of.reason = record.getMessage()

    def clear(self) -> None:
        """Forget this thread's."""
        self._of.reason = ""

    def last(self) -> str:
        """This thread's last warning."""
        return getattr(self._of, "reason", "") or "refused without a reason"


_reasons = _Reasons()
