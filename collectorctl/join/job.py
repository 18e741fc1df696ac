"""Join of one day of several homes into a new data tree, certified again.

    HOME, OTHER, ...   verified, hashed ─┬─ books, ticks: merge.py, an instrument at a time ─> DIR/data/kr/DATASET/date=D/hour=all
                                         ├─ evidence, minute bars: of the home with the better certificate
                                         └─ certificates: computed from the new files ───────> DIR/data/kr/completeness/date=D
    what came from where, hashes ─────────────────────────────────────────────────────────────> DIR/manifest/kr/D.join.json
                                           DIR appears as a whole

Guarantees:
    * DIR has the whole day or does not exist, whatever is killed; nothing that is there is replaced.
    * Nothing in a source is changed, and no lock is taken there; one whose files change meanwhile, do not bear out its
      certificates, or are not what its manifest says, is refused.
    * DIR is a copy by form: `verify`, `copy --check` and `copy` work in it, and a further `join` takes it.

Not handled here:
    * Events and feed_health, which are those of the home that collected; symbols; US days.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from collectorctl.copy.manifest import (
    CopyManifest,
    describe_day,
    describe_source,
    encode,
    encode_checksums,
    find_sources,
    name_manifest,
    read_source_states,
)
from collectorctl.export.certified import NotHandedOn, verify_stored
from collectorctl.export.manifest import FileEntry
from collectorctl.join.merge import NotMergeable, merge_books, merge_ticks
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import Grade
from collectorctl.recover.download.minute_bars import bars_path
from collectorctl.recover.download.page_store import recovery_folder
from collectorctl.recover.job import compute_certificate
from collectorctl.recover.store import evidence, table_file
from collectorctl.recover.store.evidence import Evidence
from collectorctl.recover.store.partition_rewriter import rechunk, sort_ticks
from collectorctl.recover.verify import VerifiedCertificate
from collectorctl.reprocess.stored_books import window_ns
from conf.clock import to_kst
from conf.files.new_directory import new_directory
from conf.home import Home
from conf.instrument import Instrument
from conf.market import KR
from writer import durable_io
from writer.catalog import (
    COMPACTED,
    PARQUET,
    FileState,
    encode_spans,
    find_partitions,
    read_instrument,
)
from writer.publish.verified_file import PartitionWriteError, write_verified
from writer.schema import FILE_VERSION

SCHEMA_VERSION = 1
STREAMS = ("orderbook", "tick")
_GRADES = list(Grade)


class JoinedHome(msgspec.Struct):
    """A source, and its files of the day."""

    path: str
    files: list[FileEntry]


class JoinedInstrument(msgspec.Struct):
    """An instrument of the day: rows of each dataset by home, in the order of `homes`, and in the result.

    `evidence_of`: the home whose official figures and minute bars it has.
    """

    instrument: str
    certificate: str
    evidence_of: str
    rows: dict[str, list[int]]
    joined: dict[str, int]


class JoinRecord(msgspec.Struct):
    """What a joined day was made of."""

    schema: int
    collectorctl: str
    market: str
    date: str
    homes: list[JoinedHome]
    instruments: list[JoinedInstrument]


class _Source(NamedTuple):
    """A home of which a day is taken."""

    home: Home
    states: list[FileState]
    verified: Mapping[Instrument, VerifiedCertificate]
    files: list[FileEntry]


def join_day(
    roots: Sequence[Path], day: date, target: Path, on_step: Callable[[int, int], None] = lambda *_: None
) -> tuple[CopyManifest, JoinRecord]:
    """Join a day. NotHandedOn, PartitionWriteError, SettingsError, OSError: there is no `target`.

    Args:
        roots: homes or copies, at least two; the first breaks ties.
        day: of the Korean market.
        target: the new directory.
        on_step: called with how many instruments of how many are done.
    """
    sources = [_open_source(root, day) for root in roots]
    instruments = sorted({name for source in sources for name in source.verified})
    with new_directory(target) as directory:
        home = Home(directory)
        chosen = {name: _choose_evidence(name, sources, day) for name in instruments}
        rows = {stream: _write_rows(home, day, stream, instruments, sources, on_step) for stream in STREAMS}
        for name in instruments:
            evidence.save(recovery_folder(home.data, str(day), name), _load_evidence(chosen[name].home, day, name))
        _write_bars(home, day, chosen)
        made_at = f"{to_kst(sources[0].home.load_clock().now_ns()):%Y-%m-%dT%H:%M:%S%z}"
        store.save(home.data, day, [compute_certificate(home, day, name) for name in instruments], made_at)
        manifest = describe_day(home, day, verify_stored(home, day))
        grades = {one.instrument: one.certificate for one in manifest.instruments}
        found = JoinRecord(
            SCHEMA_VERSION,
            version("collectorctl"),
            KR.name,
            str(day),
            [JoinedHome(str(source.home.root), source.files) for source in sources],
            [
                JoinedInstrument(
                    str(name),
                    grades[str(name)],
                    str(chosen[name].home.root),
                    {stream: rows[stream][name][:-1] for stream in STREAMS},
                    {stream: rows[stream][name][-1] for stream in STREAMS},
                )
                for name in instruments
            ],
        )
        for kind, content in (
            ("json", encode(manifest)),
            ("sha256", encode_checksums(manifest)),
            ("join.json", encode(found)),
        ):
            path = directory / name_manifest(day, kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for source in sources:
            if read_source_states(source.home, day) != source.states:
                raise NotHandedOn(
                    f"{source.home.root}: files of {day} changed meanwhile, nothing was written: join again"
                )
    return manifest, found


def _open_source(root: Path, day: date) -> _Source:
    """A source whose certificates hold, and whose manifest, if it has one, is that of its files. NotHandedOn, OSError."""
    home = Home(root)
    try:
        states = read_source_states(home, day)
        verified = verify_stored(home, day)[day]
    except NotHandedOn as error:
        raise NotHandedOn(f"{home.root}: {error}") from None
    files = [describe_source(path, home) for path in find_sources(home, day)]
    manifest = home.root / name_manifest(day)
    if (home.root / name_manifest(day, "incomplete.json")).exists() and not manifest.exists():
        raise NotHandedOn(f"{home.root}: the copy of {day} is incomplete: copy it again")
    if manifest.exists():
        wanted = {
            entry.path: entry.sha256 for entry in msgspec.json.decode(manifest.read_bytes(), type=CopyManifest).files
        }
        found = {entry.path: entry.sha256 for entry in files}
        if changed := sorted(path for path in wanted | found if wanted.get(path) != found.get(path)):
            raise NotHandedOn(
                f"{home.root}: {changed[0]} is not what {manifest.name} says ({len(changed)} such files): copy again"
            )
    return _Source(home, states, verified, files)


def _choose_evidence(name: Instrument, sources: Sequence[_Source], day: date) -> _Source:
    """The source with the best certificate of an instrument, the first of equal ones. NotHandedOn: official volumes differ."""
    having = [source for source in sources if name in source.verified]
    volumes = {source.home.root: _load_evidence(source.home, day, name).volume for source in having}
    if len(known := {volume for volume in volumes.values() if volume is not None}) > 1:
        text = ", ".join(f"{root} {volume}" for root, volume in volumes.items())
        raise NotHandedOn(f"{name}: the official volumes of {day} differ: {text}: recover it again in each of them")
    known_ones = [source for source in having if volumes[source.home.root] is not None] if known else having
    return min(known_ones, key=lambda source: _GRADES.index(Grade(source.verified[name].now.certificate)))


def _load_evidence(home: Home, day: date, name: Instrument) -> Evidence:
    return evidence.load(recovery_folder(home.data, str(day), name)) or Evidence()


def _write_rows(
    home: Home,
    day: date,
    stream: str,
    instruments: Sequence[Instrument],
    sources: Sequence[_Source],
    on_step: Callable[[int, int], None],
) -> dict[Instrument, list[int]]:
    """The joined file of a dataset; by instrument the rows of each source, and of the result."""
    schema, counts = PARQUET[f"{KR.name}.{stream}"], dict[Instrument, list[int]]()
    paths = [find_partitions(source.home.data / KR.name / stream, day) for source in sources]
    for path in (path for found in paths for path in found):
        if not pq.read_schema(path).remove_metadata().equals(schema):
            raise PartitionWriteError(f"{path}: has columns of another version: upgrade it first")

    def read() -> Iterator[pa.Table]:
        for done, name in enumerate(instruments):
            on_step(STREAMS.index(stream) * len(instruments) + done, len(STREAMS) * len(instruments))
            tables = [
                pa.concat_tables(
                    [schema.empty_table(), *(t for path in found for t in read_instrument(path, name, schema.names))]
                )
                for found in paths
            ]
            joined = _merge(stream, name, [one for one in tables if len(one)], sources[0].home)
            counts[name] = [*map(len, tables), 0 if joined is None else len(joined)]
            if joined is not None:
                yield joined

    target = home.data / KR.name / stream / f"date={day}" / COMPACTED / "part-0.parquet"
    durable_io.create_directory(target.parent)
    metadata = {"schema_version": str(FILE_VERSION), "compacted": encode_spans([])}
    row_group_rows = sources[0].home.settings.writer.row_group_rows
    write_verified(target, schema.with_metadata(metadata), rechunk(read(), row_group_rows, schema))
    return counts


def _merge(stream: str, name: Instrument, tables: Sequence[pa.Table], home: Home) -> pa.Table | None:
    """The rows of an instrument; None: there are none. NotHandedOn."""
    if not tables:
        return None
    try:
        if stream == "tick":
            return sort_ticks(tables[0] if len(tables) == 1 else merge_ticks(tables))
        rule = window_ns(home), home.settings.writer.identity_cum_volume
        return (tables[0] if len(tables) == 1 else merge_books(tables, *rule)).sort_by("recv_time")
    except NotMergeable as error:
        raise NotHandedOn(f"{name}: {error}") from None


def _write_bars(home: Home, day: date, chosen: Mapping[Instrument, _Source]) -> None:
    """The stored minute bars of each instrument, of the source that its evidence is of."""
    for source in {id(one): one for one in chosen.values()}.values():
        if (table := table_file.read(bars_path(source.home.data, day))) is None:
            continue
        keys = zip(table["symbol"].to_pylist(), table["venue"].to_pylist(), strict=True)
        mine = [chosen.get(Instrument(*key)) is source for key in keys]
        if any(mine):
            table_file.merge(bars_path(home.data, day), table.filter(pa.array(mine)), ["symbol", "venue", "time"])
