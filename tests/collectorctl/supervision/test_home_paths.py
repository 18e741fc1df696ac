"""Homes in directories of any name: what supervisord can express works, the rest is refused by `init`, `check` and `start`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.process_tree import SECRETS, read_status, run_collectorctl, temporary_home

from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.init import create_home
from collectorctl.supervision.supervisor import check_configuration
from conf.home import Home
from conf.settings import SettingsError

SETTINGS = """
[universe]
kr = ["005930"]
[clock]
start = "2026-11-20T10:00:00+09:00"
[kis]
subscribe_spacing_ms = 20
"""
NAMES = (
    *("p%q", "p%%q", "p%sq", "p%(here)s", 'p"q', "p'q", "q'", 'q"', "p;q", "p ;q", "p #q", "p,q", "p q", " p", "p "),
    *("p{q}", "{time}", "p[q]", "[red]", "장부", "p=q", "p:q", "p$q", "p`q", "~", "p\\q", "p*q", "-p"),
)
UNUSABLE = ("p\nq", "p\tq", "p\x1b[2Jq", "p\x85q", "p\u202eq", "p\u2028q", os.fsdecode(b"p\xffq"))


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory with a short path."""
    with temporary_home("") as root:
        yield root


def accepted(root: Path) -> bool:
    """Whether a new home at `root` is one that supervisord can read; anything but SettingsError is a mistake."""
    try:
        create_home(root)
        check_configuration(Home(root))
    except SettingsError:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_supervisord_reads_the_paths_of_a_home_of_any_name(place: Path, name: str) -> None:
    """Every path that it makes of supervisord.conf is the home's own."""
    from supervisor.options import ServerOptions

    root = place / name

    assert accepted(root)
    options = ServerOptions()
    options.configfile = str(root / "supervisord.conf")
    options.process_config(do_usage=False)
    programs = [program for group in options.process_group_configs for program in group.process_configs]
    assert {program.directory for program in programs} == {str(root)}
    assert {program.environment["COLLECTOR_HOME"] for program in programs} == {"."}
    assert {program.stdout_logfile or program.stderr_logfile for program in programs} == {
        str(root / "log" / f"{program.name}.out") for program in programs
    }
    sections = options.configroot.supervisord
    assert (sections.logfile, sections.pidfile, sections.childlogdir, sections.server_configs[0]["file"]) == tuple(
        str(root / path) for path in ("log/supervisord.log", "run/supervisord.pid", "log", "run/supervisor.sock")
    )


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12))
def test_a_name_is_either_refused_at_once_or_can_be_started(place: Path, name: str) -> None:
    """Nothing is left for supervisord to refuse; what is refused leaves nothing behind."""
    if name in (".", ".."):
        return
    root = place / "any" / name
    try:
        accepting = accepted(root)

        assert accepting or not root.exists()
        assert accepting == name.isprintable() or not name.isascii()
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_path_that_cannot_be_shown_is_refused_by_init_check_and_start(place: Path, name: str) -> None:
    """Exit 78, one line, the path escaped in it; `init` makes nothing."""
    root = place / name

    refused = [run_collectorctl(place, "init", str(root), check=False)]
    assert not root.exists()
    root.mkdir()
    refused += [run_collectorctl(root, command, check=False) for command in ("check", "start")]

    for ran in refused:
        assert ran.returncode == 78
        assert "control characters, or bytes that are no UTF-8" in ran.stderr and ran.stderr.count("\n") == 1
        assert ran.stderr.strip().isprintable()


@pytest.mark.parametrize("command", ["check", "start"])
def test_a_supervisord_conf_that_cannot_be_read_is_refused_before_anything_starts(command: str) -> None:
    """One of an earlier version in a home with % in its path, one with a mistake: named, with what to do."""
    with temporary_home(SETTINGS) as outer:
        root = outer / "p%q"
        create_home(root)
        shutil.copy(outer / ".env", root / ".env")
        conf = root / "supervisord.conf"
        ours = conf.read_text()
        for text in (
            ours.replace("%%(here)-s", "%(here)s"),
            ours.replace("command = python -m writer\n", ""),
            ours + "priority = x\n",
        ):
            assert text != ours
            conf.write_text(text)

            ran = run_collectorctl(root, command, check=False)

            assert ran.returncode == 78
            assert f"{conf}: supervisord: cannot be read: " in ran.stderr and "collectorctl init" in ran.stderr
        conf.write_text(ours)
        assert run_collectorctl(root, "check").returncode == 0


def test_check_refuses_a_path_that_is_too_long_for_the_socket(place: Path) -> None:
    """As `start` does."""
    root = place / ("d" * 80)
    create_home(root)
    (root / ".env").touch(mode=0o600)
    (root / ".env").write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))

    for command in ("check", "start"):
        ran = run_collectorctl(root, command, check=False)

        assert ran.returncode == 78
        assert "too long for a unix socket" in ran.stderr


@pytest.mark.timeout(400)
def test_a_home_of_a_difficult_name_runs_and_stops() -> None:
    """Everything that supervisord, loguru, shlex and rich could take for their own, in one name."""
    with temporary_home(SETTINGS) as outer, SimulatorProcess(outer, outer / "truth") as simulator:
        root = outer / "p%q\"r's;t, {u}[red]장"
        create_home(root)
        (root / "collector.toml").write_text(SETTINGS)
        shutil.copy(outer / ".env", root / ".env")
        set_addresses(root, simulator.addresses)
        try:
            assert run_collectorctl(root, "start").stdout.splitlines() == ["started", "healthy"]
            assert str(root) in run_collectorctl(root, "status").stdout
            assert read_status(root)["home"] == str(root)
            for name in ("kis", "writer", "watchdog"):
                assert "begins" in run_collectorctl(root, "logs", name).stdout
        finally:
            stopped = run_collectorctl(root, "stop", check=False)
            shutil.rmtree((root / "run" / "ring").resolve(), ignore_errors=True)
        assert "stopped" in stopped.stdout
        assert list((root / "data" / "kr" / "orderbook").rglob("part-*.parquet"))
