"""Reload: what moves, what is recorded; the whole tree is in tests/system/test_reload.py."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from support.process_tree import QUICK, temporary_home

from brokers.allocation.allocate import plan_connections
from collectorctl.cli import main
from collectorctl.supervision.reload import find_moved, has_session_begun, place_list
from collectorctl.supervision.status import collect_status
from collectorctl.symbols.resolve import put_in_force, resolve_universe, start_universe
from collectorctl.verdict.collect import collect_evidence
from conf.files.replacement import read_replaced
from conf.home import Home
from conf.universe.listing import UniverseList

CODES = ["000001", "000002", "000003", "000004"]


def write(root: Path, kr: list[str], more: str = "", hour: str = "10") -> Home:
    universe = f"[universe]\nkr = {msgspec.json.encode(kr).decode()}\n"
    (root / "collector.toml").write_text(QUICK.replace("T10:", f"T{hour}:") + universe + more)
    return Home(root)


@pytest.fixture
def root() -> Iterator[Path]:
    """A home of four codes whose list is in force, and in which nothing runs."""
    with temporary_home("") as path:
        home = write(path, CODES)
        home.create_directories()
        start_universe(home)
        yield path


def test_ticks_of_kept_symbols_stay_on_their_broker_unless_a_group_names_them(root: Path) -> None:
    """Without places the ones after a removed symbol would change sides, since they alternate."""
    before = read_replaced(Home(root).universe_path(), UniverseList)
    kept = write(root, CODES[1:])
    placed = place_list(kept, resolve_universe(kept), before).placement
    fresh = plan_connections(kept.settings, {})
    named = write(root, CODES[1:], '[shards]\nkis = ["000002"]\n')
    moved = place_list(named, resolve_universe(named), before)

    old = place_list(write(root, CODES), before, None).placement
    assert find_moved(old, placed, set(CODES[1:])) == []
    assert "000002 tick" in placed["kiwoom"] and "000002 tick" in {
        str(s) for s in fresh.connections["kis"][0].subscriptions
    }
    assert find_moved(old, moved.placement, set(CODES[1:])) == ["000002 tick: kiwoom 1 -> kis 1"]


def test_a_reload_of_a_home_in_which_nothing_runs_is_the_list_of_the_next_start(root: Path) -> None:
    """A supervisord that is started without `collectorctl start` takes it; a wrong universe changes nothing."""
    settings = (root / "collector.toml").read_text()
    (root / "collector.toml").write_text(settings.replace("000001", "AAPL"))
    refused = CliRunner().invoke(main, ["--home", str(root), "reload"])
    assert (refused.exit_code, read_replaced(root / "run" / "universe.json", UniverseList).kr) == (78, CODES)

    write(root, ["000009", "000004"])
    ran = CliRunner().invoke(main, ["--home", str(root), "reload"])
    shown = CliRunner().invoke(main, ["--home", str(root), "reload", "--json"])

    assert ran.exit_code == 0, ran.output
    assert "added    1: 000009" in ran.output and "removed  3: 000001, 000002, 000003" in ran.output
    assert "before   kis key 1: 4 books, 2 ticks: 6 of 41 slots" in ran.output
    assert "after    kis key 1: 2 books, 1 ticks: 3 of 41 slots" in ran.output
    assert "nothing runs here" in ran.output
    assert [str(one) for one in Home(root).settings.instruments()] == ["000009", "000004"]
    report = msgspec.json.decode(shown.stdout)
    assert (report["added"], report["removed"], report["moved"], report["is_running"]) == ([], [], [], False)


def test_a_reload_leaves_no_note_of_changed_settings_unless_others_changed(root: Path) -> None:
    """Until a start has them all."""

    def changed_s() -> float:
        home = Home(root)
        return collect_evidence(home, collect_status(home)).settings_changed_s

    assert changed_s() == math.inf
    home = write(root, CODES[1:], '[shards]\nkis = ["000002"]\n')
    assert changed_s() < 60
    put_in_force(home, resolve_universe(home))
    assert changed_s() == math.inf
    home = write(root, CODES, "[writer]\nfsync_every_s = 2.0\n")
    for _ in range(2):
        put_in_force(home, resolve_universe(home))
        assert changed_s() < 60
    start_universe(home)
    assert changed_s() == math.inf


@pytest.mark.parametrize(("hour", "begun"), [("07", False), ("08", True), ("10", True), ("23", True)])
def test_a_session_has_begun_from_the_first_phase_of_any_korean_venue_on(root: Path, hour: str, begun: bool) -> None:
    home = write(root, CODES, hour=hour)
    home.create_directories()
    (home.run / "clock.json").unlink(missing_ok=True)

    assert has_session_begun(home) is begun
