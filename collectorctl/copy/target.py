"""Files at the place of a copy: a directory, or whatever fsspec has a name for.

Guarantees:
    * A file of a local directory appears as a whole and is on the disk; elsewhere that is the store's own promise.
    * `is_equal` reads the file back.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from collectorctl.export.manifest import FileEntry
from writer import durable_io

BLOCK_BYTES = 1 << 20


class Target:
    """The place of a copy; paths are relative to it."""

    def __init__(self, url: str) -> None:
        """ValueError, ImportError: there is no such kind of place here."""
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = PurePosixPath(root)
        self.name = str(self._root)
        """Without what a URL may hold beside the path."""
        self.is_local = isinstance(self._fs, LocalFileSystem)

    def read(self, path: str) -> bytes | None:
        """The content of a file; None if there is none. OSError."""
        try:
            return self._fs.cat_file(self._at(path))
        except FileNotFoundError:
            return None

    def entries(self, directory: str) -> list[str]:
        """What a directory holds, directories and files."""
        self._fs.invalidate_cache()
        with suppress(FileNotFoundError):
            return sorted(map(self._to_relative, self._fs.ls(self._at(directory), detail=False)))
        return []

    def find(self, directory: str) -> list[str]:
        """Every file below a directory."""
        self._fs.invalidate_cache()
        with suppress(FileNotFoundError):
            return sorted(map(self._to_relative, self._fs.find(self._at(directory))))
        return []

    def is_equal(self, entry: FileEntry) -> bool:
        """Whether the file is there with that content."""
        digest, size = hashlib.sha256(), 0
        try:
            with self._fs.open(self._at(entry.path), "rb") as file:
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
                    size += len(block)
        except FileNotFoundError:
            return False
        return (size, digest.hexdigest()) == (entry.bytes, entry.sha256)

    def put(self, source: Path, path: str) -> None:
        """Copy a file to its place, over what is there. OSError."""
        if not self.is_local:
            self._fs.makedirs(str(PurePosixPath(self._at(path)).parent), exist_ok=True)
            self._fs.put_file(str(source), self._at(path))
            return
        with source.open("rb") as read:
            self._write_local(path, read)

    def write(self, path: str, content: bytes) -> None:
        """Put a small file in place. OSError."""
        if not self.is_local:
            self._fs.makedirs(str(PurePosixPath(self._at(path)).parent), exist_ok=True)
            self._fs.pipe_file(self._at(path), content)
            return
        self._write_local(path, BytesIO(content))

    def remove(self, path: str) -> None:
        """Remove a file if it exists. OSError."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._at(path))

    def _write_local(self, path: str, content: IO[bytes]) -> None:
        target = Path(self._at(path))
        durable_io.create_directory(target.parent)
        temporary = target.with_name(f".{target.name}.copying")
        with os.fdopen(durable_io.open_temporary(temporary), "wb") as file:
            shutil.copyfileobj(content, file, BLOCK_BYTES)
            file.flush()
            durable_io.sync(file.fileno())
        durable_io.rename(temporary, target)

    def _to_relative(self, path: str) -> str:
        return PurePosixPath("/", path).relative_to(PurePosixPath("/", self._root)).as_posix()

    def _at(self, path: str) -> str:
        return str(self._root / path)
