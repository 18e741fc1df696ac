"""The heavy case: one symbol with 300,000 trades, nothing of it stored, killed five times on the way."""

from __future__ import annotations

import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from support.day_fixture import DAY, FinishedDay, a_finished_day, assert_matches_truth
from support.process_tree import BIN

MOST_MB = 350
"""Resident, libraries included (130 MB of it): measured 290."""


@pytest.mark.long
def test_a_heavy_day_is_proven_through_five_kills_within_bounded_memory() -> None:
    """No page is asked for twice: what a killed run fetched, the next one uses."""
    with a_finished_day(trades="300000", names=["005930"]) as day:
        most_mb, kills = 0.0, 0
        for pages in (50, 120, 200, 260, 320):
            mb, code = run(day, pages)
            most_mb, kills = max(most_mb, mb), kills + (code < 0)
        mb, code = run(day, None)

        assert (5, 0) == (kills, code)
        assert max(most_mb, mb) < MOST_MB
        assert_matches_truth(day, ["005930"])
        ran = day.run("verify", "--date", DAY)
        assert 0 == ran.exit_code, ran.output


def run(day: FinishedDay, pages: int | None) -> tuple[float, int]:
    """Recover, and kill when there are so many pages: MB at most, exit status.

    The kernel's own high-water mark of the program: the resource usage of a child has that of whoever forked it.
    """
    command = [BIN / "collectorctl", "--home", day.root, "recover", "--date", DAY]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kept = day.root / f"data/recover/date={DAY}/005930/chart"
    give_up, most_kb = time.monotonic() + 300, 0
    while time.monotonic() < give_up:
        with suppress(FileNotFoundError, ProcessLookupError):  # it is ending
            found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text(), re.M)
            most_kb = int(found[1]) if found else most_kb  # a zombie has none
        if process.poll() is not None:
            return most_kb / 1024, process.returncode
        if pages is not None and len(list(kept.glob("*.json.gz"))) >= pages:
            process.kill()
        time.sleep(0.02)
    process.kill()
    raise AssertionError("it takes too long")
