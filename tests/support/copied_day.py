"""Copies of a certified day by the command, whole ones and one that is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
from support.certified_day import run
from support.stored_day import DAY

TICKS = f"data/kr/tick/date={DAY}/hour=09/part-0.parquet"
KILLED_AT_THE_THIRD_FILE = """
import os, signal
from collectorctl.copy.target import Target
put, left = Target.put, [3]
def killed(self, source, path):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, source, path)
Target.put = killed
from collectorctl.cli import main; main()
"""


def copy(home: Path, to: str | Path, *options: str) -> tuple[int, dict]:
    """The exit status, and what came of the day."""
    result = run(home, "copy", "--to", str(to), "--json", *(options or ("--date", DAY)))
    assert result.stdout, result.output
    return result.exit_code, msgspec.json.decode(result.stdout)[0]


def run_killed_copy(home: Path, to: str | Path) -> int:
    """The exit status of a copy that is killed before its third file."""
    command = [
        sys.executable,
        "-c",
        KILLED_AT_THE_THIRD_FILE,
        "--home",
        str(home),
        "copy",
        "--date",
        DAY,
        "--to",
        str(to),
    ]
    return subprocess.run(command, cwd=Path(__file__).parents[2], check=False, timeout=120).returncode
