"""Manifest of a day as a home or a copy has it: certificate by instrument, bytes and hash of each file.

    PLACE/manifest/MARKET/D.json      PLACE/manifest/MARKET/D.sha256     the same for `sha256sum -c`, in PLACE

Of a US date the rows of two sessions are there: of its own, and of the day market's next one, which begins in the evening.

Guarantees:
    * Equal files give an equal manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import msgspec

from collectorctl.export.manifest import FileEntry, describe_file
from collectorctl.recover.store.evidence import FILE_NAME as EVIDENCE_FILE
from collectorctl.recover.us_job import PAGES_FOLDER
from collectorctl.recover.verify import VerifiedCertificate
from conf.home import Home
from conf.instrument import Instrument
from conf.market import KR, US, Market
from writer.catalog import FileState, read_file_state

SCHEMA_VERSION = 1
MANIFESTS = "manifest"
_EVIDENCE = {KR.name: f"*/{EVIDENCE_FILE}", US.name: f"*/{PAGES_FOLDER}/*"}
"""What the certificates of a market are verified by, below data/recover/date=D."""


class CopyVerdict(msgspec.Struct, omit_defaults=True):
    """The certificate of an instrument; `session`: the day of it, where that is not the date of the manifest."""

    instrument: str
    certificate: str
    session: str = ""


class CopyManifest(msgspec.Struct):
    """A copied day; paths of `files` are relative to the place of the copy."""

    schema: int
    collectorctl: str
    market: str
    date: str
    is_whole: bool
    instruments: list[CopyVerdict]
    files: list[FileEntry]


def describe_day(
    home: Home, day: date, verified: Mapping[date, Mapping[Instrument, VerifiedCertificate]], market: Market = KR
) -> CopyManifest:
    """The manifest of a day as it is in a home; `verified`: by the day of the session. OSError."""
    found = [(session, name, one) for session, ones in verified.items() for name, one in sorted(ones.items())]
    return CopyManifest(
        SCHEMA_VERSION,
        version("collectorctl"),
        market.name,
        str(day),
        all(one.passed for _, _, one in found),
        [CopyVerdict(str(name), one.now.certificate, "" if at == day else str(at)) for at, name, one in found],
        [describe_source(path, home) for path in find_sources(home, day, market)],
    )


def find_sources(home: Home, day: date, market: Market = KR) -> Iterator[Path]:
    """The files of a day: rows, certificates, bars, and the evidence that certificates are verified by."""
    yield from sorted((home.data / market.name).glob(f"*/date={day}/**/*.parquet"))
    yield from sorted((home.data / "recover" / f"date={day}").glob(_EVIDENCE[market.name]))


def is_of_another_market(path: str, market: Market) -> bool:
    """Whether a file below data/recover is the evidence of another market's day."""
    return any(PurePosixPath(path).match(pattern) for name, pattern in _EVIDENCE.items() if name != market.name)


def read_source_states(home: Home, day: date, market: Market = KR) -> list[FileState]:
    """Which they are and when they changed, to see whether any did meanwhile."""
    return [read_file_state(path, home.data) for path in find_sources(home, day, market)]


def describe_source(path: Path, home: Home) -> FileEntry:
    """The entry of one of them."""
    entry = describe_file(path, home.data)
    entry.path = f"data/{entry.path}"
    return entry


def name_manifest(day: date, kind: str = "json", market: Market = KR) -> str:
    """Where the manifest of a complete day lies."""
    return f"{MANIFESTS}/{market.name}/{day}.{kind}"


def encode(manifest: msgspec.Struct) -> bytes:
    """As it is stored."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1)


def encode_checksums(manifest: CopyManifest) -> bytes:
    """As `sha256sum -c` reads it."""
    return "".join(f"{entry.sha256}  {entry.path}\n" for entry in manifest.files).encode()
