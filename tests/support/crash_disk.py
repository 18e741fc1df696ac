"""A disk behind writer/durable_io.py that can lose its power: what was not synced may be there, or not, in any combination.

    durable_io ──system calls──> CrashDisk ──> real files below `root`
                                    `- at each call: the trees that a power cut could leave

A model of what POSIX promises, not of one file system: the content of a file is durable up to its last fsync, a name in a directory
up to the last fsync of that directory, and what is younger is lost, kept, torn or zeroed; names are lost one by one.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from writer import durable_io

Tree = dict[str, bytes | None]
"""Path below the root -> content; None for a directory."""

MAX_ALL_COMBINATIONS = 4
"""So many pending names are combined in every way; of more, none, all, each alone and all but each."""


class _File:
    """A file by its inode, with its durable content; held open, so that a removed one can still be read."""

    def __init__(self, path: str, durable: bytes) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.durable = durable
        self.is_distrusted = False
        """An fsync failed: the kernel may have dropped its pages, and calls the next fsync a success."""

    def __del__(self) -> None:
        os.close(self.fd)

    @property
    def content(self) -> bytes:
        return os.pread(self.fd, os.fstat(self.fd).st_size, 0)


class _Change(NamedTuple):
    """A change of names in a directory that is not durable yet: `removed` goes, `added` leads to `target` (None: a directory)."""

    directory: str
    removed: str | None
    added: str | None
    target: _File | None

    def apply(self, names: dict[str, _File | None]) -> None:
        if self.removed is not None:
            names.pop(self.removed, None)
        if self.added is not None:
            names[self.added] = self.target


class CrashDisk:
    """Stands in for `os` in writer/durable_io.py; `on_effect` is called before each call that changes something.

    What it raises is what becomes of the call: an OSError, or the end of the process. A file whose fsync failed is never durable.
    """

    def __init__(self, root: Path, on_effect: Callable[[str, Path], None] = lambda name, path: None) -> None:
        self.root = root.resolve()
        self._on_effect = on_effect
        self._files: dict[int, _File] = {}
        self._durable: dict[str, _File | None] = {}
        self._pending: list[_Change] = []
        for path in sorted(self.root.rglob("*")):
            self._durable[str(path)] = self._file_at(str(path), path.read_bytes()) if path.is_file() else None

    @contextmanager
    def installed(self) -> Iterator[CrashDisk]:
        """Every effect of the writer goes through here."""
        durable_io._durable_directories.clear()
        durable_io.os = self  # type: ignore[assignment]
        try:
            yield self
        finally:
            durable_io.os = os

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _file_at(self, path: str, durable: bytes = b"") -> _File:
        number = Path(path).stat().st_ino
        if number not in self._files:
            self._files[number] = _File(path, durable)
        return self._files[number]

    def _is_mine(self, path: object) -> bool:
        return Path(str(path)).is_relative_to(self.root)

    def _begin(self, name: str, path: object) -> None:
        if self._is_mine(path):
            self._on_effect(name, Path(str(path)))

    def _change(self, removed: object, added: object, target: _File | None) -> None:
        path = str(added if added is not None else removed)
        if self._is_mine(path):
            self._pending.append(
                _Change(
                    str(Path(path).parent),
                    None if removed is None else str(removed),
                    None if added is None else str(added),
                    target,
                )
            )

    # the system calls

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        creates = bool(flags & os.O_CREAT) and not Path(path).exists()
        if creates or flags & os.O_TRUNC:
            self._begin("open", path)
        fd = os.open(path, flags, mode)
        if creates and self._is_mine(path):
            self._change(None, path, self._file_at(str(path)))
        return fd

    def write(self, fd: int, data: Any) -> int:
        self._begin("write", _path_of(fd))
        return os.write(fd, data)

    def ftruncate(self, fd: int, size: int) -> None:
        self._begin("ftruncate", _path_of(fd))
        os.ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        path = _path_of(fd)
        file = None if stat.S_ISDIR(os.fstat(fd).st_mode) or not self._is_mine(path) else self._file_at(path)
        try:
            self._begin("fsync", path)
        except OSError:
            if file is not None:
                file.is_distrusted = True
            raise
        os.fsync(fd)
        if file is not None:
            file.durable = file.durable if file.is_distrusted else file.content
            return
        for change in self._pending:
            if change.directory == path:
                change.apply(self._durable)
        self._pending = [change for change in self._pending if change.directory != path]

    def rename(self, source: Any, target: Any) -> None:
        self._begin("rename", target)
        Path(source).rename(target)
        self._change(source, target, self._file_at(str(target)))

    def link(self, source: Any, target: Any) -> None:
        self._begin("link", target)
        os.link(source, target)
        self._change(None, target, self._file_at(str(source)))

    def unlink(self, path: Any) -> None:
        self._begin("unlink", path)
        Path(path).unlink()
        self._change(path, None, None)

    def mkdir(self, path: Any) -> None:
        self._begin("mkdir", path)
        Path(path).mkdir()
        self._change(None, path, None)

    # what a power cut may leave

    def possible_trees(self) -> Iterator[Tree]:
        """Each tree that may be found after a power cut now."""
        for chosen in _combine(len(self._pending)):
            names = dict(self._durable)
            for number, change in enumerate(self._pending):
                if number in chosen:
                    change.apply(names)
            for choose in (_lost, _kept, _torn, _zeroed):
                yield {
                    path.removeprefix(f"{self.root}/"): None if file is None else choose(file.durable, file.content)
                    for path, file in names.items()
                    if self._is_reachable(path, names)
                }

    def _is_reachable(self, path: str, names: dict[str, _File | None]) -> bool:
        parents = itertools.takewhile(lambda parent: parent != self.root, Path(path).parents)
        return all(str(parent) in names for parent in parents)


def _path_of(fd: int) -> str:
    return str(Path(f"/proc/self/fd/{fd}").readlink())


def _combine(count: int) -> Iterator[set[int]]:
    everything = set(range(count))
    if count <= MAX_ALL_COMBINATIONS:
        yield from (set(some) for length in range(count + 1) for some in itertools.combinations(everything, length))
        return
    yield from (set(), everything)
    for one in everything:
        yield from ({one}, everything - {one})


def _lost(durable: bytes, content: bytes) -> bytes:
    return durable


def _kept(durable: bytes, content: bytes) -> bytes:
    return content


def _torn(durable: bytes, content: bytes) -> bytes:
    """Half of what came since."""
    return content[: (len(durable) + len(content)) // 2] if content.startswith(durable) else durable


def _zeroed(durable: bytes, content: bytes) -> bytes:
    """As long as it was, without its data."""
    return durable.ljust(len(content), b"\0") if content.startswith(durable) else durable


def write_tree(tree: Tree, root: Path) -> None:
    """Make a tree real."""
    for name, content in sorted(tree.items()):
        path = root / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
