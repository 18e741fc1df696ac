"""The page ledger: what was fetched of one instrument's day, page by page, so that a run goes on where the last one was killed.

    data/recover/date=2026-11-20/005930/chart/000001.json.gz  000002.json.gz ...   end.json
                                        └ one chain a folder ┘                     └ says that the chain is whole

    a page   {"asked": key, "next": key, "sha256": of content, "content": the answer as it came}

Promises: a page appears whole or not at all; page n+1 was asked for with the key that page n gave; a page that does not fit (its
hash, its key, a repeated content) ends what is believed of the chain.
Leaves to others: what is in a page (brokers/*/quotes.py), when a chain is whole (fetch.py).
"""

from __future__ import annotations

import gzip
import os
import shutil
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from brokers.history import Reply
from conf.instrument import Instrument
from writer import durable_io

END = "end.json"


class PageError(Exception):
    """A page that does not carry the chain on; the message says which and why."""


class _Kept(msgspec.Struct):
    asked: str
    next: str
    sha256: str
    content: str


class Chain:
    """One paged question: its pages in order, oldest call first."""

    def __init__(self, directory: Path) -> None:
        """Read what lies there; only pages that fit together are kept."""
        self.directory = directory
        self.next_key = ""
        self.ended: dict[str, Any] | None = None
        self.count = 0
        self._hashes: set[str] = set()
        for page in self._whole():
            self._take(page)
        for path in directory.glob("*"):
            if path.name not in {END, *(f"{number:06}.json.gz" for number in range(1, self.count + 1))}:
                path.unlink()
        end = directory / END
        if end.exists():
            told = _json(end.read_bytes())
            if told is not None and told.get("pages") == self.count:
                self.ended = told
            else:
                durable_io.remove(end)

    def __iter__(self) -> Iterator[bytes]:
        """The contents, in the order of the calls."""
        for number in range(1, self.count + 1):
            yield _read(self._path(number)).content.encode()

    def add(self, reply: Reply) -> None:
        """Keep the answer to `next_key`. PageError when it is one we have, or leads back to one."""
        page = _Kept(
            self.next_key, reply.next_key, sha256(reply.content).hexdigest(), reply.content.decode("utf-8", "replace")
        )
        if page.sha256 in self._hashes:
            raise PageError(
                f"{self.directory}: page {self.count + 1} is one that came before: the list does not advance"
            )
        if page.next and page.next == page.asked:
            raise PageError(
                f"{self.directory}: page {self.count + 1} names itself as the next: the list does not advance"
            )
        self.directory.mkdir(parents=True, exist_ok=True)
        data = gzip.compress(msgspec.json.encode(page), 1, mtime=0)
        put(self._path(self.count + 1), data)
        self._take(page)

    def end(self, **said: Any) -> None:
        """The chain is whole."""
        self.ended = {"pages": self.count, **said}
        put(self.directory / END, msgspec.json.encode(self.ended))

    def clear(self) -> None:
        """Forget all of it."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.next_key, self.ended, self.count, self._hashes = "", None, 0, set()

    def _take(self, page: _Kept) -> None:
        self.count += 1
        self.next_key = page.next
        self._hashes.add(page.sha256)

    def _whole(self) -> Iterator[_Kept]:
        key, number, seen = "", 1, set[str]()
        while self._path(number).exists():
            try:
                page = _read(self._path(number))
            except (OSError, EOFError, zlib.error, msgspec.MsgspecError):
                return
            right = sha256(page.content.encode()).hexdigest() == page.sha256
            if not right or page.asked != key or page.sha256 in seen or (number > 1 and not page.asked):
                return
            yield page
            seen.add(page.sha256)
            key, number = page.next, number + 1

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:06}.json.gz"


def folder(data: Path, date: str, instrument: Instrument) -> Path:
    """Where an instrument's day of recovery lies; `date` as YYYY-MM-DD."""
    return data / "recover" / f"date={date}" / str(instrument).replace("/", "_")


def put(path: Path, data: bytes) -> None:
    """Write a small file whole and durable; nothing is touched when it has that content already."""
    if path.exists() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    with os.fdopen(durable_io.write_aside(aside), "wb") as file:
        file.write(data)
        file.flush()
        durable_io.sync(file.fileno())
    durable_io.rename(aside, path)


def _read(path: Path) -> _Kept:
    return msgspec.json.decode(gzip.decompress(path.read_bytes()), type=_Kept)


def _json(data: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None
