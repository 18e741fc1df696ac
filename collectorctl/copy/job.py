"""Copy of a certified day, read back and compared, with a manifest by which anybody can check it.

    data/kr/*/date=D, evidence ──> TARGET/data/...                     a home: `verify --date D` in it needs nothing else
                                   TARGET/manifest/kr/D.incomplete.json  while it is made: what may be there
                                   TARGET/manifest/kr/D.json             complete: verdicts, hashes
                                   TARGET/manifest/kr/D.sha256           the same for `sha256sum -c`, in TARGET

Guarantees:
    * A day that has a manifest is complete, and every file of it was read back and had the hash of its source.
    * A copy that was interrupted is resumed: what is there and equal is not sent again.
    * A day that has changed in the home replaces its copy; what no copy of that day wrote is neither replaced nor removed, but
      named.
    * Nothing in the home is changed; a day whose files change meanwhile gets no manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import msgspec

from collectorctl.copy.target import Target
from collectorctl.export.certified import NotHandedOn, verify_stored
from collectorctl.export.manifest import FileEntry, describe_file
from collectorctl.recover.store.evidence import FILE_NAME as EVIDENCE_FILE
from conf.home import Home
from conf.market import KR
from writer.catalog import read_file_state

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


class DayCopy(NamedTuple):
    """A day at its place: how many files were sent, of how many."""

    manifest: CopyManifest
    sent: int
    is_new: bool


def copy_day(home: Home, day: date, target: Target, on_file: Callable[[int, int], None] = lambda *_: None) -> DayCopy:
    """Copy a day. NotHandedOn, PartitionWriteError, OSError. `on_file`: called with how many files of how many are done."""
    states = _read_states(home, day)
    verified = verify_stored(home, day)
    files = [_describe(path, home) for path in _find_sources(home, day)]
    manifest = CopyManifest(
        SCHEMA_VERSION,
        version("collectorctl"),
        KR.name,
        str(day),
        all(one.passed for one in verified.values()),
        [CopyVerdict(str(name), one.now.certificate) for name, one in sorted(verified.items())],
        files,
    )
    complete, incomplete, checksums = (f"{MANIFESTS}/{day}.{kind}" for kind in ("json", "incomplete.json", "sha256"))
    old = read_manifest(target, complete)
    there = set(_find_copied(target, day))
    if old == manifest and there == {entry.path for entry in files}:
        return DayCopy(manifest, 0, False)
    begun = read_manifest(target, incomplete)
    ours = {entry.path for one in (old, begun) if one for entry in one.files}
    wanted = {entry.path for entry in files}
    if foreign := sorted(there - ours - wanted):
        raise NotHandedOn(
            f"{day}: {foreign[0]} is there and of no copy ({len(foreign)} such files): name another place, or remove them"
        )
    may_be_there = [*files, *(FileEntry(path, 0, "") for path in sorted(ours - wanted))]
    target.write(incomplete, _encode(msgspec.structs.replace(manifest, files=may_be_there)))
    for name in (complete, checksums):
        target.remove(name)
    sent = 0
    for done, entry in enumerate(files):
        on_file(done, len(files))
        if not target.is_equal(entry):
            target.put(home.data / entry.path.removeprefix("data/"), entry.path)
            sent += 1
            if not target.is_equal(entry):
                raise NotHandedOn(
                    f"{day}: {entry.path} is not what was sent: copy again; check that place, or the disk of the home, if it "
                    "happens twice"
                )
    for path in sorted(ours - wanted):
        target.remove(path)
    on_file(len(files), len(files))
    if _read_states(home, day) != states:
        raise NotHandedOn(f"{day}: files of that day changed meanwhile: copy again")
    lines = "".join(f"{entry.sha256}  {entry.path}\n" for entry in files)
    target.write(checksums, lines.encode())
    target.write(complete, _encode(manifest))
    target.remove(incomplete)
    return DayCopy(manifest, sent, True)


def check_copy(target: Target, day: str) -> list[str]:
    """What of a copied day is not as its manifest says. NotHandedOn: it has none; OSError."""
    manifest = read_manifest(target, name_manifest(day))
    if manifest is None:
        raise NotHandedOn("has no manifest: the copy is incomplete: copy again")
    wanted = {entry.path for entry in manifest.files}
    more = [f"{path}: is in no manifest" for path in _find_copied(target, day) if path not in wanted]
    return [f"{entry.path}: missing or changed" for entry in manifest.files if not target.is_equal(entry)] + more


def name_manifest(day: date | str) -> str:
    """Where the manifest of a complete day lies."""
    return f"{MANIFESTS}/{day}.json"


def find_copied_days(target: Target) -> list[str]:
    """The days that have a manifest, or the beginning of one."""
    return sorted(
        {path.rpartition("/")[2].partition(".")[0] for path in target.find(MANIFESTS) if path.endswith(".json")}
    )


def read_manifest(target: Target, path: str) -> CopyManifest | None:
    """A manifest; None if there is none that can be read. OSError."""
    content = target.read(path)
    try:
        return None if content is None else msgspec.json.decode(content, type=CopyManifest)
    except msgspec.MsgspecError:
        return None


def _find_sources(home: Home, day: date) -> Iterator[Path]:
    """The files of a day: rows, certificates, bars, and the evidence that certificates are verified by."""
    yield from sorted((home.data / KR.name).glob(f"*/date={day}/**/*.parquet"))
    yield from sorted((home.data / "recover" / f"date={day}").glob(f"*/{EVIDENCE_FILE}"))


def _find_copied(target: Target, day: date | str) -> Iterator[str]:
    """The files at the place of the copy that would be taken for the day's."""
    for directory in (*target.entries(f"data/{KR.name}"), "data/recover"):
        yield from (path for path in target.find(f"{directory}/date={day}") if not path.endswith(".copying"))


def _read_states(home: Home, day: date) -> list[tuple[str, int, int, int]]:
    return [read_file_state(path, home.data) for path in _find_sources(home, day)]


def _describe(path: Path, home: Home) -> FileEntry:
    entry = describe_file(path, home.data)
    entry.path = f"data/{entry.path}"
    return entry


def _encode(manifest: CopyManifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1)
