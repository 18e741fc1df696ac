"""The units of deploy/systemd: systemd's own reader, and that their directives and paths fit what the code does."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from collectorctl.init import create_home
from collectorctl.supervision import supervisor
from collectorctl.supervision.watchdog.__main__ import EVENT_TIMEOUT_S
from conf.home import Home

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
UNITS = {"system": "collectorctl.service", "user": "collectorctl-user.service"}
of_each_unit = pytest.mark.parametrize("kind", UNITS)


def read_text(kind: str) -> str:
    return (ROOT / "deploy/systemd" / UNITS[kind]).read_text()


def read_unit(kind: str) -> configparser.ConfigParser:
    """The unit; a directive that occurs twice is an error here."""
    unit = configparser.ConfigParser(interpolation=None, delimiters="=", comment_prefixes="#")
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(read_text(kind))
    return unit


@of_each_unit
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit(kind: str, tmp_path: Path) -> None:
    """With the paths of an installation that exists: no unknown directive, no value it cannot read."""
    text = re.sub(r"^(ExecStart=)\S+", rf"\g<1>{BIN}/supervisord", read_text(kind), flags=re.M)
    unit = tmp_path / UNITS[kind]
    unit.write_text(text)
    ran = subprocess.run(
        ["systemd-analyze", "verify", f"--{kind}", "--man=no", unit],
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, [line for line in ran.stderr.splitlines() if UNITS[kind] in line]) == (0, []), ran.stderr


@of_each_unit
def test_the_command_is_supervisord_in_the_foreground_in_the_home(kind: str) -> None:
    """Its own Python comes first in PATH, because the programs of supervisord.conf are started as `python`."""
    service = read_unit(kind)["Service"]
    program, *arguments = service["ExecStart"].split()

    assert Path(program).name == "supervisord" and (BIN / "supervisord").exists()
    assert arguments == ["-n", "-c", f"{service['WorkingDirectory']}/supervisord.conf"]
    assert service["Environment"].startswith(f"PATH={Path(program).parent}:")


@of_each_unit
def test_readiness_and_watchdog_come_from_a_child(kind: str) -> None:
    """A watchdog process that must be replaced itself has the time for it."""
    service = read_unit(kind)["Service"]

    assert (service["Type"], service["NotifyAccess"], service["Restart"]) == ("notify", "all", "always")
    assert float(service["WatchdogSec"]) >= 2 * EVENT_TIMEOUT_S
    assert float(service["TimeoutStartSec"]) > supervisor.SUPERVISORD_TIMEOUT_S


@of_each_unit
def test_a_stop_has_the_time_that_supervisord_takes_and_reaches_it_alone(kind: str) -> None:
    """Else systemd would end the writer together with the brokers, or before it has drained."""
    service = read_unit(kind)["Service"]
    conf = (ROOT / "conf/supervisord.conf").read_text()
    longest_s = sum(float(seconds) for seconds in re.findall(r"^stopwaitsecs = (\d+)", conf, re.M))

    assert service["KillMode"] == "mixed"
    assert longest_s < supervisor.STOP_TIMEOUT_S < float(service["TimeoutStopSec"])


@of_each_unit
def test_the_rings_lie_in_the_units_own_directory_and_outlive_a_stop(kind: str, tmp_path: Path) -> None:
    """The settings that its head names are settings, and lead there."""
    service = read_unit(kind)["Service"]
    parent = {"system": "/run", "user": "/run/user/UID"}[kind]
    own = f"{parent}/{service['RuntimeDirectory']}"
    settings = "\n".join(re.findall(r"^#   (\[paths\]|\w+ = .*)$", read_text(kind), re.M)).replace(
        parent, f"{tmp_path}/r"
    )
    create_home(tmp_path / "home")
    (tmp_path / "home/collector.toml").write_text(f'[universe]\nkr = ["005930"]\n{settings}\n')
    home = Home(tmp_path / "home")
    home.create_directories()

    assert home.ring_directory.parent == Path(own.replace(parent, f"{tmp_path}/r"))
    assert (service["RuntimeDirectoryMode"], service["RuntimeDirectoryPreserve"]) == ("0700", "yes")
    assert Path(own) != Path("/run/user/UID/collectorctl")  # that is where homes keep the locks of their keys
    if kind == "system":
        assert home.key_lock_directory.parent == home.ring_directory.parent


def test_the_system_unit_waits_for_the_clock_and_no_unit_is_ever_given_up() -> None:
    """Times of arrival are data."""
    for kind in UNITS:
        assert read_unit(kind)["Unit"]["StartLimitIntervalSec"] == "0"
    unit = read_unit("system")["Unit"]
    assert "time-sync.target" in unit["After"].split() and "time-sync.target" in unit["Wants"].split()
