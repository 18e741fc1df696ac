"""An upgrade of a running home: new code in place, then one process after the other, while books flow."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.process_tree import QUICK, read_pids, read_status, run_collectorctl, temporary_home, wait_until
from support.writer_data import ROOT

from brokers.simulator import ground_truth
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.demo.oracle import compare

SETTINGS = f"""
[universe]
kr = ["005930", "000660", "0074K0"]
{QUICK}[gapfill]
enabled = false
[disk]
min_free_bytes = 0
[watchdog]
start_s = 15.0
"""
WHOLE = [option for name in ("kis", "kiwoom") for option in (f"--{name}-loss", "0", f"--{name}-books-per-s", "0")]
"""Each feed delivers every book."""

PROGRAMS = ("writer", "kis", "watchdog", "kiwoom", "gapfill")
LOOKS_S = 27.0
"""Two looks of a watchdog, five seconds apart, after start_s: it would have ended a process without a page."""


@pytest.mark.long
def test_an_upgrade_of_one_process_at_a_time_loses_and_doubles_no_book(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new version has vitals pages of another layout: processes of both run side by side, nobody is taken for hung.

    Status names each that is of the version before, in both languages, and asks for a person until the last is restarted.
    """
    code = tmp_path / "code"
    for package in ("conf", "ringbuf", "brokers", "writer", "collectorctl"):
        shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", str(code))
    with (
        temporary_home(SETTINGS) as root,
        SimulatorProcess(root, root / "truth", "--books-per-s", "20", *WHOLE) as simulator,
    ):
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        wait_until("books of both feeds are stored", lambda: _count_books(root) > 200)
        begin_ns = time.monotonic_ns()

        page = code / "ringbuf" / "vitals.py"
        page.write_text(page.read_text().replace("COUNTERS = (\n", 'COUNTERS = (\n    "new_in_this_version",\n', 1))
        seen = read_status(root)
        assert [seen["processes"][name]["other_version"] for name in PROGRAMS] == [True] * 5
        assert seen["verdict"]["level"] == 2
        for language, words in (("en_US.UTF-8", "runs in another version"), ("ko_KR.UTF-8", "다른 버전으로 실행 중")):
            monkeypatch.setenv("LC_ALL", language)
            shown = run_collectorctl(root, "status", check=False)
            assert shown.returncode == 2 and words in " ".join(shown.stdout.split())

        pids = read_pids(root)
        for name in PROGRAMS:
            if name in (
                "watchdog",
                "kiwoom",
            ):  # the old one looks at new processes and is looked at, the new one at an old one
                time.sleep(LOOKS_S)
                assert pids == read_pids(root)
            run_collectorctl(root, "restart", name)
            pids[name] = read_pids(root)[name]
        assert "SIG" not in (root / "log" / "watchdog.log").read_text()
        assert [finding for finding in read_status(root)["verdict"]["findings"] if finding["level"] == 2] == []

        end_ns = time.monotonic_ns() - 2_000_000_000
        for name in ("kis", "kiwoom"):
            simulator.send_command(f"{name} quiet 3600")
        time.sleep(2.0)
        assert "drained to zero" in run_collectorctl(root, "stop").stdout
        simulator.close()

        truth = ground_truth.load(root / "truth")
        ended = {(c["line"], c["connection"]): c["ended_mono_ns"] for c in truth.connections if c["ended_mono_ns"]}
        rows = [pd.read_parquet(root / "data" / "kr" / stream) for stream in ("orderbook", "tick")]
        result = compare(truth.books, truth.trades, truth.deliveries, ended, *rows)
        print("\n".join(result.describe()))
        assert result.strict_problems() == []
        sent = truth.deliveries[(truth.deliveries["stream"] == 1) & (truth.deliveries["outcome"] == 0)]
        arose = truth.books[(truth.books["mono_ns"] > begin_ns) & (truth.books["mono_ns"] < end_ns)]
        assert len(arose) > 500 and set(np.setdiff1d(arose["id"], sent["first_id"])) == set()


def _count_books(root: Path) -> int:
    return read_status(root)["processes"]["writer"]["counters"].get("books_twins", 0)
