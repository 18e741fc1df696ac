"""Stored books and ticks as a reader gets them: what was absent, the order of trades, the book before a trade, instants."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support.writer_data import NINE_NS, SECOND_NS, make_books, make_home, make_ticks

import collectorctl
from brokers.history import TRADE_ROW
from collectorctl.reader.home import HomeReader
from collectorctl.recover.store.publish import to_published_rows
from conf.instrument import Instrument
from ringbuf.records import UNDEFINED, FeedId
from writer.catalog import hour_directory
from writer.publish.records import publish_records

DAY = dt.datetime.fromtimestamp(NINE_NS / SECOND_NS, dt.timezone(dt.timedelta(hours=9))).date()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> HomeReader:
    """Forty books and six ticks of one stock, of which one was recovered and came last to the files."""
    made = make_home(tmp_path_factory.mktemp("home"))
    books = make_books(range(40), symbols=1)
    books["symbol"] = b"005930"
    books["recv_ns"] = NINE_NS + np.arange(40) * SECOND_NS
    books["mid_price_e4"], books["mid_size"], books["expected_price_e4"], books["expected_size"] = 0, 0, 0, UNDEFINED
    books["ask_price_e4"][:, 9], books["ask_size"][:, 9] = 0, 0
    ticks = make_ticks([10, 11, 13, 14, 15])
    ticks["recv_ns"] = NINE_NS + np.array([1, 2, 2, 3, 3]) * SECOND_NS + SECOND_NS // 2
    recovered = make_ticks([12], FeedId.GAPFILL)
    for dataset, records, lineage in (
        ("kr.orderbook", books, "books"),
        ("kr.tick", ticks, "ticks"),
        ("kr.tick", recovered, "recovered"),
    ):
        directory = made.data / dataset.replace(".", "/")
        publish_records(directory, dataset, records, lineage, made.settings.writer, SECOND_NS)
    return collectorctl.open(made.root)


def test_a_price_that_the_exchange_did_not_give_is_null_and_never_zero(home: HomeReader) -> None:
    """The empty tenth level, the midpoint that nobody trades, the expected price outside auctions."""
    books = home.books("005930", DAY)

    assert len(books) == 40
    for name in ("ask_price_10", "ask_size_10", "mid_price", "mid_size", "expected_price"):
        assert books[name].isna().all()
    assert (books["ask_price_1"] > 70_000 - 1).all()
    assert books["recv_time"].is_monotonic_increasing


def test_it_is_null_in_the_files_and_files_of_before_are_read_so(home: HomeReader, tmp_path: Path) -> None:
    """Where a file has the vendor's 0, as files of version 1 do."""
    (path,) = (home._home.data / "kr/orderbook").rglob("part-*.parquet")
    stored = pq.ParquetFile(path).read()
    assert stored.schema.metadata[b"schema_version"] == b"2"
    for name in ("ask_price_10", "ask_size_10", "mid_price", "mid_size", "expected_price", "expected_size"):
        assert stored[name].null_count == len(stored)
        at = stored.schema.get_field_index(name)
        stored = stored.set_column(at, stored.schema.field(at), pc.fill_null(stored[name], 0))
    former = make_home(tmp_path)
    former_path = former.root / path.relative_to(home._home.root)
    former_path.parent.mkdir(parents=True)
    pq.write_table(stored.replace_schema_metadata({"schema_version": "1"}), former_path)

    assert collectorctl.open(former.root).books("005930", DAY).equals(home.books("005930", DAY))


def test_ticks_come_in_the_order_of_the_trades_and_recovered_ones_in_their_places(home: HomeReader) -> None:
    ticks = home.ticks("005930", str(DAY))

    assert ticks["cum_volume"].tolist() == [10, 11, 12, 13, 14, 15]
    assert ticks["source"].tolist() == ["live", "live", "recovered", "live", "live", "live"]


def test_each_received_trade_has_the_book_before_it_and_a_recovered_one_has_none(home: HomeReader) -> None:
    ticks = home.ticks("005930", DAY, join_books=True)
    books = home.books("005930", DAY)

    assert ticks["cum_volume"].tolist() == [10, 11, 12, 13, 14, 15]
    received = ticks[ticks["recv_time"].notna()]
    for tick in received.itertuples():
        before = books[books["recv_time"] < tick.recv_time].iloc[-1]
        assert (tick.book_recv_time, tick.book_ask_price_1) == (before["recv_time"], before["ask_price_1"])
    assert ticks[ticks["recv_time"].isna()]["book_recv_time"].isna().all()


def test_the_book_at_an_instant_is_the_newest_of_then_with_its_age(home: HomeReader) -> None:
    at = f"{DAY}T09:00:07.250"

    found = home.book_at("005930", at)

    assert found is not None
    assert (found.book["cum_volume"], found.age) == (7, dt.timedelta(milliseconds=250))
    assert home.book_at("005930", f"{DAY}T08:59:59") is None


def test_sessions_of_files_of_before_are_mended(tmp_path: Path) -> None:
    """Recovered rows in capitals, and without one; what was received without one stays so."""
    made = make_home(tmp_path)
    rows = to_published_rows(Instrument("005930", "KRX"), np.zeros(3, TRADE_ROW), "kiwoom", lambda *_: None)
    nine = dt.datetime.fromtimestamp(NINE_NS / SECOND_NS, dt.UTC)
    columns = {"exch_time": [nine] * 3, "cum_volume": [1, 2, 3], "session": ["REGULAR", "UNKNOWN", "unknown"]}
    columns["source"] = ["recovered", "recovered", "live"]
    for name, values in columns.items():
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))
    path = hour_directory(made.data / "kr/tick", NINE_NS) / "part-0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(rows, path)

    ticks = collectorctl.open(made.root).ticks("005930", DAY)

    assert ticks["session"].tolist() == ["regular", "regular", "unknown"]


def test_a_table_has_the_form_that_is_asked_for(home: HomeReader) -> None:
    arrow = home.books("005930", DAY, form="arrow")

    assert arrow.to_pandas().equals(home.books("005930", DAY))
    assert pa.types.is_int64(arrow.schema.field("mid_price").type)
    with pytest.raises(ValueError, match="no such form"):
        home.books("005930", DAY, form="numpy")  # type: ignore[call-overload]


def test_a_day_without_rows_is_empty_and_a_place_without_a_home_is_named(home: HomeReader, tmp_path: Path) -> None:
    assert home.books("005930", "2020-01-02").empty
    assert home.ticks("000660", DAY, join_books=True).empty
    assert home.certificate(DAY).empty
    with pytest.raises(FileNotFoundError, match="no collector"):
        collectorctl.open(tmp_path)
    with pytest.raises(ValueError, match="no such stream"):
        home.table("trades", "005930", DAY)


def test_the_package_tells_type_checkers_that_it_has_types() -> None:
    assert files("collectorctl").joinpath("py.typed").is_file()


def test_a_script_beside_a_clone_imports_the_package_and_not_the_clones_folder(tmp_path: Path) -> None:
    """The folder of a clone is named as the package in it, and Python looks beside a script first."""
    (tmp_path / "collectorctl").mkdir()
    script = tmp_path / "plot.py"
    script.write_text("import collectorctl\nprint(collectorctl.open.__name__)\n")

    ran = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert ran.stdout == "open\n"


def test_the_package_is_imported_without_any_library() -> None:
    """What costs time comes with the first home."""
    script = "import sys, collectorctl; print(sorted({'numpy', 'pyarrow', 'pandas', 'loguru'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
