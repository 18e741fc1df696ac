"""Expressions in `universe.kr`: resolved at a start, in force for every process, kept by day."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from support.process_tree import QUICK, temporary_home

from brokers.allocation.allocate import choose_tick_brokers, plan_connections
from brokers.symbols import SymbolRow
from collectorctl.check import check_home
from collectorctl.cli import main
from collectorctl.report.reader import read_day
from collectorctl.reprocess.decode import Redecoder
from collectorctl.symbols.resolve import put_in_force, record_list, resolve_universe, start_universe
from collectorctl.symbols.store import store_symbols
from collectorctl.symbols.table import build_table
from conf.home import Home
from conf.settings import SettingsError
from conf.universe.listing import UniverseList, choose_dated, format_dated_name, parse_dated_name
from writer import durable_io

DAY, NEXT, LATER = date(2026, 11, 20), date(2026, 11, 23), date(2026, 11, 24)
EXPRESSIONS = ["000009", "@market_cap:3", "@etf:top=1"]


@pytest.fixture
def root() -> Iterator[Path]:
    """A home with expressions."""
    with temporary_home("") as path:
        write(path, EXPRESSIONS)
        yield path


def write(root: Path, kr: list[str], day: date = DAY, more: str = "") -> Home:
    """The home with another universe, or on another day."""
    universe = f"[universe]\nkr = {msgspec.json.encode(kr).decode()}\n"
    (root / "collector.toml").write_text(f"{QUICK.replace(str(DAY), str(day))}{universe}{more}")
    return Home(root)


def store(home: Home, caps: dict[str, int], day: date = DAY) -> None:
    """A table of stocks with these capitalisations, and an ETF."""
    rows = [SymbolRow(symbol, symbol, "KOSPI", "STOCK", market_cap=cap) for symbol, cap in caps.items()]
    rows.append(SymbolRow("069500", "KODEX", "KOSPI", "ETF", market_cap=1))
    store_symbols(home, day, build_table({"kis": rows})[0])


CAPS = {"000001": 5, "000002": 9, "000003": 7, "000004": 1, "000009": 3}
FIRST = ["000009", "000002", "000003", "000001", "069500"]


def codes(home: Home, day: date | None = None) -> list[str]:
    return [str(one) for one in (home.settings.instruments() if day is None else home.instruments_of(day))]


def listed(*kr: str) -> UniverseList:
    return UniverseList(entries=["@market_cap:9"], table_day=DAY, kr=list(kr), us=[])


def test_what_a_start_puts_in_force_stays_until_the_next_start_whatever_the_table_says_meanwhile(root: Path) -> None:
    """A process that comes back takes the list of its siblings; the next day has its own."""
    home = Home(root)
    store(home, CAPS)
    home.create_directories()
    start_universe(home)
    assert codes(Home(root)) == FIRST  # in the order of the entries, by market capitalisation, each once

    store(home, CAPS | {"000004": 99}, DAY)
    after_a_crash = Home(root)
    tomorrow = write(root, EXPRESSIONS, NEXT)
    still = codes(tomorrow)
    start_universe(tomorrow)

    assert codes(after_a_crash) == still == FIRST
    assert codes(Home(root)) == ["000009", "000004", "000002", "000003", "069500"]
    assert codes(Home(root), DAY) == FIRST
    assert codes(Home(root), NEXT) == codes(Home(root))


def test_a_past_day_keeps_the_list_that_was_in_force_on_it(root: Path) -> None:
    """The union of a day's lists; a day without one has the last before it; report and reprocess ask for that."""
    home = Home(root)
    home.create_directories()
    record_list(home, DAY, listed("000001", "000002"))
    record_list(home, DAY, listed("000001", "000002"))  # a second start with the same list
    record_list(home, DAY, listed("000002", "000003"))
    put_in_force(write(root, ["@market_cap:9"], LATER), listed("000004"))
    home = Home(root)

    assert sorted(path.name for path in home.universe_directory().iterdir()) == [
        *("date=2026-11-20.2.json", "date=2026-11-20.json", "date=2026-11-24.json"),
    ]
    assert codes(home, DAY) == ["000001", "000002", "000003"]
    assert codes(home, NEXT) == ["000002", "000003"]
    assert codes(home, LATER) == codes(home) == codes(home, date(2026, 11, 19)) == ["000004"]
    assert [one.symbol for one in read_day(home, DAY).expected] == ["000001", "000002", "000003"]
    assert {"000003", "000004"} <= {
        one.instrument.symbol for one in Redecoder(home, DAY)._brokers["kiwoom"][1].values()
    }


def test_which_lists_count_for_a_day() -> None:
    known = [(DAY, 2), (DAY, 1), (LATER, 1)]

    assert choose_dated(known, DAY) == [(DAY, 1), (DAY, 2)]
    assert choose_dated(known, NEXT) == [(DAY, 2)]
    assert choose_dated(known, date(2026, 11, 19)) == []
    assert [parse_dated_name(format_dated_name(*one)) for one in known] == known
    assert parse_dated_name(".date=2026-11-20.json.tmp") is None


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ("@market_cap:6", "universe_small"),  # the table has five
        ("@KOSPI200", "universe_not_in_table"),
        ("@etf", "not_expression"),
        ("@nothing:5", "not_expression"),
    ],
)
def test_what_cannot_be_resolved_is_refused_in_words(root: Path, entry: str, code: str) -> None:
    """By `check` and `start`, exit 78; nothing is put in force."""
    store(Home(root), CAPS)
    with suppress(SettingsError):  # what is ill-formed is refused by whoever reads the settings
        write(root, ["000001", entry])

    faults, _ = check_home(root)
    started = CliRunner().invoke(main, ["--home", str(root), "start"])

    assert [(fault.key.partition("[")[0], fault.code) for fault in faults] == [("universe.kr", code)]
    assert started.exit_code == 78 and entry in started.stderr
    assert not (root / "run" / "universe.json").exists() and not (root / "data" / "universe").exists()


def test_without_a_table_or_a_slot_a_home_is_refused_and_a_process_says_what_to_run(root: Path) -> None:
    """A process never resolves anything itself."""
    home = Home(root)
    faults, _ = check_home(root)
    assert [fault.code for fault in faults] == ["universe_no_table"] and "symbols update" in faults[0].format()
    with pytest.raises(SettingsError, match="collectorctl start"):
        home.settings.instruments()

    store(home, CAPS)
    faults, found = check_home(root)
    write(root, EXPRESSIONS, more="[kiwoom]\nmax_subscriptions = 1\n")
    text = (root / "collector.toml").read_text().replace("[kis]\n", "[kis]\nmax_subscriptions = 1\n")
    (root / "collector.toml").write_text(text)
    too_many, _ = check_home(root)

    assert faults == [] and found["universe"]["kr"] == FIRST
    assert [fault.code for fault in too_many] == ["not_collected"]


def test_a_group_may_name_a_code_that_is_not_selected_today(root: Path) -> None:
    """It weighs nothing: the other symbols alternate as ever."""
    home = write(root, EXPRESSIONS, more='[shards]\nkis = ["000777"]\nrate = { "000777" = 1000 }\n')
    store(home, CAPS)
    home.create_directories()
    start_universe(home)

    settings = Home(root).settings
    assert list(choose_tick_brokers(settings, "kr", ["kis", "kiwoom"]).values())[:3] == ["kis", "kiwoom", "kis"]
    assert plan_connections(settings, {}).shortfalls == []


def test_a_home_of_codes_has_no_dated_list_and_one_that_had_expressions_counts_as_it_is_written(root: Path) -> None:
    """Its days from then on are recorded, so that they do not have the last list of the expressions."""
    home = Home(root)
    store(home, CAPS)
    home.create_directories()
    start_universe(home)
    plain = write(root, ["000004"], NEXT)
    assert codes(plain) == ["000004"]  # edited, as ever

    start_universe(plain)

    assert (codes(plain), codes(plain, DAY), codes(plain, NEXT)) == (["000004"], FIRST, ["000004"])
    with temporary_home("") as other:
        new = write(other, ["000001"])
        new.create_directories()
        start_universe(new)
        assert not new.universe_directory().exists()
        assert codes(write(other, ["000002"])) == ["000002"]
        assert codes(new, DAY) == ["000001"]


def test_a_list_that_was_interrupted_at_any_point_is_there_whole_or_not_at_all(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next attempt writes it."""
    home = Home(root)
    home.create_directories()
    found = listed(*FIRST)
    names = ("open_temporary", "append", "sync", "link_new", "_sync_names")
    for number in range(1, 99):
        left = number
        with monkeypatch.context() as patch:
            for name in names:

                def interrupt(*arguments: object, effect: object = getattr(durable_io, name)) -> object:
                    nonlocal left
                    left -= 1
                    if not left:
                        raise KeyboardInterrupt
                    return effect(*arguments)

                patch.setattr(durable_io, name, interrupt)
            with suppress(KeyboardInterrupt):
                record_list(home, date(2026, 1, 1), found)
        paths = list(home.universe_directory().glob("*.json"))
        assert all(msgspec.json.decode(path.read_bytes(), type=UniverseList) == found for path in paths)
        record_list(home, date(2026, 1, 1), found)
        (path,) = home.universe_directory().glob("*.json")
        path.unlink()
        if left > 0:
            break
    assert number > 4


def test_a_collector_with_expressions_loads_no_table(root: Path) -> None:
    """60 MB are enough for it: neither pyarrow nor the table is touched."""
    home = Home(root)
    store(home, CAPS)
    home.create_directories()
    start_universe(home)
    code = (
        f"import sys; from pathlib import Path; import brokers.collector; from conf.home import Home; "
        f"assert len(Home(Path({str(root)!r})).settings.instruments()) == 5; assert 'pyarrow' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_select_gives_what_a_start_would(root: Path) -> None:
    home = Home(root)
    store(home, CAPS)

    assert resolve_universe(home).kr == FIRST
    shown = CliRunner().invoke(main, ["--home", str(root), "plan", "--json"])
    assert [one["instrument"] for one in msgspec.json.decode(shown.stdout)["instruments"]] == FIRST
