"""Notifications of a real tree: started by the watchdog, one loss, one message."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from support.process_tree import QUICK, read_pids, read_status, run_collectorctl, temporary_home, wait_until
from support.webhook import Webhook

from collectorctl.demo.environment import SimulatorProcess, set_addresses

SETTINGS = f"""
[universe]
kr = ["005930"]
{QUICK}[gapfill]
enabled = false
[notify]
enabled = true
"""


@pytest.mark.long
def test_books_that_no_feed_delivered_are_in_one_message_and_a_stop_is_in_none(tmp_path: Path) -> None:
    """Also if the notifying process is killed meanwhile; acknowledged, they are in one more."""
    with Webhook() as hook, temporary_home(SETTINGS) as root, SimulatorProcess(root, tmp_path / "truth") as simulator:
        with (root / ".env").open("a") as file:
            file.write(f"NOTIFY_URL={hook.url}\n")
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        wait_until("all are healthy", lambda: read_status(root)["healthy"])
        pids = read_pids(root)
        begin_s = time.monotonic()
        for name in ("kis", "kiwoom"):
            os.kill(pids[name], signal.SIGKILL)
        wait_until("the loss is sent", lambda: hook.lines("ATTENTION blind kr"))
        wait_until("that is on record", lambda: "0 lines wait" in read_status(root)["processes"]["notify"]["detail"])
        print(f"sent {time.monotonic() - begin_s:.1f} s after the kill")
        os.kill(pids["notify"], signal.SIGKILL)
        wait_until("another is at work", lambda: read_pids(root).get("notify", pids["notify"]) != pids["notify"])
        wait_until("both stream", lambda: read_status(root)["healthy"])
        run_collectorctl(root, "acknowledge")
        wait_until("that is sent", lambda: hook.lines("acknowledged blind kr"))
        run_collectorctl(root, "stop")

        assert len(hook.lines("ATTENTION blind")) == 1
        for word in ("not_running", "STOPPED", "unhealthy writer", "stale_report"):
            assert hook.lines(word) == [], word
