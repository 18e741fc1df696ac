"""Manifest of an exported day: what is in it, how sure it is, and what it was made of.

    DIR/DATE/manifest.json

Guarantees:
    * Equal files of a home give an equal manifest; it has a hash of every file beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"


class FileEntry(msgspec.Struct):
    """A file by its path in the directory; `rows` None: it is no table."""

    path: str
    bytes: int
    sha256: str
    rows: int | None = None


class Verdict(msgspec.Struct):
    """The certificate of an instrument, None for none.

    `holds`: whether the files still bear it out; else `differs` names the fields that say something else now.
    """

    instrument: str
    certificate: str | None
    holds: bool
    made_at: str
    official_volume: int | None
    missing_shares: int | None
    reasons: list[str]
    differs: list[str]
    holes: int
    """Spans in session in which no feed was subscribed to its books; they are in the table of gaps."""
    books: int
    ticks: int


class Manifest(msgspec.Struct):
    """An exported day.

    `is_whole`: every instrument is PROVEN or RECONCILED, and its certificate holds; its books are no part of that.
    """

    schema: int
    collectorctl: str
    format: str
    date: str
    is_whole: bool
    instruments: list[Verdict]
    files: list[FileEntry]
    sources: list[FileEntry]
    """Of the home's data directory."""


def describe_file(path: Path, directory: Path, rows: int | None = None) -> FileEntry:
    """The entry of a file below `directory`. OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(path.relative_to(directory).as_posix(), path.stat().st_size, digest, rows)


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of an exported day; None if there is none that can be read. OSError."""
    try:
        return msgspec.json.decode((directory / MANIFEST_FILE).read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        return None


def find_damaged(directory: Path, entries: Iterable[FileEntry]) -> list[str]:
    """Paths of the entries that are missing or have another content."""
    return [
        entry.path
        for entry in entries
        if not (path := directory / entry.path).is_file() or describe_file(path, directory).sha256 != entry.sha256
    ]
