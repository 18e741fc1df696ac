"""Reads of a day that is compacted meanwhile, at every instant at which a file is looked for or opened: each row once."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.certified_day import certify_day
from support.stored_day import DAY, make_whole_day
from support.us_day import certify_us_days, make_us_day

import collectorctl
from collectorctl.compact.job import compact_day
from collectorctl.reader.live import Live
from collectorctl.reader.messages import Book, Tick
from conf.home import Home
from conf.market import KR, US, Market
from writer.catalog import Catalog

SYMBOL = "005930"


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PROVEN day of one instrument: books of two hours, ticks and events of one."""
    root = make_whole_day(tmp_path_factory.mktemp("home"))
    certify_day(root, (SYMBOL,))
    return root


class CompactionAt:
    """Compacts a home's day before the nth time that a listed directory, or a file, is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path, step: int, market: Market) -> None:
        self._root, self._left, self._market = root, step, market
        glob, open_file, read_metadata, parquet = Path.glob, pa.OSFile, pq.read_metadata, pq.ParquetFile

        def list_files(path: Path, pattern: str) -> Any:
            if path.is_dir():
                self.take_step()
            return glob(path, pattern)

        def before(call: Callable) -> Callable:
            def made(*arguments: Any, **options: Any) -> Any:
                self.take_step()
                return call(*arguments, **options)

            return made

        monkeypatch.setattr(Path, "glob", list_files)
        monkeypatch.setattr(pa, "OSFile", before(open_file))
        monkeypatch.setattr(pq, "read_metadata", before(read_metadata))
        monkeypatch.setattr(pq, "ParquetFile", before(parquet))

    @property
    def is_over(self) -> bool:
        """Whether the reading ended before that step."""
        return self._left > 0

    def take_step(self) -> None:
        self._left -= 1
        if not self._left:
            found = compact_day(Home(self._root), date.fromisoformat(DAY), self._market)
            assert found.files_after == (4 if self._market is KR else 3)


BEGIN, END = dt.time(9, 55), dt.time(10, 5)
SINCE = pd.Timestamp(f"{DAY} 10:30", tz="Asia/Seoul")
WINDOWS = 30


def read_replay(root: Path) -> list:
    """Over the edge of an hour."""
    return list(collectorctl.open(root).replay(DAY, [SYMBOL], begin=BEGIN, end=END))


def read_since(root: Path) -> list:
    with collectorctl.open(root).live([SYMBOL], since=SINCE) as live:
        return read_past(live)


def read_past(live: Live) -> list:
    """What a stream has that is opened in the evening; `mono_ns` is that of a clock that began with the home."""
    messages = [message for _ in range(WINDOWS) for message in live.read()]
    return [one._replace(mono_ns=0) if isinstance(one, Book | Tick) else one for one in messages]


def read_tables(root: Path) -> list:
    home = collectorctl.open(root)
    return [*home.books(SYMBOL, DAY).astype(str).to_numpy().tolist(), *home.ticks(SYMBOL, DAY)["cum_volume"].tolist()]


def read_events(root: Path) -> list:
    """By the catalog's generator, as `explain` and `export` read."""
    begin_ns = pd.Timestamp(DAY, tz="Asia/Seoul").value
    tables = Catalog(Home(root)).read_between("kr.event", begin_ns, begin_ns + 86_400 * 10**9, ["time", "line", "kind"])
    return sorted(str(row) for table in tables for row in table.to_pylist())


def read_us(root: Path) -> list:
    """Every instrument's books and ticks, and the day played again."""
    home, names = collectorctl.open(root), [str(one) for one in Home(root).settings.instruments("us")]
    tables = [table.to_csv() for name in names for table in (home.books(name, DAY), home.ticks(name, DAY))]
    return [*tables, *(str(one) for one in home.replay(DAY, names))]


WAYS = {"books and ticks": read_tables, "replay": read_replay, "since": read_since, "events": read_events}


def compare(
    certified: Path, place: Path, read: Callable[[Path], list], first: int, stride: int, market: Market = KR
) -> int:
    """Reads once for each step, beside a compaction at it; how many there are."""
    expected, step = read(certified), first
    assert len(expected) > 2
    while True:
        root = Path(shutil.copytree(certified, place / str(step)))
        with pytest.MonkeyPatch.context() as patched:
            compaction = CompactionAt(patched, root, step, market)
            found = read(root)
        if compaction.is_over:
            return step
        assert found == expected, step
        shutil.rmtree(root)
        step += stride


@pytest.mark.parametrize("way", WAYS)
def test_a_reader_has_each_row_once_though_the_day_is_compacted_meanwhile(
    certified: Path, tmp_path: Path, way: str
) -> None:
    """At every eighth step."""
    assert compare(certified, tmp_path, WAYS[way], 3, 8) > 3


@pytest.mark.long  # as the one above, on other files, and slower
def test_a_reader_of_a_us_day_has_each_row_once_though_it_is_compacted_meanwhile(tmp_path: Path) -> None:
    """At every eighth step."""
    home = make_us_day(tmp_path / "home")
    certify_us_days(home)
    assert compare(home.root, tmp_path, read_us, 3, 8, US) > 3


def test_a_stream_that_is_read_slowly_goes_on_in_the_files_that_it_began_with(certified: Path, tmp_path: Path) -> None:
    """The day is compacted in the middle of an hour, before the edge of the next, and then removed."""
    root = Path(shutil.copytree(certified, tmp_path / "home"))
    home = collectorctl.open(root)
    replayed, streamed = read_replay(root), read_since(root)
    replay = iter(home.replay(DAY, [SYMBOL], begin=BEGIN, end=END))
    with home.live([SYMBOL], since=SINCE) as live:
        found = [next(replay), next(replay)]
        compact_day(Home(root), date.fromisoformat(DAY))
        found.append(next(replay))
        shutil.rmtree(root / "data/kr")

        assert [*found, *replay] == replayed
        assert read_past(live) == streamed
