"""Copy of a certified day, read back and compared, with a manifest by which anybody can check it.

    data/MARKET/*/date=D, evidence ──> TARGET/data/...                         a home: `verify --date D` in it needs nothing else
                                       TARGET/manifest/MARKET/D.incomplete.json  while it is made: what may be there
                                       TARGET/manifest/MARKET/D.json             complete: verdicts, hashes
                                       TARGET/manifest/MARKET/D.sha256           the same for `sha256sum -c`, in TARGET

Guarantees:
    * A day that has a manifest is complete, and every file of it was read back and had the hash of its source.
    * A copy that was interrupted is resumed: what is there and equal is not sent again.
    * A day that has changed in the home replaces its copy; what no copy of that day wrote is neither replaced nor removed, but
      named.
    * Nothing in the home is changed; a day whose files change meanwhile gets no manifest.
"""

from __future__ import annotations

import re
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
    is_of_another_market,
    name_manifest,
    read_source_states,
)
from collectorctl.copy.target import Target
from collectorctl.export.certified import NotHandedOn, verify_stored
from collectorctl.export.manifest import FileEntry
from conf.home import Home
from conf.market import KR, MARKETS, Market, MarketDate

_MANIFEST = re.compile(rf"{MANIFESTS}/({'|'.join(MARKETS)})/(\d{{4}}-\d{{2}}-\d{{2}})\..*json")


class DayCopy(NamedTuple):
    """A day at its place: how many files were sent, of how many."""

    manifest: CopyManifest
    sent: int
    is_new: bool


def copy_day(
    home: Home,
    day: date,
    target: Target,
    on_file: Callable[[int, int], None] = lambda *_: None,
    market: Market = KR,
) -> DayCopy:
    """Copy a day. NotHandedOn, PartitionWriteError, OSError. `on_file`: called with how many files of how many are done."""
    states = read_source_states(home, day, market)
    verified = verify_stored(home, day, market)
    manifest = describe_day(home, day, verified, market)
    files = manifest.files
    kinds = "json", "incomplete.json", "sha256"
    complete, incomplete, checksums = (name_manifest(day, kind, market) for kind in kinds)
    old = read_manifest(target, complete)
    there = set(_find_copied(target, day, market))
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
    if read_source_states(home, day, market) != states:
        raise NotHandedOn(f"{day}: files of that day changed meanwhile: copy again")
    target.write(checksums, encode_checksums(manifest))
    target.write(complete, encode(manifest))
    target.remove(incomplete)
    return DayCopy(manifest, sent, True)


def check_copy(target: Target, day: date, market: Market = KR) -> list[str]:
    """What of a copied day is not as its manifest says. NotHandedOn: it has none; OSError."""
    manifest = read_manifest(target, name_manifest(day, market=market))
    if manifest is None:
        raise NotHandedOn("has no manifest: the copy is incomplete: copy again")
    wanted = {entry.path for entry in manifest.files}
    more = [f"{path}: is in no manifest" for path in _find_copied(target, day, market) if path not in wanted]
    return [f"{entry.path}: missing or changed" for entry in manifest.files if not target.is_equal(entry)] + more


def find_uncopied(home: Home, day: date, target: Target, market: Market = KR) -> list[str]:
    """Files of a day that no copy there has as they are, and faults of the copy: both are read. OSError."""
    manifest = read_manifest(target, name_manifest(day, market=market))
    if manifest is None:
        return ["no manifest"]
    known = {entry.path: entry.sha256 for entry in manifest.files}
    own = [describe_source(path, home) for path in find_sources(home, day, market)]
    changed = [f"{entry.path} is another there" for entry in own if known.get(entry.path) != entry.sha256]
    return changed or check_copy(target, day, market)


def find_copied_dates(target: Target) -> list[MarketDate]:
    """The days that have a manifest, or the beginning of one."""
    matches = (_MANIFEST.fullmatch(path) for path in target.find(MANIFESTS))
    return sorted({MarketDate(match[1], date.fromisoformat(match[2])) for match in matches if match})


def read_manifest(target: Target, path: str) -> CopyManifest | None:
    """A manifest; None if there is none that can be read. OSError."""
    content = target.read(path)
    try:
        return None if content is None else msgspec.json.decode(content, type=CopyManifest)
    except msgspec.MsgspecError:
        return None


def _find_copied(target: Target, day: date, market: Market) -> Iterator[str]:
    """The files at the place of the copy that would be taken for the day's."""
    for directory in (*target.entries(f"data/{market.name}"), "data/recover"):
        for path in target.find(f"{directory}/date={day}"):
            if not (path.endswith(".copying") or is_of_another_market(path, market)):
                yield path
