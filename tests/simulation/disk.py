"""The disk of a simulation: real files, and faults at chosen effects of writer/durable_io.

    kill before | half | after      the process ends at this effect; nothing it would do afterwards reaches a file
    error                           one effect fails; a failed fsync drops the pages that were not durable
    full, refuse                    every effect that needs room, or every one, fails until it is over
    power                           what was appended and not synced is gone, in part or all of it

Guarantees:
    * Equal plans meet equal effects: they are counted, not timed.
    * What an unwinding process would clean up, and a killed one would not, is put back (`restore_after_kill`).
"""

from __future__ import annotations

import errno
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import get_ident
from typing import Any

from writer import durable_io
from writer.journal.segment import SUFFIX

EFFECTS = sorted(name for name, _ in inspect.getmembers(durable_io, inspect.isfunction) if not name.startswith("_"))
NEED_ROOM = ("append", "create", "open_temporary")


class SimulatedDeath(BaseException):
    """The process under test ended at this point."""


class SimulatedDisk:
    """Effects of one home's writer."""

    def __init__(self, data: Path, note: Callable[[str], None]) -> None:
        self._data = data
        self._note = note
        self._armed: tuple[str, int] | None = None
        self._is_full = self._is_refusing = False
        self._is_dead = False
        self._kept: list[tuple[Path, Path]] = []
        self._durable_bytes: dict[int, int] = {}

    def arm(self, kind: str, skip: int) -> None:
        """Let `kind` happen at the effect after the next `skip` ones."""
        self._armed = (kind, skip)

    def disarm(self) -> None:
        """Nothing more happens."""
        self._armed, self._is_full, self._is_refusing = None, False, False

    def fill(self, is_full: bool) -> None:
        """Whether there is room."""
        self._is_full = is_full

    def refuse(self, is_refusing: bool) -> None:
        """Whether nothing works."""
        self._is_refusing = is_refusing

    def effect(self, name: str, real: Callable[..., Any], *arguments: Any) -> Any:
        """One effect, or what the plan has in its place."""
        if self._is_dead:
            raise SimulatedDeath(name)
        self._note(f"disk {name} {_describe(arguments, self._data)}")
        kind = self._take()
        if kind == "error" or self._is_refusing or (self._is_full and name in NEED_ROOM):
            self._note(f"disk {name} fails")
            if name == "sync":
                os.ftruncate(arguments[0], self._durable_bytes.get(os.fstat(arguments[0]).st_ino, 0))
            raise OSError(errno.EIO if kind == "error" else errno.ENOSPC, "simulated", str(self._data))
        if kind in ("before", "half"):
            if kind == "half" and name == "append":
                fd, at, data = arguments
                os.ftruncate(fd, at)
                os.write(fd, bytes(data)[: len(data) // 2])
            self._die(name)
        result = real(*arguments)
        if name == "sync":
            status = os.fstat(arguments[0])
            self._durable_bytes[status.st_ino] = status.st_size
        elif name in ("create", "open_temporary"):
            self._durable_bytes[os.fstat(result).st_ino] = 0
        elif name == "truncate":
            status = arguments[0].stat()
            self._durable_bytes[status.st_ino] = status.st_size
        if kind == "after":
            self._die(name)
        return result

    def _take(self) -> str:
        if self._armed is None:
            return ""
        kind, skip = self._armed
        self._armed = (kind, skip - 1) if skip else None
        return "" if skip else kind

    def _die(self, name: str) -> None:
        self._note(f"disk killed at {name}")
        self._is_dead = True
        for number, path in enumerate(sorted(self._data.rglob("*.tmp"))):
            kept = self._data.parent / f"kept-{number}"
            kept.unlink(missing_ok=True)
            os.link(path, kept)
            self._kept.append((kept, path))
        raise SimulatedDeath(name)

    def cut_power(self, random: Random) -> None:
        """The machine goes off: journals end where they were synced, or a little behind."""
        for path in sorted((self._data / "journal").rglob(f"*{SUFFIX}")):
            size, synced = path.stat().st_size, self._durable_bytes.get(path.stat().st_ino, 0)
            left = synced + random.randrange(size - synced + 1) if size > synced else size
            os.truncate(path, left)
            self._note(f"disk loses {size - left} bytes of {path.relative_to(self._data)}")

    def flip_bit(self, random: Random) -> str:
        """One bit of one journal changes; the dataset it is in, empty if there is none."""
        paths = [path for path in sorted((self._data / "journal").rglob(f"*{SUFFIX}")) if path.stat().st_size]
        if not paths:
            return ""
        path = random.choice(paths)
        data = bytearray(path.read_bytes())
        bit = random.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        self._note(f"disk bit {bit} of {path.relative_to(self._data)} flips")
        return path.parent.name

    def restore_after_kill(self) -> None:
        """The process is gone: what it had half written is there, what follows belongs to the next."""
        for kept, path in self._kept:
            kept.rename(path)
        self._kept.clear()
        self._is_dead = False


def _describe(arguments: tuple[Any, ...], data: Path) -> str:
    """Names and sizes, nothing that differs between two runs."""
    words = []
    for argument in arguments:
        if isinstance(argument, Path):
            name = str(argument.relative_to(data)) if argument.is_relative_to(data) else argument.name
            words.append(name.replace(f".{os.getpid()}.tmp", ".PID.tmp"))
        elif isinstance(argument, (bytes, memoryview)):
            words.append(str(len(argument)))
    return " ".join(words)


@contextmanager
def installed(disk: SimulatedDisk) -> Iterator[None]:
    """Every effect of the writer in this thread goes through `disk`."""
    real, thread = {name: getattr(durable_io, name) for name in EFFECTS}, get_ident()

    def through(name: str) -> Callable[..., Any]:
        def effect(*arguments: Any) -> Any:
            return disk.effect(name, real[name], *arguments) if get_ident() == thread else real[name](*arguments)

        return effect

    for name in EFFECTS:
        setattr(durable_io, name, through(name))
    try:
        yield
    finally:
        for name in EFFECTS:
            setattr(durable_io, name, real[name])
