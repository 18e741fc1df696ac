"""Scenes of a bad day in a real tree: a late feed, six kills, edited settings; in the verdict and in a message, in Korean."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from support.process_tree import QUICK, read_pids, run_collectorctl, temporary_home, wait_until
from support.webhook import Webhook

from collectorctl.demo.environment import SimulatorProcess, set_addresses

SETTINGS = f"""
[universe]
kr = ["005930", "000660", "035420", "051910"]
{QUICK}[gapfill]
enabled = false
[notify]
enabled = true
[ui]
language = "ko"
"""


@pytest.mark.long
def test_a_late_feed_six_kills_and_edited_settings_are_told_in_korean(tmp_path: Path) -> None:
    """By `status` and by a webhook; how long each took is printed."""
    with (
        Webhook() as hook,
        temporary_home(SETTINGS) as root,
        SimulatorProcess(root, tmp_path / "truth", "--kiwoom-latency-ms", "3400") as simulator,
    ):

        def told(scene: str, words: str) -> None:
            begin_s = time.monotonic()
            wait_until(f"{scene} is in the verdict", lambda: words in shown(), 90)
            seen_s = time.monotonic() - begin_s
            wait_until(f"{scene} is sent", lambda: [line for line in hook.lines("") if words in line], 90)
            print(f"{scene}: in the verdict after {seen_s:.1f} s, sent after {time.monotonic() - begin_s:.1f} s")

        def shown() -> str:
            return " ".join(run_collectorctl(root, "status", check=False).stdout.split())

        with (root / ".env").open("a") as file:
            file.write(f"NOTIFY_URL={hook.url}\n")
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        told("late feed", "late kiwoom: 호가의 절반이")

        for _ in range(6):
            pid = wait_until("kis runs", lambda: read_pids(root).get("kis"))
            os.kill(pid, signal.SIGKILL)
            wait_until("another runs", lambda pid=pid: read_pids(root).get("kis", pid) != pid, 60)
        wait_until("six restarts are in the verdict", lambda: "restart kis: 오늘 6회 재시작" in shown(), 60)
        wait_until("restarts are sent", lambda: hook.lines("restart kis: 오늘 "), 60)

        settings = root / "collector.toml"
        settings.write_text(settings.read_text().replace('"005930", ', '"005930", "005380", '))
        told("edited settings", "settings_changed collector.toml: 설정 변경 전에 시작되어")
