"""Page store: fetched pages of one instrument's day on disk, so that a killed run is resumed.

    data/recover/date=2026-11-20/005930/chart/000001.json.gz  000002.json.gz ...   end.json
                                        └ one sequence a folder                    └ marks the sequence complete

    a page   {"asked": key, "next": key, "sha256": of content, "content": the response as received}

Guarantees:
    * A page appears complete or not at all; page n+1 was requested with the key of page n.
    * A page that does not fit (hash, key, repeated content) ends the valid part of the sequence.
"""

from __future__ import annotations

import gzip
import shutil
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from brokers.history import PageResponse
from conf.instrument import Instrument
from writer import durable_io

END_FILE = "end.json"


class PageError(Exception):
    """A page that does not continue the sequence; the message has page and reason."""


class _StoredPage(msgspec.Struct):
    request_key: str = msgspec.field(name="asked")
    next_key: str = msgspec.field(name="next")
    sha256: str
    content: str


class PageSequence:
    """One paged question: its pages in order, oldest call first."""

    def __init__(self, directory: Path) -> None:
        """Read the stored pages; only those that fit together are kept."""
        self.directory = directory
        self.next_key = ""
        self.end_record: dict[str, Any] | None = None
        self.count = 0
        self._hashes: set[str] = set()
        for page in self._read_valid_pages():
            self._track_page(page)
        for path in directory.glob("*"):
            if path.name not in {END_FILE, *(f"{number:06}.json.gz" for number in range(1, self.count + 1))}:
                path.unlink()
        end = directory / END_FILE
        if end.exists():
            record = _decode_object(end.read_bytes())
            if record is not None and record.get("pages") == self.count:
                self.end_record = record
            else:
                durable_io.remove(end)

    def __iter__(self) -> Iterator[bytes]:
        """The contents, in the order of the calls."""
        for number in range(1, self.count + 1):
            yield _read_page(self._page_path(number)).content.encode()

    def add(self, response: PageResponse) -> None:
        """Store the response to `next_key`. PageError for a repeated page, or a key that leads back to one."""
        page = _StoredPage(
            self.next_key,
            response.next_key,
            sha256(response.content).hexdigest(),
            response.content.decode("utf-8", "replace"),
        )
        if page.sha256 in self._hashes:
            raise PageError(
                f"{self.directory}: page {self.count + 1} is one that came before: the list does not advance"
            )
        if page.next_key and page.next_key == page.request_key:
            raise PageError(
                f"{self.directory}: page {self.count + 1} names itself as the next: the list does not advance"
            )
        data = gzip.compress(msgspec.json.encode(page), 1, mtime=0)
        durable_io.write_changed(self._page_path(self.count + 1), data)
        self._track_page(page)

    def mark_complete(self, **fields: Any) -> None:
        """Mark the sequence complete."""
        self.end_record = {"pages": self.count, **fields}
        durable_io.write_changed(self.directory / END_FILE, msgspec.json.encode(self.end_record))

    def clear(self) -> None:
        """Forget all of it."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.next_key, self.end_record, self.count, self._hashes = "", None, 0, set()

    def _track_page(self, page: _StoredPage) -> None:
        self.count += 1
        self.next_key = page.next_key
        self._hashes.add(page.sha256)

    def _read_valid_pages(self) -> Iterator[_StoredPage]:
        key, number, seen = "", 1, set[str]()
        while self._page_path(number).exists():
            try:
                page = _read_page(self._page_path(number))
            except (OSError, EOFError, zlib.error, msgspec.MsgspecError):
                return
            hash_matches = sha256(page.content.encode()).hexdigest() == page.sha256
            if (
                not hash_matches
                or page.request_key != key
                or page.sha256 in seen
                or (number > 1 and not page.request_key)
            ):
                return
            yield page
            seen.add(page.sha256)
            key, number = page.next_key, number + 1

    def _page_path(self, number: int) -> Path:
        return self.directory / f"{number:06}.json.gz"


def count_stored_pages(directory: Path) -> int:
    """How many pages are stored, as their names say: nothing is opened, and none removed."""
    return len(list(directory.glob("[0-9]*.json.gz")))


def recovery_folder(data: Path, date: str, instrument: Instrument) -> Path:
    """The recovery directory of an instrument's day; `date` as YYYY-MM-DD."""
    return data / "recover" / f"date={date}" / str(instrument).replace("/", "_")


def _read_page(path: Path) -> _StoredPage:
    return msgspec.json.decode(gzip.decompress(path.read_bytes()), type=_StoredPage)


def _decode_object(data: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None
