"""Compacted days: the same rows in one file, whichever instruction was the last, and refused where a day is not whole."""

from __future__ import annotations

import shutil
from datetime import date
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.certified_day import certify_day, run
from support.kill_at_call import EXIT_KILLED, run_killed_at
from support.stored_day import DAY, make_stored_day
from support.us_day import NEXT, certify_us_days, journal_evening_trade, make_us_day, make_us_ticks
from support.writer_data import SECOND_NS

import collectorctl
from collectorctl.compact import job
from collectorctl.compact.job import compact_day, hash_rows
from collectorctl.recover import us_job
from conf.clock import HOUR_NS, kst_midnight_ns
from conf.home import Home
from conf.market import KR, US, Market
from writer import durable_io
from writer.catalog import Catalog
from writer.publish import feed_stats_file
from writer.publish.partition import read_published_to
from writer.publish.records import publish_records

STREAMS = ("orderbook", "tick", "event", "feed_health")
LINEAGE = "5f" * 16


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored day, every instrument PROVEN; its ticks in two parts of nine o'clock, of a journal of the writer."""
    root = make_stored_day(tmp_path_factory.mktemp("home"))
    part = root / f"data/kr/tick/date={DAY}/hour=09/part-0.parquet"
    ticks = pq.read_table(part, partitioning=None)
    for number, half in enumerate((ticks.slice(0, 90), ticks.slice(90))):
        metadata = {"lineage": LINEAGE, "row_from": str(number * 90), "row_to": str(number * 90 + 90)}
        pq.write_table(half.replace_schema_metadata(metadata), part.with_name(f"part-{number}.parquet"))
    feed_stats_file.refresh(root / "data/kr", KR, DAY, 1.0)
    certify_day(root)
    return root


@pytest.fixture
def home(certified: Path, tmp_path: Path) -> Path:
    """The same home, to be changed."""
    return Path(shutil.copytree(certified, tmp_path / "home"))


def read(root: Path, stream: str, market: Market = KR) -> pd.DataFrame:
    """All rows of the day as a user reads them, in an order of their own."""
    rows = pd.read_parquet(root / "data" / market.name / stream / f"date={DAY}").drop(columns="hour")
    return rows.sort_values(list(rows.columns), key=lambda column: column.astype(str)).reset_index(drop=True)


def list_files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root / "data/kr")) for path in (root / "data/kr").rglob("hour=*/*"))


def test_a_compacted_day_is_one_file_a_dataset_and_every_reader_finds_the_same_rows(
    certified: Path, home: Path, tmp_path: Path
) -> None:
    run(home, "copy", "--date", DAY, "--to", str(tmp_path / "copy"))
    result = run(home, "compact", "--date", DAY, "--json")

    assert result.exit_code == 0, result.output
    (one,) = msgspec.json.decode(result.stdout)
    assert (one["outcome"], one["result"]["files_after"]) == ("compacted", len(STREAMS))
    assert one["result"]["files_before"] == len(list_files(certified))
    assert list_files(home) == sorted(f"{stream}/date={DAY}/hour=all/part-0.parquet" for stream in STREAMS)
    for stream in STREAMS:
        pd.testing.assert_frame_equal(read(home, stream), read(certified, stream))
    before, after = collectorctl.open(certified), collectorctl.open(home)
    pd.testing.assert_frame_equal(after.ticks("005930", DAY, True), before.ticks("005930", DAY, True))
    pd.testing.assert_frame_equal(after.books("000660", DAY), before.books("000660", DAY))
    assert run(home, "verify", "--date", DAY).stdout.count("PROVEN") == 3
    ten = kst_midnight_ns(date.fromisoformat(DAY)) + 10 * HOUR_NS
    found = Catalog(Home(home)).partitions_between("kr.orderbook", ten, ten + 1)
    assert [path.parent.name for path in found] == ["hour=all"]

    assert run(home, "copy", "--date", DAY, "--to", str(tmp_path / "copy")).exit_code == 0
    assert list_files(tmp_path / "copy") == list_files(home)
    again = run(home, "compact", "--date", DAY, "--json")
    assert msgspec.json.decode(again.stdout)[0]["result"]["files_before"] == len(STREAMS)


def test_the_rows_of_a_symbol_lie_together_and_in_the_order_of_time(home: Path) -> None:
    compact_day(Home(home), date.fromisoformat(DAY))
    for stream, order in (("orderbook", "recv_time"), ("tick", "cum_volume")):
        rows = pq.read_table(
            home / f"data/kr/{stream}/date={DAY}/hour=all/part-0.parquet", partitioning=None
        ).to_pandas()
        assert rows.symbol.is_monotonic_increasing
        assert all(one[order].dropna().is_monotonic_increasing for _, one in rows.groupby("symbol"))


def test_the_writer_knows_how_far_the_hours_of_a_compacted_day_are_published(home: Path) -> None:
    """Rows of it that are still in the journal, because another hour of the segment is not published, come once."""
    nine = kst_midnight_ns(date.fromisoformat(DAY)) + 9 * HOUR_NS
    ticks = home / "data/kr/tick"
    compact_day(Home(home), date.fromisoformat(DAY))
    assert read_published_to(ticks, nine, LINEAGE) == 180
    assert read_published_to(ticks, nine + HOUR_NS, LINEAGE) == 0
    assert read_published_to(ticks, nine, "00" * 16) == 0


def test_rows_that_come_after_the_compaction_stand_beside_it_and_go_into_the_next(home: Path) -> None:
    compact_day(Home(home), date.fromisoformat(DAY))
    whole = home / f"data/kr/orderbook/date={DAY}/hour=all/part-0.parquet"
    late = pq.read_table(whole, partitioning=None).slice(5, 1)
    (whole.parent.parent / "hour=08").mkdir()
    pq.write_table(late, whole.parent.parent / "hour=08/part-requarantine-1-0.parquet")
    rows = read(home, "orderbook")

    assert compact_day(Home(home), date.fromisoformat(DAY)).files_after == len(STREAMS)

    pd.testing.assert_frame_equal(read(home, "orderbook"), rows)


def test_a_day_that_is_not_whole_is_not_compacted(home: Path) -> None:
    """An incomplete instrument, files that contradict a certificate, a file that is none of ours, and a dry run."""
    assert run(home, "compact", "--date", DAY, "--dry-run").exit_code == 0
    (home / f"data/kr/event/date={DAY}/notes.txt").write_text("mine")
    foreign = run(home, "compact", "--date", DAY, "--json")
    (home / f"data/kr/event/date={DAY}/notes.txt").unlink()
    assert (foreign.exit_code, "notes.txt: is no published file" in foreign.output) == (1, True)

    shutil.rmtree(home)
    make_stored_day(home)
    certify_day(home, lacking=("000660",))
    lacking = run(home, "compact", "--date", DAY, "--json")
    assert (lacking.exit_code, "not PROVEN or RECONCILED: 000660" in lacking.output) == (1, True)
    assert not [name for name in list_files(home) if "hour=all" in name]


@pytest.mark.parametrize(("days", "market"), [("certified", KR), ("certified_us", US)])
def test_whichever_step_is_the_last_the_day_has_every_row_once_and_the_next_run_completes_it(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: str, market: Market
) -> None:
    monkeypatch.setattr(job, "DATASETS", ("tick",))  # one after the other: what holds for one holds for all
    certified: Path = request.getfixturevalue(days)
    count, ended = 0, False
    wanted = read(certified, "tick", market)
    while not ended:
        count += 1
        home = Path(shutil.copytree(certified, tmp_path / str(count)))
        calls = ((durable_io, "rename"), (durable_io, "sync"), (durable_io, "create_directory"),
                 (job, "exchange_directories"), (job.shutil, "rmtree"), (Path, "rename"))  # fmt: skip
        status = run_killed_at(count, calls, partial(compact_day, Home(home), date.fromisoformat(DAY), market))
        assert status in (0, EXIT_KILLED)
        ended = status == 0
        pd.testing.assert_frame_equal(read(home, "tick", market), wanted)
        assert compact_day(Home(home), date.fromisoformat(DAY), market).files_after == 1
        pd.testing.assert_frame_equal(read(home, "tick", market), wanted)
        assert not list((home / "data" / market.name).rglob(".*"))
        shutil.rmtree(home)
    assert count > 5  # else no step was hit


@pytest.fixture(scope="module")
def certified_us(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored US day, certified with the session of its evening, and a trade of the session that ended in its night."""
    home = make_us_day(tmp_path_factory.mktemp("us_home"))
    early = make_us_ticks()[:1]
    early["recv_ns"] += HOUR_NS
    early["exch_ns"] += HOUR_NS
    early["cum_volume"], early["size"] = 95, 5
    publish_records(home.data / "us/tick", "us.tick", early, "early", home.settings.writer, SECOND_NS)
    certify_us_days(home)
    return home.root


@pytest.fixture
def us_home(certified_us: Path, tmp_path: Path) -> Path:
    """The same home, to be changed."""
    return Path(shutil.copytree(certified_us, tmp_path / "us_home"))


def read_us_day(root: Path, out: Path) -> dict[str, object]:
    """The day as every reader has it."""
    home, reader, day = Home(root), collectorctl.open(root), date.fromisoformat(DAY)
    names = [str(one) for one in home.settings.instruments("us")]
    exported = run(root, "export", "--date", DAY, "--market", "us", "--format", "csv", "--out", str(out))
    assert (out / DAY / "manifest.json").exists(), exported.output
    return {
        "ticks": {name: reader.ticks(name, DAY, join_books=True).to_csv() for name in names},
        "books": {name: reader.books(name, DAY).to_csv() for name in names},
        "replay": [str(one) for one in reader.replay(DAY, names)],
        "night": [str(one) for one in reader.replay(NEXT, names)],
        "export": {path.name: path.read_bytes() for path in (out / DAY).rglob("*.gz")},
        "verify": [run(root, "verify", "--market", "us", "--date", one, "--json").stdout for one in (DAY, NEXT)],
        "recover": [us_job.load_live_ticks(home.data, day, one).tolist() for one in home.settings.instruments("us")],
    }


def test_a_us_day_is_compacted_under_new_yorks_date_and_every_reader_finds_the_same_rows(
    certified_us: Path, us_home: Path, tmp_path: Path
) -> None:
    before = read_us_day(certified_us, tmp_path / "before")
    result = run(us_home, "compact", "--market", "us", "--date", DAY, "--json")

    assert result.exit_code == 0, result.output
    streams = ("orderbook", "tick", "event")
    found = sorted(path.parent for path in (us_home / "data/us").glob(f"*/date={DAY}/hour=*/part-*"))
    assert found == [us_home / f"data/us/{stream}/date={DAY}/hour=all" for stream in sorted(streams)]
    after = read_us_day(us_home, tmp_path / "after")
    assert {name for name in before if before[name] != after[name]} == set()
    assert len(before["replay"]) > 10 and "MINUTE_ONLY" in before["verify"][0]
    again = run(us_home, "compact", "--market", "us", "--date", DAY, "--json")
    assert msgspec.json.decode(again.stdout)[0]["result"]["files_before"] == len(streams)


def test_the_ticks_of_a_compacted_us_day_are_in_the_order_of_each_session(us_home: Path) -> None:
    """The day market's volume begins anew in New York's evening."""
    compact_day(Home(us_home), date.fromisoformat(DAY), US)
    rows = pq.read_table(us_home / f"data/us/tick/date={DAY}/hour=all/part-0.parquet", partitioning=None).to_pandas()

    assert rows[rows.venue == "NASDAQ_DAY"].cum_volume.tolist() == [95, 4, 5, 6]
    assert rows.symbol.is_monotonic_increasing


def test_a_us_date_is_compacted_when_every_session_of_its_rows_is_certified_and_published(us_home: Path) -> None:
    """Also that of its evening: a row of it in the journal, a certificate that is missing, one that is INCOMPLETE."""
    home = Home(us_home)

    def refuse() -> str:
        result = run(us_home, "compact", "--market", "us", "--date", DAY, "--json")
        assert result.exit_code == 1
        return msgspec.json.decode(result.stdout)[0]["note"]

    journal_evening_trade(home)
    assert "us.tick 20" in refuse()
    shutil.rmtree(home.journal_directory("us.tick"))
    certify_us_days(home, lacking=NEXT)
    reason = refuse()
    assert reason.startswith(f"{NEXT}: not PROVEN or RECONCILED or MINUTE_ONLY: BAQ.NVDA: run ")
    assert f"recover --date {NEXT} --market us" in reason
    shutil.rmtree(us_home / f"data/us/completeness/date={NEXT}")
    assert refuse().startswith(f"{NEXT}: no certificate of BAQ.NVDA")
    assert not list((us_home / "data/us").glob("*/*/hour=all"))
    certify_us_days(home)
    assert run(us_home, "compact", "--market", "us", "--date", DAY).exit_code == 0


def test_of_a_range_those_dates_without_a_session_are_compacted_of_which_something_is_stored(us_home: Path) -> None:
    """The day market's session of Monday begins on Sunday evening; here, one of Saturday on Friday's."""
    result = run(
        us_home, "compact", "--market", "us", "--from", "2026-11-19", "--to", "2026-11-22", "--dry-run", "--json"
    )

    assert [one["day"] for one in msgspec.json.decode(result.stdout)] == ["2026-11-19", DAY, NEXT]


TABLES = st.lists(
    st.tuples(
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.sampled_from(["", "a", "b"]),
        st.none() | st.integers(0, 2),
    ),
    max_size=6,
)


def to_table(rows: list[tuple]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    kinds = pa.timestamp("ns"), pa.string(), pa.int32()
    return pa.table(
        [pa.array(values, kind) for values, kind in zip(columns, kinds, strict=True)], ["at", "text", "flag"]
    )


@settings(max_examples=300, deadline=None)
@given(one=TABLES, other=TABLES, seed=st.integers(0, 99))
def test_two_tables_have_the_same_hash_if_and_only_if_they_have_the_same_rows(
    one: list[tuple], other: list[tuple], seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(one))
    assert hash_rows(to_table(one)) == hash_rows(to_table([one[at] for at in order]))
    are_same = sorted(map(repr, one)) == sorted(map(repr, other))
    assert (hash_rows(to_table(one)) == hash_rows(to_table(other)) and len(one) == len(other)) == are_same
