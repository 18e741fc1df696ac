"""The verdict of `status` over a day of a real tree: exit status, findings, acknowledgement."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from support.process_tree import QUICK, read_status, run_collectorctl, temporary_home, wait_until

from collectorctl.demo.environment import SimulatorProcess, set_addresses

SETTINGS = f"""
[universe]
kr = ["005930", "000660"]
{QUICK}[gapfill]
enabled = false
"""


def look(root: Path) -> tuple[int, dict[str, Any]]:
    """Exit status, and the level and the findings by code."""
    ran = run_collectorctl(root, "status", "--json", check=False)
    seen = msgspec.json.decode(ran.stdout)
    assert seen["schema"] == 1 and seen["verdict"]["level"] == ran.returncode
    return ran.returncode, {finding["code"]: finding for finding in seen["verdict"]["findings"]}


def kill(root: Path, *names: str) -> None:
    for name in names:
        os.kill(read_status(root)["processes"][name]["pid"], signal.SIGKILL)


def test_the_exit_status_follows_the_day_from_safe_to_lost_to_acknowledged_to_stopped(tmp_path: Path) -> None:
    """One feed dies: repairing, and a note of it stays. Both die: their books are lost until somebody acknowledges that, also
    for the next writer."""
    assert run_collectorctl(tmp_path, "status", check=False).returncode == 4
    with temporary_home(SETTINGS) as root, SimulatorProcess(root, tmp_path / "truth") as simulator:
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        wait_until("the day is safe", lambda: look(root) == (0, {}))

        kill(root, "kis")
        _, findings = wait_until("the restart is a finding", lambda: (seen := look(root))[1].get("restart") and seen)
        assert findings["restart"]["subject"] == "kis" and look(root)[0] == 1
        assert "blind" not in findings

        os.kill(read_status(root)["processes"]["writer"]["pid"], signal.SIGKILL)
        pids = [read_status(root)["processes"][name]["pid"] for name in ("kis", "kiwoom")]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until("the lost books are a finding", lambda: "blind" in look(root)[1])
        wait_until(
            "the loss is over", lambda: (seen := look(root))[1].get("blind", {}).get("end_ns") and seen[0] == 2, 60
        )
        assert "ATTENTION" in run_collectorctl(root, "status", check=False).stdout.splitlines()[0]

        run_collectorctl(root, "acknowledge", "--note", "a test")
        # the vendor may refuse a feed for a while whose session was not ended
        _, findings = wait_until("nothing is worse than the note", lambda: (seen := look(root))[0] == 1 and seen)
        assert findings["blind"]["message"].startswith("acknowledged")

        run_collectorctl(root, "stop")
        assert look(root)[0] == 3
        assert run_collectorctl(root).stdout.startswith("STOPPED ")


def test_without_a_command_the_first_steps_are_shown(tmp_path: Path) -> None:
    """Where no home is: how to try it, how to make one, where to read on."""
    shown = run_collectorctl(tmp_path).stdout.splitlines()

    assert [line.split()[1] for line in shown] == ["demo", "init", "--help"]


def test_status_loads_the_calendar_once_and_no_library_that_it_has_no_use_for(tmp_path: Path) -> None:
    """Most of its time and memory are imports."""
    run_collectorctl(tmp_path, "init", str(tmp_path / "home"))
    code = (
        "import sys, pathlib, conf.home as h; load, calls = h.load_holidays, []\n"
        "h.load_holidays = lambda *a: calls.append(1) or load(*a)\n"
        "from collectorctl.commands.inspect import judge_home\n"
        "from collectorctl import cli\n"
        "from collectorctl.supervision import status_table\n"
        "judge_home(h.Home(pathlib.Path('.')))\n"
        "print(len(calls), *{'pyarrow', 'rich.progress', 'requests', 'holidays', 'websockets', 'apprise'} & sys.modules.keys())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "home", capture_output=True, text=True, check=True
    )

    assert ran.stdout.split() == ["1"]
