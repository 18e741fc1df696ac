"""Export of one day into a new directory.

    Catalog ──tables──> FORMATS ──> DIR/DATE/...            files of the format
    certificates, verified ──────> DIR/DATE/manifest.json   verdict by instrument, hashes, sources
    events, coverage ────────────> DIR/DATE/gaps.csv.gz     holes, missing shares

Guarantees:
    * The directory of a day appears as a whole, with hashes of all of it, and is never replaced; one that was made of the same
      files in the same way and is undamaged is left alone.
    * A day whose instruments lack a certificate, or have one that the files contradict, is exported on request only, and its
      manifest says so; one with rows that only the journal has, or whose files change meanwhile, is not.
    * Nothing in the home is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from collectorctl.export.certified import (
    NotHandedOn,
    find_instruments,
    refuse_missing_rows,
    verify_certified,
)
from collectorctl.export.formats import FORMATS, InstrumentDay, Written, write_csv_file
from collectorctl.export.gaps import Hole, build_gaps, find_holes
from collectorctl.export.manifest import (
    MANIFEST_FILE,
    SCHEMA_VERSION,
    FileEntry,
    Manifest,
    Verdict,
    describe_file,
    find_damaged,
    read_manifest,
)
from collectorctl.reader.home import HomeReader
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import COMPLETE_GRADES
from collectorctl.recover.matching.day_coverage import DAY_TICK, DayCoverage, sort_ticks
from collectorctl.recover.verify import VerifiedCertificate
from conf.clock import DAY_NS
from conf.files.new_directory import new_directory
from conf.home import Home
from conf.instrument import Instrument
from conf.market import KR, Market
from ringbuf.records import UNDEFINED
from writer.catalog import Catalog, read_file_state
from writer.schema import PARQUET

LOOK_BACK_DAYS = 7
"""How many days back events are read: a connection may be older than the day."""

GAPS_FILE = "gaps.csv.gz"


class ExportRequest(NamedTuple):
    """What is exported, and where to. `instruments` empty: those of `market` with a certificate or a row on that day."""

    directory: Path
    format: str
    instruments: tuple[Instrument, ...] = ()
    uncertified: bool = False
    market: Market = KR


class DayExport(NamedTuple):
    """An exported day; `is_new`: it was not there yet."""

    directory: Path
    manifest: Manifest
    is_new: bool


def export_day(
    home: Home, day: date, request: ExportRequest, on_instrument: Callable[[int, int], None] = lambda *_: None
) -> DayExport:
    """Export a day. NotHandedOn, PartitionWriteError, OSError. `on_instrument`: called with how many of how many are done."""
    market = request.market
    refuse_missing_rows(home, day, market)
    instruments = request.instruments or tuple(find_instruments(home, day, market))
    if not instruments:
        raise NotHandedOn(f"{day}: nothing is stored of that day")
    paths = list(_find_sources(home, day, market))
    states = [read_file_state(path, home.data) for path in paths]
    sources = [describe_file(path, home.data) for path in paths]
    target = request.directory / str(day)
    if (old := read_manifest(target)) is not None:
        return DayExport(target, _reuse(target, old, request, instruments, sources), False)
    advice = "or export what is there with --uncertified"
    verified = verify_certified(home, day, instruments, advice, request.uncertified, market)
    with new_directory(target) as directory:
        manifest = _write(home, day, request, instruments, verified, directory, on_instrument)
        manifest.sources = sources
        (directory / MANIFEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        if [read_file_state(path, home.data) for path in _find_sources(home, day, market)] != states:
            raise NotHandedOn(f"{day}: files of that day changed meanwhile, nothing was written: export again")
    return DayExport(target, manifest, True)


def _write(
    home: Home,
    day: date,
    request: ExportRequest,
    instruments: tuple[Instrument, ...],
    verified: dict[Instrument, VerifiedCertificate],
    directory: Path,
    on_instrument: Callable[[int, int], None],
) -> Manifest:
    market = request.market
    reader, events, calendar = HomeReader(home.root), _read_events(home, day, market), home.load_calendar()
    written: list[Written] = []
    verdicts, gaps = [], []
    for done, instrument in enumerate(instruments):
        on_instrument(done, len(instruments))
        books = _read_sessions(reader, "orderbook", instrument, day).sort_by(
            [("recv_time", "ascending"), ("seq", "ascending")]
        )
        ticks = _read_sessions(reader, "tick", instrument, day)
        spans = calendar.phase_spans(instrument.venue, day)
        holes = find_holes(events, market.feeds, instrument, spans)
        certificate = verified.get(instrument)
        total = certificate.now.official_volume if certificate else None
        gaps.append(build_gaps(instrument, holes, DayCoverage.of(_to_day_ticks(ticks), total)))
        written += FORMATS[request.format](directory, InstrumentDay(instrument, books, ticks, holes))
        verdicts.append(_make_verdict(instrument, certificate, holes, len(books), len(ticks)))
    on_instrument(len(instruments), len(instruments))
    written.append(write_csv_file(directory / GAPS_FILE, pa.concat_tables(gaps)))
    whole = all(one.holds and one.certificate in COMPLETE_GRADES for one in verdicts)
    files = [describe_file(path, directory, rows) for path, rows in sorted(written)]
    made_by = version("collectorctl")
    return Manifest(SCHEMA_VERSION, made_by, request.format, str(day), whole, verdicts, files, [])


def _read_sessions(reader: HomeReader, stream: str, instrument: Instrument, day: date) -> pa.Table:
    """The stored rows of an instrument's sessions of a day."""
    dates = instrument.market.dates_of_rows(day)
    rows = pa.concat_tables([reader.table(stream, str(instrument), one) for one in dates])
    return rows.filter(pc.equal(rows["business_date"], pa.scalar(day))) if instrument.market.has_business_date else rows


def _to_day_ticks(ticks: pa.Table) -> np.ndarray:
    """DAY_TICK of stored ticks, as far as their coverage needs it."""
    found = np.zeros(len(ticks), DAY_TICK)
    for name, column in (("exch_ns", "exch_time"), ("size", "size"), ("cum_volume", "cum_volume")):
        found[name] = pc.fill_null(ticks[column].cast(pa.int64()), UNDEFINED).to_numpy()
    found["live"] = pc.equal(ticks["source"], "live").to_numpy()
    return sort_ticks(found)


def _make_verdict(
    instrument: Instrument, found: VerifiedCertificate | None, holes: list[Hole], books: int, ticks: int
) -> Verdict:
    if found is None:
        return Verdict(str(instrument), None, False, "", None, None, [], [], len(holes), books, ticks)
    now = found.now
    return Verdict(
        instrument=str(instrument),
        certificate=now.certificate,
        holds=not found.differs,
        made_at=now.made_at,
        official_volume=now.official_volume,
        missing_shares=now.missing_shares,
        reasons=now.reasons,
        differs=found.differs,
        holes=len(holes),
        books=books,
        ticks=ticks,
    )


def _reuse(
    target: Path,
    old: Manifest,
    request: ExportRequest,
    instruments: tuple[Instrument, ...],
    sources: list[FileEntry],
) -> Manifest:
    """The manifest of an earlier run, if another run would write the same. NotHandedOn."""
    is_same = (old.schema, old.format, old.sources) == (SCHEMA_VERSION, request.format, sources)
    is_same = is_same and [one.instrument for one in old.instruments] == [str(one) for one in instruments]
    if not is_same:
        raise NotHandedOn(f"{target}: is there, of other files or other options: remove it or name another directory")
    if damaged := find_damaged(target, old.files):
        raise NotHandedOn(f"{target}: damaged: {', '.join(damaged)}: remove the directory and export again")
    if not request.uncertified and not all(one.holds for one in old.instruments):
        raise NotHandedOn(
            f"{target}: was exported without a certificate that holds: remove it, or say --uncertified again"
        )
    return old


def _find_sources(home: Home, day: date, market: Market) -> Iterator[Path]:
    """The files that an export is made of."""
    catalog = Catalog(home)
    for stream in ("orderbook", "tick"):
        for date_of_rows in market.dates_of_rows(day):
            yield from catalog.partitions(f"{market.name}.{stream}", date_of_rows)
    for back in range(LOOK_BACK_DAYS, -1, -1):
        yield from catalog.partitions(f"{market.name}.event", day - timedelta(days=back))
    if (path := store.certificates_path(home.data, day, market)).exists():
        yield path


def _read_events(home: Home, day: date, market: Market) -> pd.DataFrame:
    begin_ns, end_ns = market.day_bounds_ns(day)
    dataset = f"{market.name}.event"
    schema = PARQUET[dataset]
    tables = list(Catalog(home).read_between(dataset, begin_ns - LOOK_BACK_DAYS * DAY_NS, end_ns, schema.names))
    events = pa.concat_tables([schema.empty_table(), *(one.cast(schema) for one in tables)])
    return events.filter(pc.less(events["time"].cast(pa.int64()), end_ns)).to_pandas()
