"""The whole tree while both vendors block its address: `status` says so in words, and afterwards both feeds stream again."""

from __future__ import annotations

import pytest
from support.process_tree import run_collectorctl, temporary_home, wait_until

from collectorctl.demo.environment import SimulatorProcess, set_addresses
from conf.home import Home
from ringbuf.vitals import VitalsError, read_snapshot

SETTINGS = """
[universe]
kr = ["005930", "000660"]
[clock]
start = "2026-11-20T10:00:00+09:00"
[kis]
subscribe_spacing_ms = 20
cut_wait_s = 1.0
[feed]
backoff_first_s = 1.0
backoff_max_s = 2.0
"""


@pytest.mark.long
def test_status_says_why_no_feed_streams_and_both_come_back() -> None:
    """KIS answers nothing, Kiwoom 8050; after the block each streams, Kiwoom after the minute that a refusal costs."""
    with temporary_home(SETTINGS) as root, SimulatorProcess(root, root / "truth") as simulator:
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        try:
            wait_until("both stream", lambda: states(root) == {"streaming"}, 60)
            simulator.send_command("kis block 12")
            simulator.send_command("kiwoom block 5")
            wait_until("kiwoom refused", lambda: "refused" in states(root), 60)
            told = wait_until("both reasons", lambda: reasons(root), 60)
            wait_until("both stream again", lambda: states(root) == {"streaming"}, 120)
        finally:
            run_collectorctl(root, "stop", check=False)

    assert "8050" in told


def states(root) -> set[str]:
    """What both collectors do."""
    found = set()
    for name in ("kis", "kiwoom"):
        try:
            found.add(str(read_snapshot(Home(root).vitals_path(name)).state))
        except (FileNotFoundError, VitalsError):
            found.add("none")
    return found


def reasons(root) -> str:
    """The output of `status` once it has the reasons of both; lines may be broken anywhere."""
    text = run_collectorctl(root, "status", check=False).stdout
    joined = "".join(text.split())
    return joined if "LOGINrefused" in joined and "noconnection" in joined else ""
