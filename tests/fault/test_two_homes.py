"""Two homes on one host with the same keys at the same brokers: real trees, one simulator."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.process_tree import BIN, QUICK, SECRETS, read_status, run_collectorctl, temporary_home, wait_until

from collectorctl.demo.environment import SimulatorProcess, set_addresses

SETTINGS = f"""
[universe]
kr = ["005930", "000660"]
{QUICK}"""


def test_a_second_home_with_the_same_keys_is_refused_and_never_disturbs_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`start` refuses; started by supervisord alone its collectors say whose the key is, connect to nothing, and take over
    when the first home has stopped."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with (
        temporary_home(SETTINGS) as first,
        temporary_home(SETTINGS) as second,
        SimulatorProcess(first, tmp_path / "truth") as simulator,
    ):
        for root in (first, second):
            set_addresses(root, simulator.addresses)
        run_collectorctl(first, "start")

        refused = run_collectorctl(second, "start", check=False)

        assert refused.returncode == 75
        for key in ("kis: key 1", "kiwoom: key 1"):
            assert f"{key} is in use by the home {first}" in refused.stderr
        assert not [value for value in SECRETS.values() if value in refused.stderr]
        assert read_status(second)["supervisor_pid"] is None
        assert f"in use by the home {first}" in run_collectorctl(second, "check").stdout
        assert "healthy" in run_collectorctl(first, "start").stdout

        supervisord = subprocess.Popen(
            [BIN / "supervisord", "-n", "-c", second / "supervisord.conf"],
            env={"PATH": f"{BIN}:{os.defpath}", "XDG_RUNTIME_DIR": str(tmp_path)},
            stdout=subprocess.DEVNULL,
        )
        try:
            for name in ("kis", "kiwoom"):
                wait_until(
                    f"{name} is refused",
                    lambda name=name: (
                        f"in use by the home {first}" in read_status(second)["processes"][name]["verdict"]
                    ),
                )
            status = read_status(second)["processes"]
            assert {status[name]["counters"]["connects"] for name in ("kis", "kiwoom")} == {0}
            status = read_status(first)["processes"]
            assert {status[name]["counters"]["disconnects"] for name in ("kis", "kiwoom")} == {0}
            run_collectorctl(first, "stop")
            wait_until("the second home has the keys", lambda: read_status(second)["healthy"])
        finally:
            supervisord.terminate()
            supervisord.wait(60)
