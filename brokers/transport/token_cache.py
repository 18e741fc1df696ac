"""Access-token cache on disk, shared by all processes of a home.

    get ──> run/token/BROKER.json valid for ten more minutes? ──yes──> its token
                 └─no──> issue (one process at a time) ──> temporary file, rename

Guarantees:
    * A token file is 0600 in a 0700 directory; one process at a time issues a token.
    * A file that others may have read or created is not used.
    * A command that only looks forgets no token that a process of the home may be using (`keep_tokens`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import sha256
from pathlib import Path

import msgspec
from loguru import logger

from brokers.errors import ServiceUnavailable
from conf.clock import SECOND_NS, Clock
from conf.files.lock import LockHeld, lock_file
from conf.files.replacement import PRIVATE, replace_file
from conf.text.secret_mask import remember_secrets

RENEW_BEFORE_NS = 600 * SECOND_NS

LOCK_TIMEOUT_S = 30.0
"""Longest wait for another process of the home to get a token; a request takes some seconds, or ends after fifteen."""

_keeps_tokens = ContextVar("keeps_tokens", default=False)


@contextmanager
def keep_tokens() -> Iterator[None]:
    """Within the block a refused token stays stored, and stays refused."""
    restored = _keeps_tokens.set(True)
    try:
        yield
    finally:
        _keeps_tokens.reset(restored)


TokenIssuer = Callable[[], tuple[str, int]]
"""Requests a token: its text, and its expiry in ns since 1970 UTC. RestError."""


class AccessToken:
    """The access token of one key, as sessions and REST calls use it."""

    def __init__(self, path: Path, owner: str, clock: Clock, issue: TokenIssuer) -> None:
        """`owner` identifies key and host; only its fingerprint is stored."""
        self._file = TokenFile(path, owner)
        self._clock = clock
        self._issue = issue
        self._last_token = ""

    def get(self) -> str:
        """The token; RestError."""
        self._last_token = self._file.get(self._clock.now_ns(), self._issue)
        return self._last_token

    def invalidate(self) -> None:
        """Request a new token next time, unless tokens are kept."""
        if not _keeps_tokens.get():
            self._file.invalidate(self._last_token)


class Token(msgspec.Struct):
    """An access token on disk; `owner` is the fingerprint of its key."""

    text: str
    expires_ns: int
    owner: str


class TokenFile:
    """A broker's token, shared by all processes of a home."""

    def __init__(self, path: Path, owner: str) -> None:
        """`owner` identifies key and host; only its fingerprint is stored."""
        self.path = path
        self.owner = sha256(owner.encode()).hexdigest()[:16]

    def get(self, now_ns: int, issue: TokenIssuer) -> str:
        """The token; newly issued (text, expires_ns) unless a stored one is valid for ten more minutes."""
        with self._locked():
            token = self._read()
            if token is None or token.expires_ns - now_ns < RENEW_BEFORE_NS:
                text, expires_ns = issue()
                token = Token(text, expires_ns, self.owner)
                try:
                    self._write(token)
                except OSError as error:  # a full disk: the token is valid, only not stored
                    logger.warning("{}: cannot store the token: {}", self.path, error)
            remember_secrets(token.text)
            return token.text

    def invalidate(self, text: str) -> None:
        """Forget this token, unless another process has renewed it meanwhile."""
        with self._locked():
            token = self._read()
            if token is not None and token.text == text:
                self.path.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of all processes of the home. ServiceUnavailable: not to be had."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.parent.chmod(0o700)
            fd = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ServiceUnavailable(f"cannot lock the token file: {error}") from None
        try:
            try:
                lock_file(fd, self.path.with_suffix(".lock"), timeout_s=LOCK_TIMEOUT_S)
            except LockHeld as error:
                raise ServiceUnavailable(f"{error}, or wait until it has its token") from None
            yield
        finally:
            os.close(fd)

    def _read(self) -> Token | None:
        """The stored token if it is of this key; one that others may have read or created is not used."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None  # never issued
        except OSError as error:
            logger.warning("{}: cannot read the stored token, requesting a new one: {}", self.path, error.strerror)
            return None
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                logger.warning("{}: other users have access (must be mode 0600), requesting a new token", self.path)
                return None
            try:
                token = msgspec.json.decode(file.read(), type=Token)
            except msgspec.MsgspecError:
                return None  # a torn file of a power cut: a new one costs one call
        return token if token.owner == self.owner else None

    def _write(self, token: Token) -> None:
        replace_file(self.path, msgspec.json.encode(token), PRIVATE)
