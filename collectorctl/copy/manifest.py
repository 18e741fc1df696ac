"""Manifest of a day as a home or a copy has it: certificate by instrument, bytes and hash of each file.

    PLACE/manifest/kr/D.json      PLACE/manifest/kr/D.sha256     the same for `sha256sum -c`, in PLACE

Guarantees:
    * Equal files give an equal manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path

import msgspec

from collectorctl.export.manifest import FileEntry, describe_file
from collectorctl.recover.store.evidence import FILE_NAME as EVIDENCE_FILE
from collectorctl.recover.verify import VerifiedCertificate
from conf.home import Home
from conf.instrument import Instrument
from conf.market import KR
from writer.catalog import FileState, read_file_state

SCHEMA_VERSION = 1
MANIFESTS = f"manifest/{KR.name}"


class CopyVerdict(msgspec.Struct):
    """The certificate of an instrument."""

    instrument: str
    certificate: str


class CopyManifest(msgspec.Struct):
    """A copied day; paths of `files` are relative to the place of the copy."""

    schema: int
    collectorctl: str
    market: str
    date: str
    is_whole: bool
    instruments: list[CopyVerdict]
    files: list[FileEntry]


def describe_day(home: Home, day: date, verified: Mapping[Instrument, VerifiedCertificate]) -> CopyManifest:
    """The manifest of a day as it is in a home. OSError."""
    return CopyManifest(
        SCHEMA_VERSION,
        version("collectorctl"),
        KR.name,
        str(day),
        all(one.passed for one in verified.values()),
        [CopyVerdict(str(name), one.now.certificate) for name, one in sorted(verified.items())],
        [describe_source(path, home) for path in find_sources(home, day)],
    )


def find_sources(home: Home, day: date) -> Iterator[Path]:
    """The files of a day: rows, certificates, bars, and the evidence that certificates are verified by."""
    yield from sorted((home.data / KR.name).glob(f"*/date={day}/**/*.parquet"))
    yield from sorted((home.data / "recover" / f"date={day}").glob(f"*/{EVIDENCE_FILE}"))


def read_source_states(home: Home, day: date) -> list[FileState]:
    """Which they are and when they changed, to see whether any did meanwhile."""
    return [read_file_state(path, home.data) for path in find_sources(home, day)]


def describe_source(path: Path, home: Home) -> FileEntry:
    """The entry of one of them."""
    entry = describe_file(path, home.data)
    entry.path = f"data/{entry.path}"
    return entry


def name_manifest(day: date | str, kind: str = "json") -> str:
    """Where the manifest of a complete day lies."""
    return f"{MANIFESTS}/{day}.{kind}"


def encode(manifest: msgspec.Struct) -> bytes:
    """As it is stored."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1)


def encode_checksums(manifest: CopyManifest) -> bytes:
    """As `sha256sum -c` reads it."""
    return "".join(f"{entry.sha256}  {entry.path}\n" for entry in manifest.files).encode()
