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
from typing import NamedTuple

import msgspec

from collectorctl.copy.manifest import (
    MANIFESTS,
    CopyManifest,
    describe_day,
    describe_source,
    encode,
    encode_checksums,
    find_sources,
    name_manifest,
    read_source_states,
)
from collectorctl.copy.target import Target
from collectorctl.export.certified import NotHandedOn, verify_stored
from collectorctl.export.manifest import FileEntry
from conf.home import Home
from conf.market import KR


class DayCopy(NamedTuple):
    """A day at its place: how many files were sent, of how many."""

    manifest: CopyManifest
    sent: int
    is_new: bool


def copy_day(home: Home, day: date, target: Target, on_file: Callable[[int, int], None] = lambda *_: None) -> DayCopy:
    """Copy a day. NotHandedOn, PartitionWriteError, OSError. `on_file`: called with how many files of how many are done."""
    states = read_source_states(home, day)
    verified = verify_stored(home, day)
    manifest = describe_day(home, day, verified)
    files = manifest.files
    complete, incomplete, checksums = (name_manifest(day, kind) for kind in ("json", "incomplete.json", "sha256"))
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
    target.write(incomplete, encode(msgspec.structs.replace(manifest, files=may_be_there)))
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
    if read_source_states(home, day) != states:
        raise NotHandedOn(f"{day}: files of that day changed meanwhile: copy again")
    target.write(checksums, encode_checksums(manifest))
    target.write(complete, encode(manifest))
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


def find_uncopied(home: Home, day: date, target: Target) -> list[str]:
    """Files of a day that no copy there has as they are, and faults of the copy: both are read. OSError."""
    manifest = read_manifest(target, name_manifest(day))
    if manifest is None:
        return ["no manifest"]
    known = {entry.path: entry.sha256 for entry in manifest.files}
    own = [describe_source(path, home) for path in find_sources(home, day)]
    changed = [f"{entry.path} is another there" for entry in own if known.get(entry.path) != entry.sha256]
    return changed or check_copy(target, str(day))


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


def _find_copied(target: Target, day: date | str) -> Iterator[str]:
    """The files at the place of the copy that would be taken for the day's."""
    for directory in (*target.entries(f"data/{KR.name}"), "data/recover"):
        yield from (path for path in target.find(f"{directory}/date={day}") if not path.endswith(".copying"))
