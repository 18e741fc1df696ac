"""Scenes of a bad day in a real tree, told by verdict and message: a late feed, six kills, settings; slow vendor, full disk."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from support.process_tree import QUICK, read_pids, read_status, run_collectorctl, temporary_home, wait_until
from support.small_disk import fill_disk, small_disk
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


def start_notified(root: Path, hook: Webhook, simulator: SimulatorProcess) -> None:
    """Start the tree at the simulator's addresses, its messages to the webhook."""
    with (root / ".env").open("a") as file:
        file.write(f"NOTIFY_URL={hook.url}\n")
    set_addresses(root, simulator.addresses)
    run_collectorctl(root, "start")


def shown(root: Path) -> str:
    """What `status` prints, without line breaks."""
    return " ".join(run_collectorctl(root, "status", check=False).stdout.split())


def find_healthy(root: Path, name: str) -> int:
    """The id of a process that is healthy; 0 if it is not."""
    process = read_status(root)["processes"][name]
    return process["pid"] if process["healthy"] else 0


def await_message(hook: Webhook, scene: str, words: str, begin_s: float) -> None:
    """Wait for the message with these words, after the verdict had them; print how long both took from `begin_s` on."""
    seen_s = time.monotonic() - begin_s
    wait_until(f"{scene} is sent", lambda: [line for line in hook.lines("") if words in line], 90)
    print(f"{scene}: in the verdict after {seen_s:.1f} s, sent after {time.monotonic() - begin_s:.1f} s")


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
            wait_until(f"{scene} is in the verdict", lambda: words in shown(root), 90)
            await_message(hook, scene, words, begin_s)

        start_notified(root, hook, simulator)
        told("late feed", "late kiwoom: 호가의 절반이")

        for _ in range(6):
            pid = wait_until("kis runs", lambda: read_pids(root).get("kis"))
            os.kill(pid, signal.SIGKILL)
            # one that is killed before its first event is not counted
            wait_until("another receives", lambda pid=pid: find_healthy(root, "kis") not in (0, pid), 60)
        wait_until("six restarts are in the verdict", lambda: "restart kis: 오늘 6회 재시작" in shown(root), 60)
        wait_until("restarts are sent", lambda: hook.lines("restart kis: 오늘 "), 60)

        settings = root / "collector.toml"
        settings.write_text(settings.read_text().replace('"005930", ', '"005930", "005380", '))
        told("edited settings", "settings_changed collector.toml: 설정 변경 전에 시작되어")


SMALL_RINGS = """[ring]
orderbook_capacity = 1024
tick_capacity = 1024
[disk]
min_free_bytes = 0
"""


@pytest.mark.long
def test_a_slow_vendor_and_a_full_disk_are_told_in_both_languages_and_a_loss_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `status` in English and Korean and by a webhook; how long each took is printed.

    With room again all processes are healthy, and the verdict is not: records were overwritten unread.
    """
    monkeypatch.setenv("LC_ALL", "ko_KR.UTF-8")  # the language of notifications is that of the tree
    slow = [option for name in ("kis", "kiwoom") for option in (f"--{name}-latency-ms", "4500")]
    with (
        Webhook() as hook,
        temporary_home(SETTINGS.replace('language = "ko"', "") + SMALL_RINGS) as root,
        small_disk(root / "data", 32) as disk,
        SimulatorProcess(root, tmp_path / "truth", "--books-per-s", "30", *slow) as simulator,
    ):

        def told(scene: str, english: str, korean: str) -> None:
            begin_s = time.monotonic()
            for language, words in (("en_US.UTF-8", english), ("ko_KR.UTF-8", korean)):
                monkeypatch.setenv("LC_ALL", language)
                wait_until(f"{scene} is in the verdict: {words}", lambda words=words: words in shown(root), 90)
            await_message(hook, scene, korean, begin_s)

        start_notified(root, hook, simulator)
        told("slow vendor", "clock host: the books of kis, kiwoom come", "clock host: kis, kiwoom 호가가 모두")

        ballast = fill_disk(disk)
        told("full disk", "unhealthy writer: paused: ", "unhealthy writer: 쓰기 중단: ")
        told("overrun", " records are overwritten unread", "건이 읽기 전에 덮어쓰였고")
        ballast.unlink()
        told("loss", " records were lost between feed and writer", "피드와 writer 사이에서 레코드 ")

        wait_until(
            "every process is healthy", lambda: all(p["healthy"] for p in read_status(root)["processes"].values()), 60
        )
        verdict = read_status(root)["verdict"]
        assert verdict["level"] == 2
        assert {"ring_loss"} == {finding["code"] for finding in verdict["findings"] if finding["level"] == 2}
        assert run_collectorctl(root, "status", "--line", check=False).returncode == 2
