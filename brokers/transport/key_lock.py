"""Lock of a broker's key: one home of the host has the session of a key, any other is refused in words.

    home A, key K ──flock──> RUNTIME/collectorctl/FINGERPRINT.lock <──refused── home B, key K

Guarantees:
    * The name of a lock is a fingerprint of key and server; the file has the home that holds it, and its process.
    * A lock ends with its process, however that ends; one whose file was removed is taken again before the next connection.
    * Where no lock can be had (no directory, no room), a warning is logged and collecting goes on.

Not handled here:
    * Homes of other hosts, of other users, and of units with a /tmp of their own, unless paths.key_locks names one directory
      for all of them.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from loguru import logger

from brokers.allocation.credentials import key_counts
from brokers.errors import KeyInUse
from conf.files.lock import LockHeld, is_file_of, lock_file
from conf.home import Home
from conf.loader import SECRETS_FILE, load_secrets

RETRY_S = 5.0
PROBE_S = 0.3
"""A command that looks whether a key is in use holds its lock for an instant."""


class KeyLock:
    """The lock of one key of this home."""

    def __init__(self, home: Home, broker: str, number: int) -> None:
        """SettingsError if the secrets of the key are missing."""
        self._home = home
        self._name = f"{broker}: key {number}"
        self._path = _lock_path(home, broker, number)
        self._fd: int | None = None

    def acquire(self) -> None:
        """Hold the lock from now on. KeyInUse if another home holds it."""
        if self._fd is not None and is_file_of(self._path, self._fd):
            return
        self.release()
        try:
            self._home.create_key_lock_directory()
            self._fd = self._lock()
        except OSError as error:
            logger.warning("{}: cannot be locked against other homes of this host: {}", self._name, error)

    def _lock(self) -> int:
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                lock_file(fd, self._path, timeout_s=PROBE_S)
            except LockHeld:
                holder = _read_holder(fd)
                os.close(fd)
                raise KeyInUse(_describe(self._name, holder, self._home), RETRY_S) from None
            if is_file_of(self._path, fd):  # else its last holder removed it before the lock was ours
                break
            os.close(fd)
        with suppress(OSError):  # a full disk: the lock is valid, only its holder's name is missing
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()} {self._home.root}\n".encode(errors="surrogateescape"), 0)
        return fd

    def release(self) -> None:
        """Let go, if it is held."""
        fd, self._fd = self._fd, None
        if fd is not None:
            if is_file_of(self._path, fd):
                self._path.unlink()
            os.close(fd)


def find_keys_in_use(home: Home) -> list[str]:
    """A sentence for each key of this home that another home of the host has in use; nothing is created. SettingsError."""
    found = []
    for broker, keys in key_counts(home).items():
        for number in range(1, keys + 1):
            with suppress(OSError):
                holder = _find_other_holder(home, _lock_path(home, broker, number))
                if holder is not None:
                    found.append(_describe(f"{broker}: key {number}", holder, home))
    return found


def _find_other_holder(home: Home, path: Path) -> tuple[str, str] | None:
    """Process and home of a lock that another home holds. OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _read_holder(fd)
        return None if holder[1] == os.fspath(home.root) else holder
    finally:
        os.close(fd)
    return None


def _lock_path(home: Home, broker: str, number: int) -> Path:
    server = urlsplit(getattr(home.settings, broker).ws_url).netloc
    key = load_secrets(home.root, broker, number=number).app_key
    return home.key_lock_directory / f"{sha256(f'{server} {key}'.encode()).hexdigest()[:24]}.lock"


def _read_holder(fd: int) -> tuple[str, str]:
    """Process and home, as the holder of a lock wrote them."""
    process, _, root = os.pread(fd, 8192, 0).decode(errors="surrogateescape").rstrip("\n").partition(" ")
    return process, root


def _describe(name: str, holder: tuple[str, str], home: Home) -> str:
    process, root = holder
    other, stop = "another home of this host", "stop that home"
    if root:  # a full disk leaves the file empty
        other, stop = f"the home {root} (process {process})", f"run `collectorctl --home {root} stop`"
    return f"{name} is in use by {other}: a key has one session: {stop}, or write another key into {home.root / SECRETS_FILE}"
