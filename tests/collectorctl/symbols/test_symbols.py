"""Symbols of a home: update from both vendors, the table, and what it is used for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from support.process_tree import QUICK, run_collectorctl, temporary_home
from support.stored_day import HOSTILE, make_stored_day

from brokers.symbols import SymbolRow
from collectorctl.check import check_home
from collectorctl.cli import main
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.explain.render import format_timeline
from collectorctl.explain.timeline import build_timeline
from collectorctl.live_check import machine
from collectorctl.report.store import write_report
from collectorctl.symbols.names import insert_names, read_names
from collectorctl.symbols.selection import select_symbols
from collectorctl.symbols.store import SymbolTableError, load_symbols, store_symbols
from collectorctl.symbols.table import SCHEMA, build_table
from collectorctl.symbols.universe import judge_universe
from collectorctl.symbols.update import find_objection, update_symbols
from collectorctl.verdict.collect import read_disk_room
from conf.clock import KST
from conf.home import Home
from conf.instrument import Instrument

DAY = date(2026, 11, 20)
SETTINGS = QUICK + '[universe]\nkr = ["005930", "005930_NX", "Q500001"]\n[recover]\ncalls_per_s_first = 4.0\n'


@pytest.fixture(scope="module")
def served() -> Iterator[Path]:
    """A home at a simulator, whose table was updated."""
    with temporary_home(SETTINGS) as root, SimulatorProcess(root, root / "truth") as simulator:
        set_addresses(root, simulator.addresses)
        yield root


@pytest.fixture(scope="module")
def updated(served: Path) -> Home:
    """The same home with today's table."""
    home = Home(served)
    report = update_symbols(home)
    assert report.is_complete, report
    return home


@pytest.fixture
def home() -> Iterator[Home]:
    """An empty home."""
    with temporary_home(SETTINGS) as root:
        yield Home(root)


def run(home: Home, *arguments: str) -> Result:
    """A command about symbols, in this process."""
    return CliRunner().invoke(main, ["--home", str(home.root), "symbols", *arguments])


def stock(symbol: str, **fields: object) -> SymbolRow:
    return SymbolRow(symbol, f"이름{symbol}", "KOSPI", "STOCK")._replace(**fields)


def test_both_vendors_lists_become_one_dated_table(updated: Home) -> None:
    """Each symbol once, with what either vendor has of it."""
    path = updated.data / "kr" / "symbol" / "date=2026-11-20" / "part-0.parquet"
    rows = {row["symbol"]: row for row in pq.ParquetFile(path).read().to_pylist()}

    assert pq.ParquetFile(path).schema_arrow.names == SCHEMA.names
    assert {"005930", "Q500001", "069500", "F70900001", "247540", "0004Y0", "112190"} <= set(rows)
    samsung = rows["005930"]
    assert (samsung["market"], samsung["kind"], samsung["nxt_eligible"]) == ("KOSPI", "STOCK", True)
    assert samsung["base_price"] > 0 and samsung["previous_close"] > 0  # the day may begin between the two lists
    assert (samsung["in_kis"], samsung["in_kiwoom"], samsung["differs"]) == (True, True, [])
    assert (rows["Q500001"]["kind"], rows["Q500001"]["tick_table"]) == ("ETN", "ETP")
    assert (rows["0004Y0"]["kind"], rows["0004Y0"]["market"]) == ("SPAC", "KOSDAQ")
    assert (rows["001234"]["halted"], rows["001234"]["managed"]) == (True, True)
    assert (rows["F70900001"]["in_kiwoom"], rows["F70900001"]["nxt_eligible"]) == (False, None)
    assert all(row["upper_limit"] is None for row in rows.values())


def test_the_commands_find_a_symbol_by_name_and_show_all_of_it(updated: Home) -> None:
    """Korean and English, with JSON; a symbol that is not there is exit 1, and so is a second vendor that cannot be read."""
    found = run(updated, "search", "모의 정지")
    shown = run(updated, "show", "005930_NX", "--json")
    absent = run(updated, "show", "999999")

    assert found.stdout.splitlines()[0].split() == ["001234", "모의정지", "KOSPI", "STOCK", "halted", "managed"]
    assert msgspec.json.decode(shown.stdout)["symbol"] == "005930"
    assert (absent.exit_code, "not in the table of 2026-11-20" in absent.stderr) == (1, True)


def test_a_vendor_that_cannot_be_read_is_named_and_takes_nothing_from_the_days_table(updated: Home) -> None:
    """The better table stays; the command is not called done."""
    settings = updated.root / "collector.toml"
    text = settings.read_text()
    before = load_symbols(updated, DAY).table
    try:
        settings.write_text(text.replace("/common/master", "/common/nowhere"))
        ran = run(updated, "update")
    finally:
        settings.write_text(text)

    assert ran.exit_code == 1
    assert "kis      failed: " in ran.stdout and "HTTP 404" in ran.stdout
    assert "not stored: the table of 2026-11-20 has kis's list as well" in ran.stdout
    assert load_symbols(updated, DAY).table == before


def test_what_the_vendors_have_differently_is_reported_and_marked() -> None:
    """The first vendor's value is stored; a name written apart, thousands of shares and a SPAC called stock differ in nothing."""
    kis = [stock("000001", halted=False, listed_shares=5_000), stock("000002"), stock("000003", kind="SPAC")]
    kiwoom = [stock("000001", name="이름 000001", halted=True, listed_shares=5_999), stock("000003"), stock("000004")]

    table, differences = build_table({"kis": kis, "kiwoom": kiwoom})
    rows = table.to_pylist()

    assert differences == [("000001", "halted", {"kis": False, "kiwoom": True})]
    assert [row["differs"] for row in rows] == [["halted"], [], [], []]
    assert [(row["in_kis"], row["in_kiwoom"]) for row in rows] == [
        (True, True),
        (True, False),
        (True, True),
        (False, True),
    ]
    assert (rows[0]["halted"], rows[2]["kind"]) == (False, "SPAC")


def test_a_vendor_that_was_not_read_says_nothing_about_any_symbol() -> None:
    """Null, not "it does not list it"."""
    table, _ = build_table({"kis": [stock("000001")]})

    assert table["in_kiwoom"].to_pylist() == [None]


def test_a_list_cut_short_is_not_stored(home: Home) -> None:
    """Its symbols would look delisted; a few that went are a usual night."""
    many = [stock(f"{number:06}") for number in range(100)]
    table, _ = build_table({"kis": many})
    store_symbols(home, date(2026, 11, 19), table)
    last = load_symbols(home, DAY)
    for kept, objection in ((95, ""), (50, "kis lists 50 symbols, 100 on 2026-11-19")):
        lists = {"kis": many[:kept]}

        found = find_objection(build_table(lists)[0], lists, last, DAY)

        assert found.startswith(objection) and bool(found) == bool(objection)


def test_the_newest_table_not_after_a_day_is_read_by_column(home: Home) -> None:
    """A past day's own table; None before the first; an unreadable one is named with its remedy."""
    for day, symbol in ((date(2026, 11, 18), "000001"), (date(2026, 11, 20), "000002")):
        store_symbols(home, day, build_table({"kis": [stock(symbol)]})[0])

    found = load_symbols(home, date(2026, 11, 19), ["symbol"])

    assert (found.day, found.table.to_pydict()) == (date(2026, 11, 18), {"symbol": ["000001"]})
    assert load_symbols(home, date(2026, 11, 17)) is None
    assert read_names(home) == {"000002": "이름000002"}
    assert home.run.stat().st_mode & 0o777 == 0o700 and not (home.run / "ring").exists()
    home.symbol_path(DAY).write_bytes(b"PAR1")
    with pytest.raises(SymbolTableError, match="remove it, then run `collectorctl symbols update`"):
        load_symbols(home, DAY)


def judge(home: Home, today: date, *codes: str, language: str = "en") -> tuple[list[str], list[str]]:
    """What `check` tells of such a universe on a day: faults, warnings."""
    (home.root / "collector.toml").write_text(f"{QUICK}[universe]\nkr = {msgspec.json.encode(codes).decode()}\n")
    faults, warnings = judge_universe(Home(home.root), today, language)
    return [fault.format(language) for fault in faults], warnings


def test_codes_that_a_fresh_table_lacks_are_faults_and_an_old_one_refuses_nothing(home: Home) -> None:
    """Unknown and delisted are told apart by the earlier tables; after a week both are warnings with the table's age."""
    assert judge(home, DAY, "999999") == ([], [])
    store_symbols(home, date(2026, 11, 18), build_table({"kis": [stock("000001"), stock("000002")]})[0])
    store_symbols(home, DAY, build_table({"kis": [stock("000001")]})[0])
    codes = ("000001", "000002", "999999", "999999_NX")

    faults, warnings = judge(home, date(2026, 11, 27), *codes)
    korean, _ = judge(home, date(2026, 11, 27), *codes, language="ko")
    old_faults, old_warnings = judge(home, date(2026, 11, 28), *codes)

    assert ("1 code not in the table of symbols of 2026-11-20: 999999:" in faults[0], warnings) == (True, [])
    assert "1 symbol delisted" in faults[1] and "000002 이름000002 (2026-11-18)" in faults[1]
    assert "상장폐지 1종목" in korean[1]
    assert (old_faults, len(old_warnings)) == ([], 2)
    assert "which is 8 days old: 999999:" in old_warnings[0]


def test_halted_symbols_and_those_that_nxt_does_not_trade_are_warnings(home: Home) -> None:
    """Each by name; what no vendor says is nothing. An ELW is in no table."""
    rows = [stock("000001", halted=True), stock("000002", nxt_eligible=False), stock("000003")]
    store_symbols(home, DAY, build_table({"kis": rows})[0])

    faults, warnings = judge(home, DAY, "000001", "000002_NX", "000002", "000003_NX", "52M504")

    assert faults == []
    assert warnings == [
        "52M504 is not in the table of symbols: ELWs never are; an ETN is written with Q before its six characters",
        "trading of 1 symbol is halted, by the table of symbols of 2026-11-20: 000001 이름000001",
        "1 symbol not traded on NXT, by the table of symbols of 2026-11-20: 000002_NX 이름000002: nothing will come",
    ]


def test_check_is_exit_78_with_an_unknown_code_and_takes_an_unreadable_table_for_none(home: Home) -> None:
    """As the command line tells it."""
    store_symbols(home, DAY, build_table({"kis": [stock("000001")]})[0])
    (home.root / "collector.toml").write_text(f'{QUICK}[universe]\nkr = ["999999"]\n')

    refused = run_collectorctl(home.root, "check", check=False)
    home.symbol_path(DAY).write_bytes(b"no table")
    faults, found = check_home(home.root)

    assert (refused.returncode, "universe.kr: 1 code not in the table" in refused.stderr) == (78, True)
    assert faults == [] and sum("symbols update" in warning for warning in found["warnings"]) == 1


def test_a_table_of_a_day_without_a_session_is_no_measure_of_what_a_day_takes(home: Home) -> None:
    """Else a week of holidays would make the disk last for years, and a new home's estimate a few kilobytes."""
    book = home.data / "kr" / "orderbook" / "date=2026-11-20" / "hour=09" / "part-0.parquet"
    estimate = machine._measure_day(home)
    for number in range(21, 26):
        store_symbols(home, date(2026, 11, number), build_table({"kis": [stock("000001")]})[0])
    assert machine._measure_day(home) == estimate == (3 * machine.INSTRUMENT_DAY_BYTES, estimate[1])
    book.parent.mkdir(parents=True)
    book.write_bytes(b"0" * 12_345)

    assert read_disk_room(home.data).day_bytes == 12_345


def test_a_selection_is_the_largest_of_a_kind_or_the_members_of_an_index(home: Home) -> None:
    """Equal ones by code; without a capitalisation in no selection; printed as a line of the settings."""
    rows = [stock(f"00000{n}", market_cap=cap, kospi200=n == 4) for n, cap in ((1, 5), (2, 9), (3, None), (4, 5))]
    table, _ = build_table({"kis": [*rows, stock("069500", kind="ETF", market_cap=99)]})
    store_symbols(home, DAY, table)

    assert select_symbols("@market_cap:2", table) == ["000002", "000001"]
    assert select_symbols("@market_cap:9", table) == ["000002", "000001", "000004"]
    assert select_symbols("@etf:top=50", table) == ["069500"]
    assert select_symbols("@KOSPI200", table) == ["000004"]
    assert run(home, "select", "@market_cap:2").output == 'kr = ["000002", "000001"]  # @market_cap:2 of 2026-11-20\n'


@pytest.mark.parametrize("expression", ["@etf", "etf:5", "@market_cap:0", "@nothing:5", "@KOSDAQ150", "@etf:top=-1"])
def test_an_expression_that_means_nothing_is_refused(home: Home, expression: str) -> None:
    """Nor is an index of which the table has no member an empty universe."""
    store_symbols(home, DAY, build_table({"kis": [stock("000001", market_cap=1)]})[0])

    refused = run(home, "select", expression)

    assert (refused.exit_code, expression in refused.output) == (2, True)


def test_report_and_explain_have_the_name_of_that_days_table(tmp_path: Path) -> None:
    """Escaped as everything from outside; a table of a later day changes nothing."""
    stored = Home(make_stored_day(tmp_path / "home"))
    rows = [stock("005930", name="삼성전자"), stock("000660", name=HOSTILE)]
    store_symbols(stored, DAY, build_table({"kis": rows})[0])
    store_symbols(stored, date(2026, 11, 21), build_table({"kis": [stock("005930", name="later")]})[0])

    page = write_report(stored, DAY, "ko", Instrument("005930", "KRX")).path.read_text(encoding="utf-8")
    timeline = build_timeline(stored, Instrument("005930", "KRX"), datetime(2026, 11, 20, 9, 30, tzinfo=KST), 1.0)

    assert page.count('005930 KRX<span class="name" title="삼성전자">삼성전자</span>') == 2  # coverage, certificates
    assert "005930 KRX 삼성전자" in page and HOSTILE not in page and "later" not in page
    assert next(iter(format_timeline(timeline))).startswith("005930 삼성전자 KRX")


def test_a_name_stands_beside_a_code_that_has_its_venue() -> None:
    """A number of six digits is no code."""
    names = {"005930": "삼성전자", "666105": "숫자"}

    assert (
        insert_names("blind: 005930 KRX for 3 s, 005930_NX", names) == "blind: 005930 삼성전자 KRX for 3 s, 005930_NX"
    )
    assert insert_names("666105 records were lost, 1.666105 KRX", names) == "666105 records were lost, 1.666105 KRX"
