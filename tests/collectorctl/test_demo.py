"""The demo passes, and goes on passing while processes are killed under it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import msgspec
from tree import BIN, a_home, status, until


def test_the_demo_passes_and_crosses_hours() -> None:
    """Exit 0; every delivery stored; three hours and more on disk; the table and the pandas lines are shown."""
    ran = subprocess.run(
        [BIN / "collectorctl", "demo", "--seconds", "24"], capture_output=True, text=True, check=False, timeout=150
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "PASSED" in ran.stdout
    assert "bytes per book" in ran.stdout
    assert "pd.read_parquet" in ran.stdout


def test_the_table_stays_exact_while_every_process_is_killed_in_turn() -> None:
    """SIGKILL of kis, kiwoom and writer during a demo: nothing missing, nothing doubled."""
    with a_home("") as root:
        demo = subprocess.Popen(
            [BIN / "collectorctl", "demo", "--home", root, "--seconds", "30", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        until("the tree is healthy", lambda: (root / "run" / "supervisor.sock").exists() and status(root)["healthy"])
        for name in ("kis", "kiwoom", "writer"):
            kill(root, name)
        out, _ = demo.communicate(timeout=150)

        told = msgspec.json.decode(out)
        assert told["complaints"] == []
        assert demo.returncode == 0
        assert told["verdict"]["books"]["available"] > 1000
        assert len(told["figures"]["hours"]) >= 3


def kill(root: Path, name: str) -> None:
    """SIGKILL a process of the home and wait until its successor is healthy."""
    old = status(root)["processes"][name]["pid"]
    os.kill(old, signal.SIGKILL)

    def again() -> bool:
        process = status(root)["processes"][name]
        return process["healthy"] and process["pid"] != old

    until(f"{name} is healthy again", again)
