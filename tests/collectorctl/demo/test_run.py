"""The demo passes, recovers what it missed, and goes on passing while processes are killed under it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from support.process_tree import BIN, read_status, temporary_home, wait_until


def test_the_demo_passes_and_crosses_hours() -> None:
    """Exit 0; every delivery stored; the outage recovered; the tables and the pandas lines are shown."""
    ran = subprocess.run(
        [BIN / "collectorctl", "demo", "--seconds", "24"], capture_output=True, text=True, check=False, timeout=150
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "PASSED" in ran.stdout
    assert "bytes per book" in ran.stdout
    assert "wrong pairs" in ran.stdout
    assert "pd.read_parquet" in ran.stdout
    assert re.search(r"INCOMPLETE +\d+ +PROVEN", ran.stdout)
    assert "0 are in no row and 0 in several" in ran.stdout


@pytest.mark.long
def test_the_table_stays_exact_while_every_process_is_killed_in_turn() -> None:
    """SIGKILL of kis, kiwoom and writer during a demo: nothing missing, nothing doubled."""
    with temporary_home("") as root:
        demo = subprocess.Popen(
            [BIN / "collectorctl", "demo", "--home", root, "--seconds", "72", "--json"],
            stdout=subprocess.PIPE,
            stderr=(root / "demo.err").open("w"),
            text=True,
        )
        wait_until(
            "the tree is healthy", lambda: (root / "run" / "supervisor.sock").exists() and read_status(root)["healthy"]
        )
        for name in ("kis", "kiwoom", "writer"):
            kill(root, name)
        out, _ = demo.communicate(timeout=300)

        assert out, (demo.returncode, (root / "demo.err").read_text())
        told = msgspec.json.decode(out)
        assert told["complaints"] == []
        assert demo.returncode == 0
        assert told["result"]["books"]["available"] > 1000
        assert len(told["measurements"]["hours"]) >= 3
        certificates = {(one["before"], one["after"]) for one in told["recovery"]["instruments"]}
        assert {("INCOMPLETE", "PROVEN")} <= certificates <= {("INCOMPLETE", "PROVEN"), ("PROVEN", "PROVEN")}
        ticks = [one["ticks"] for one in told["recovery"]["instruments"]]
        assert sum(one["missed"] for one in ticks) == sum(one["equal"] for one in ticks) > 0


def kill(root: Path, name: str) -> None:
    """SIGKILL a process of the home and wait until its successor is healthy."""

    def killed() -> int:
        """The pid that was killed; 0 while there is none, as the demo itself kills one and holds it down."""
        pid = read_status(root)["processes"][name]["pid"]
        with suppress(ProcessLookupError):
            if pid:
                os.kill(pid, signal.SIGKILL)
                return pid
        return 0

    old = wait_until(f"{name} runs", killed)

    def again() -> bool:
        process = read_status(root)["processes"][name]
        return process["healthy"] and process["pid"] != old

    wait_until(f"{name} is healthy again", again)
