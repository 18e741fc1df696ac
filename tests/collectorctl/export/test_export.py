"""Exported days: what is in them, what is refused, what a second run and a kill leave."""

from __future__ import annotations

import csv
import gzip
import hashlib
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.certified_day import certify_day
from support.stored_day import DAY, SYMBOLS, make_stored_day
from support.us_day import make_us_day, ny
from support.writer_data import make_ticks

import collectorctl
from collectorctl.cli import main
from collectorctl.export.manifest import Manifest
from collectorctl.recover import us_job
from collectorctl.recover.certificate import store
from conf.home import Home
from conf.market import US
from ringbuf.records import FeedId, Venue
from writer.journal.entries import JOURNAL, build_entries
from writer.journal.journal import Journal

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored day, every instrument PROVEN."""
    root = make_stored_day(tmp_path_factory.mktemp("home"), counted=False)
    certify_day(root)
    return root


def export(root: Path, out: Path, *options: str, form: str = "csv") -> Result:
    return CliRunner().invoke(
        main, ["--home", str(root), "export", "--date", DAY, "--format", form, "--out", str(out), *options]
    )


def load_manifest(out: Path) -> Manifest:
    return msgspec.json.decode((out / DAY / "manifest.json").read_bytes(), type=Manifest)


def read_rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        return list(csv.DictReader(file))


def read_all(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_day_is_exported_with_its_certificates_its_gaps_and_a_hash_of_every_file(
    certified: Path, tmp_path: Path
) -> None:
    result = export(certified, tmp_path)
    manifest = load_manifest(tmp_path)

    assert (result.exit_code, "3 PROVEN" in result.output) == (0, True), result.output
    assert (manifest.is_whole, [one.certificate for one in manifest.instruments]) == (True, ["PROVEN"] * 3)
    for entries, directory in ((manifest.files, tmp_path / DAY), (manifest.sources, certified / "data")):
        assert {one.path: one.sha256 for one in entries} == {
            one.path: hashlib.sha256((directory / one.path).read_bytes()).hexdigest() for one in entries
        }
    assert {one.path for one in manifest.files} == set(read_all(tmp_path / DAY)) - {"manifest.json"}
    home = collectorctl.open(certified)
    for symbol in SYMBOLS:
        for stream in ("orderbook", "tick"):
            rows = read_rows(tmp_path / DAY / stream / f"{symbol}.csv.gz")
            stored = home.table(stream, symbol, DAY).to_pylist()
            assert len(rows) == len(stored) > 0
            assert [row["ask_price_1"] for row in rows] == [str(row["ask_price_1"] or "") for row in stored]
    ticks = read_rows(tmp_path / DAY / "tick" / "000660.csv.gz")
    assert (ticks[40]["recv_time"], ticks[41]["recv_time"]) == ("", "2026-11-20T09:41:30.000000000+0900")
    holes = [(row["begin"][11:19], row["end"][11:19]) for row in read_rows(tmp_path / DAY / "gaps.csv.gz")]
    assert holes == [("08:30:00", "08:54:30"), ("09:10:00", "09:11:30")] * 3


def test_shares_without_a_trade_are_in_the_table_and_the_exit_status_says_that_the_day_is_not_whole(
    certified: Path, tmp_path: Path
) -> None:
    root = tmp_path / "home"
    shutil.copytree(certified, root)
    certify_day(root, lacking=("000660",))

    result = export(root, tmp_path / "out")
    missing = [row for row in read_rows(tmp_path / "out" / DAY / "gaps.csv.gz") if row["stream"] == "tick"]

    assert (result.exit_code, "not whole" in result.stderr) == (1, True)
    assert [(row["instrument"], row["volume_from"], row["volume_to"], row["shares"]) for row in missing] == [
        ("000660", "300", "307", "7")
    ]
    assert not load_manifest(tmp_path / "out").is_whole


@pytest.mark.parametrize("case", ["missing", "contradicted"])
def test_a_day_without_a_certificate_that_holds_is_exported_on_request_only(
    certified: Path, tmp_path: Path, case: str
) -> None:
    root = tmp_path / "home"
    shutil.copytree(certified, root)
    if case == "missing":
        shutil.rmtree(root / "data/kr/completeness")
    else:
        shutil.rmtree(root / "data/recover")

    refused = export(root, tmp_path / "out")
    nothing = not (tmp_path / "out").exists()
    forced = export(root, tmp_path / "out", "--uncertified")
    again = export(root, tmp_path / "out")

    assert (refused.exit_code, nothing, "--uncertified" in refused.stderr) == (1, True, True)
    assert (forced.exit_code, "not whole" in forced.stderr) == (1, True)
    assert [one.holds for one in load_manifest(tmp_path / "out").instruments] == [False] * 3
    assert (again.exit_code, "--uncertified again" in again.stderr) == (1, True)


def test_a_second_run_changes_nothing_and_what_is_damaged_or_another_is_never_replaced(
    certified: Path, tmp_path: Path
) -> None:
    export(certified, tmp_path)
    before = read_all(tmp_path)
    export(certified, tmp_path / "other")

    again = export(certified, tmp_path)
    other = export(certified, tmp_path, form="hftbacktest")
    assert (again.exit_code, other.exit_code) == (0, 1)
    assert {name: each for name, each in read_all(tmp_path).items() if not name.startswith("other")} == before
    assert read_all(tmp_path / "other") == before  # equal files of a home, equal bytes

    path = tmp_path / DAY / "tick/005930.csv.gz"
    path.write_bytes(path.read_bytes()[:-1])
    damaged = export(certified, tmp_path)
    assert (damaged.exit_code, "tick/005930.csv.gz" in damaged.stderr) == (1, True)
    assert len(path.read_bytes()) == len(before[f"{DAY}/tick/005930.csv.gz"]) - 1


def test_hftbacktest_gets_one_array_a_symbol(certified: Path, tmp_path: Path) -> None:
    result = export(certified, tmp_path, "--symbols", "000660", form="hftbacktest")
    events = np.load(tmp_path / DAY / "000660.npz")["data"]

    assert result.exit_code == 0, result.output
    assert ((events["ev"] & 0xFF) == 2).sum() == 60
    assert (np.diff(events["exch_ts"]) >= 0).all()


def test_nautilus_reads_the_catalog_and_has_every_book_and_trade(certified: Path, tmp_path: Path) -> None:
    pytest.importorskip("nautilus_trader", reason="extra [export]")
    from nautilus_trader.persistence.catalog import ParquetDataCatalog

    result = export(certified, tmp_path, form="nautilus")
    assert result.exit_code == 0, result.output
    catalog = ParquetDataCatalog(str(tmp_path / DAY / "catalog"))
    home = collectorctl.open(certified)

    assert [str(one.id) for one in catalog.instruments()] == [f"{symbol}.KRX" for symbol in sorted(SYMBOLS)]
    for symbol in SYMBOLS:
        books = home.table("orderbook", symbol, DAY).sort_by("recv_time").to_pylist()
        depths = [one for one in catalog.order_book_depth10(instrument_ids=[f"{symbol}.KRX"]) if int(one.bids[0].size)]
        assert [(int(one.bids[0].price), int(one.asks[0].size), one.ts_init) for one in depths] == [
            (row["bid_price_1"], row["ask_size_1"], row["recv_time"].value) for row in books
        ]
        trades = catalog.trade_ticks(instrument_ids=[f"{symbol}.KRX"])
        assert [int(one.size) for one in trades] == [5] * 60


def test_a_killed_export_leaves_no_directory_of_that_name_and_the_next_run_makes_it(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from conf.files.new_directory import new_directory\n"
        "with new_directory(Path(sys.argv[1])) as made:\n"
        "    (made / 'a').write_text('half'); sys.argv[2:] and os.kill(os.getpid(), signal.SIGKILL)"
    )
    target = tmp_path / "day"
    killed = subprocess.run([sys.executable, "-c", script, target, "kill"], cwd=ROOT, check=False, timeout=60)
    left = [path.name for path in tmp_path.iterdir()]
    subprocess.run([sys.executable, "-c", script, target], cwd=ROOT, check=True, timeout=60)
    third = subprocess.run(
        [sys.executable, "-c", script, target], cwd=ROOT, check=False, timeout=60, capture_output=True
    )

    assert (killed.returncode, len(left), "day" in left) == (-9, 1, False)
    assert ([path.name for path in tmp_path.iterdir()], (target / "a").read_text()) == (["day"], "half")
    assert b"FileExistsError" in third.stderr


def test_a_day_of_which_only_the_journal_has_rows_is_not_exported_whatever_is_asked(
    certified: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(certified, tmp_path / "home"))
    journal = Journal.open(Home(root).journal_directory("kr.tick"), JOURNAL["kr.tick"])
    journal.roll([])
    journal.append(build_entries("kr.tick", make_ticks(range(3)), 1, None), {})
    journal.close()

    result = export(root, tmp_path / "out", "--uncertified")

    assert (result.exit_code, "kr.tick 09" in result.stderr, (tmp_path / "out").exists()) == (1, True, False)


def test_what_cannot_be_exported_is_a_usage_error(certified: Path, tmp_path: Path) -> None:
    for options, word in ((["--symbols", "NAS.AAPL"], "not of the market kr"), (["--last", "3d"], "name the days")):
        result = export(certified, tmp_path, *options)
        assert (result.exit_code, word in result.stderr) == (2, True), result.stderr


@pytest.fixture(scope="module")
def us_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stored US day of which no minute bars could be had."""
    home = make_us_day(tmp_path_factory.mktemp("us_home"))
    day = date.fromisoformat(DAY)
    found = [us_job.compute_certificate(home.data, day, one) for one in home.settings.instruments("us")]
    store.save(home.data, day, found, f"{DAY}T20:10:00-0500", US)
    return home.root


def test_a_us_day_is_that_of_its_sessions_in_dollars_and_new_yorks_time(us_root: Path, tmp_path: Path) -> None:
    """Of the day market the session that ended on the day; it is never whole, since no list of its trades exists."""
    result = export(us_root, tmp_path, "--market", "us")
    manifest, out = load_manifest(tmp_path), tmp_path / DAY

    assert (result.exit_code, "not whole" in result.stderr) == (1, True), result.output
    assert [(one.instrument, one.certificate, one.holds, one.books, one.ticks) for one in manifest.instruments] == [
        *(("NYS.BRK/B", "INCOMPLETE", True, 1, 1), ("NAS.NVDA", "INCOMPLETE", True, 2, 4)),
        ("BAQ.NVDA", "INCOMPLETE", True, 0, 1),
    ]
    day_market = read_rows(out / "tick/BAQ.NVDA.csv.gz")
    assert [(row["cum_volume"], row["exch_time"]) for row in day_market] == [
        ("90", "2026-11-19T23:59:59.000000000-0500")
    ]
    regular = read_rows(out / "tick/NAS.NVDA.csv.gz")
    assert [(row["price"], row["cum_volume"], row["size"]) for row in regular] == [
        *[("180.325", "10", "10")] * 2,
        *(("180.325", "10", "0"), ("180.325", "16", "1")),
    ]
    assert len(read_rows(out / "orderbook/NYS.BRK_B.csv.gz")) == 1
    gaps = [row for row in read_rows(out / "gaps.csv.gz") if row["instrument"] == "NAS.NVDA"]
    assert [(row["begin"][:25], row["end"][:25], row["shares"]) for row in gaps] == [
        (f"{DAY}T11:59:00.00000", f"{DAY}T12:05:00.00000", ""),
        (f"{DAY}T09:30:00.00000", f"{DAY}T09:30:02.00000", "5"),
    ]
    assert {one.path.partition("/")[0] for one in manifest.sources} == {"us"}
    assert export(us_root, tmp_path, "--market", "us").exit_code == 1
    assert load_manifest(tmp_path) == manifest


def test_a_us_trade_that_came_twice_fills_no_order_twice(us_root: Path, tmp_path: Path) -> None:
    """And one of less than a share is none; a hole clears the depth."""
    export(us_root, tmp_path, "--market", "us", "--symbols", "NAS.NVDA", form="hftbacktest")
    events = np.load(tmp_path / DAY / "NAS.NVDA.npz")["data"]
    trades, cleared = (events[events["ev"] & 0xFF == kind] for kind in (2, 3))

    assert [(one["px"], one["qty"]) for one in trades] == [(180.325, 10.0), (180.325, 1.0)]
    assert sorted(set(cleared["local_ts"].tolist())) == [ny(f"{DAY} {at}") for at in ("09:30:01", "11:59", "15:59:59")]
    depth = events[events["ev"] & 0xFF == 4]
    assert (depth["px"].min(), depth["px"].max()) == (180.23, 180.42)


def test_nautilus_has_us_prices_to_the_ten_thousandth_dollar(us_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("nautilus_trader", reason="extra [export]")
    from nautilus_trader.persistence.catalog import ParquetDataCatalog

    export(us_root, tmp_path, "--market", "us", "--symbols", "NAS.NVDA,NYS.BRK/B", form="nautilus")
    catalog = ParquetDataCatalog(str(tmp_path / DAY / "catalog"))

    equities = {str(one.id): (str(one.quote_currency), str(one.price_increment)) for one in catalog.instruments()}
    assert equities == {name: ("USD", "0.0001") for name in ("BRK/B.NYSE", "NVDA.NASDAQ")}
    assert [str(one.price) for one in catalog.trade_ticks(instrument_ids=["NVDA.NASDAQ"])] == ["180.3250"] * 2
    depths = catalog.order_book_depth10(instrument_ids=["NVDA.NASDAQ"])
    assert [str(one.bids[0].price) for one in depths if int(one.bids[0].size)] == ["180.3200"] * 2


def test_a_us_day_is_refused_with_the_command_that_certifies_it_and_while_its_sessions_are_in_the_journal(
    us_root: Path, tmp_path: Path
) -> None:
    """The hours of the day market's next session, in the same evening, are no hindrance."""
    root = Path(shutil.copytree(us_root, tmp_path / "home"))
    shutil.rmtree(root / "data/us/completeness")
    refused = export(root, tmp_path / "out", "--market", "us")
    assert (refused.exit_code, f"recover --date {DAY} --market us" in refused.stderr) == (1, True)
    for at, is_hindered in (("20:30", False), ("15:00", True)):
        journal = Journal.open(Home(root).journal_directory("us.tick"), JOURNAL["us.tick"])
        journal.roll([])
        records = make_ticks([1], FeedId.US, ny(f"{DAY} {at}"))
        records["symbol"], records["venue"] = b"NVDA", Venue.NASDAQ
        journal.append(build_entries("us.tick", records, journal.last_row + 1, None), {})
        journal.close()
        result = export(root, tmp_path / at, "--market", "us", "--uncertified")
        assert ("us.tick 15" in result.stderr, (tmp_path / at / DAY).exists()) == (is_hindered, not is_hindered)
