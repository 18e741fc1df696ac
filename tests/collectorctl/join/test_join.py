"""`collectorctl join`: a day of two homes is one certified day, whole or not there, and the homes are as they were."""

from __future__ import annotations

import os
import shutil
from datetime import date
from functools import partial
from hashlib import sha256
from pathlib import Path

import msgspec
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support.certified_day import certify_day, run
from support.kill_at_call import EXIT_KILLED, run_killed_at
from support.stored_day import DAY, SYMBOLS, make_stored_day

from collectorctl.join import job
from collectorctl.join.job import join_day
from conf.files import new_directory as new_directory_module
from writer import durable_io

A_ONLY, B_ONLY, BOTH = SYMBOLS[1], SYMBOLS[2], SYMBOLS[0]
CLOCK_OFF = pd.Timedelta(milliseconds=30)
NEVER = 10**6
HOLE_A, HOLE_B = ("09:20", "09:30"), ("09:40", "09:50")


def at(text: str) -> pd.Timestamp:
    return pd.Timestamp(f"{DAY} {text}", tz="Asia/Seoul")


def edit(root: Path, without: str, hole: tuple[str, str], clock_off: pd.Timedelta) -> None:
    """Take an instrument and a span of another out of a home, and put its clock off."""
    for stream in ("orderbook", "tick"):
        for path in (root / f"data/kr/{stream}/date={DAY}").rglob("part-*"):
            rows = pq.read_table(path, partitioning=None).filter(pc.field("symbol") != without)
            begin, end = map(at, hole)
            is_lost = (pc.field("symbol") == BOTH) & (pc.field("exch_time") >= begin) & (pc.field("exch_time") < end)
            rows = rows.filter(~is_lost)
            for name in [name for name in rows.column_names if name.startswith("recv_time")]:
                moved = pc.add(rows[name], clock_off.to_timedelta64()).cast(rows.schema.field(name).type)
                rows = rows.set_column(rows.column_names.index(name), rows.schema.field(name), moved)
            pq.write_table(rows, path)


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """What the market was, and two homes with an instrument of their own, one in common, and a hole each."""
    directory = tmp_path_factory.mktemp("homes")
    truth = make_stored_day(directory / "truth", counted=False)
    certify_day(truth)
    found = []
    for name, lacks, hole, off in (("a", B_ONLY, HOLE_A, pd.Timedelta(0)), ("b", A_ONLY, HOLE_B, CLOCK_OFF)):
        root = Path(shutil.copytree(truth, directory / name))
        for left in ("completeness", "event"):
            shutil.rmtree(root / "data/kr" / left)
        shutil.rmtree(root / "data/recover")
        edit(root, lacks, hole, off)
        certify_day(root, symbols=tuple(symbol for symbol in SYMBOLS if symbol != lacks))
        found.append(root)
    return truth, found[0], found[1]


def join(one: Path, other: Path, into: Path) -> tuple[int, dict]:
    """The exit status, and what came of the day."""
    result = run(one, "join", "--date", DAY, "--from", str(other), "--into", str(into), "--json")
    assert result.stdout, result.output
    return result.exit_code, msgspec.json.decode(result.stdout)[0]


def read(root: Path, stream: str, columns: list[str]) -> pd.DataFrame:
    rows = pd.read_parquet(root / "data/kr" / stream / f"date={DAY}")[columns]
    return rows.sort_values(["symbol", "exch_time"]).reset_index(drop=True)


def hash_tree(root: Path) -> dict[str, str]:
    return {
        str(path): sha256(path.read_bytes()).hexdigest()
        for path in sorted((root / "data").rglob("*"))
        if path.is_file()
    }


def test_the_day_of_two_homes_is_that_of_the_market_and_is_proven(
    homes: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """Neither home had it; each book and each share is there once, and the record says from where."""
    truth, one, other = homes
    before = hash_tree(one) | hash_tree(other)
    assert run(one, "verify", "--date", DAY).stdout.count("INCOMPLETE") >= 1
    status, found = join(one, other, tmp_path / "day")
    joined = tmp_path / "day"

    assert (status, found["outcome"]) == (0, "joined"), found
    verified = run(joined, "verify", "--date", DAY)
    assert (verified.exit_code, verified.stdout.count("PROVEN")) == (0, 3)
    ticks = ["symbol", "venue", "exch_time", "price", "size", "cum_volume"]
    pd.testing.assert_frame_equal(read(joined, "tick", ticks), read(truth, "tick", ticks))
    levels = ["ask_price_1", "ask_size_1", "bid_price_1", "bid_size_1", "total_ask_size", "seq"]
    books = ["symbol", "venue", "exch_time", "cum_volume", *levels]
    pd.testing.assert_frame_equal(read(joined, "orderbook", books), read(truth, "orderbook", books))

    arrivals = ["symbol", "exch_time", "recv_time", "recv_time_kis", "recv_time_kiwoom"]
    mine, true = read(joined, "orderbook", arrivals), read(truth, "orderbook", arrivals)
    in_hole = (true.symbol == BOTH) & (true.exch_time >= at(HOLE_A[0])) & (true.exch_time < at(HOLE_A[1]))
    is_b = in_hole | (true.symbol == B_ONLY)
    for name in arrivals[2:]:
        true.loc[is_b, name] += CLOCK_OFF
    pd.testing.assert_frame_equal(mine, true)

    (shared,) = (each for each in found["result"]["instruments"] if each["instrument"] == BOTH)
    assert (shared["rows"]["tick"], shared["joined"]["tick"]) == ([50, 50], 60)
    assert [each["path"] for each in found["result"]["homes"]] == [str(one), str(other)]
    assert hash_tree(one) | hash_tree(other) == before
    assert run(one, "copy", "--check", "--to", str(joined)).exit_code == 0
    assert run(joined, "copy", "--date", DAY, "--to", str(tmp_path / "archive")).exit_code == 0
    again = join(joined, one, tmp_path / "again")
    assert again[0] == 0
    pd.testing.assert_frame_equal(read(tmp_path / "again", "orderbook", books), read(truth, "orderbook", books))


def test_what_cannot_be_joined_is_refused_in_words_and_nothing_is_made(
    homes: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """A place that exists, a home without certificates, official volumes that differ, a copy with a changed byte."""
    _, one, other = homes
    into = tmp_path / "day"
    (tmp_path / "taken").mkdir()
    taken = join(one, other, tmp_path / "taken")
    bare = Path(shutil.copytree(other, tmp_path / "bare"))
    shutil.rmtree(bare / "data/kr/completeness")
    uncertified = join(one, bare, into)
    certify_day(bare, symbols=(BOTH, B_ONLY), lacking=(BOTH,))
    differing = join(one, bare, into)
    copy = tmp_path / "copy"
    run(other, "copy", "--date", DAY, "--to", str(copy))
    manifest = copy / f"manifest/kr/{DAY}.json"
    manifest.write_text(manifest.read_text().replace('"sha256": "', '"sha256": "0'))
    changed = join(one, copy, into)
    itself = run(one, "join", "--date", DAY, "--from", str(one), "--into", str(into))

    assert [status for status, _ in (taken, uncertified, differing, changed)] == [1] * 4
    assert "exists already" in taken[1]["note"]
    assert "no certificate of" in uncertified[1]["note"] and str(bare) in uncertified[1]["note"]
    assert "official volumes" in differing[1]["note"] and "300" in differing[1]["note"]
    assert "is not what" in changed[1]["note"]
    assert (itself.exit_code, "names a home twice" in itself.stderr) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare", "copy", "taken"]


def check_killed(homes: tuple[Path, Path, Path], into: Path, count: int) -> None:
    """Killed before the count-th step there is nothing; the next run makes the day."""
    _, one, other = homes
    calls = ((durable_io, "rename"), (job, "verify_stored"), (new_directory_module, "_sync"), (os, "rename"))
    status = run_killed_at(count, calls, partial(join_day, [one, other], date.fromisoformat(DAY), into))
    assert (status, into.exists()) == ((0, True) if count == NEVER else (EXIT_KILLED, False))
    if not into.exists():
        join_day([one, other], date.fromisoformat(DAY), into)
    assert run(into, "verify", "--date", DAY).stdout.count("PROVEN") == 3
    assert [path.name for path in into.parent.glob(".*.new")] == []


def test_killed_in_the_middle_there_is_no_day_and_the_next_run_makes_it(
    homes: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    check_killed(homes, tmp_path / "day", 6)


@pytest.mark.long
@pytest.mark.parametrize("count", [*range(1, 21), NEVER])
def test_killed_at_any_step_there_is_nothing_or_the_whole_day_and_the_next_run_makes_it(
    homes: tuple[Path, Path, Path], tmp_path: Path, count: int
) -> None:
    check_killed(homes, tmp_path / "day", count)
