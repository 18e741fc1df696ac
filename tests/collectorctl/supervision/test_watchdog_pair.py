"""Who watches the watchdog: the writer, and systemd, under a real supervisord."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.process_tree import BIN, read_status, run_collectorctl, temporary_home, wait_until

from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.supervision.watchdog import service_manager
from conf.home import Home

SETTINGS = """
[universe]
kr = ["005930"]
[clock]
start = "2026-11-20T10:00:00+09:00"
[kis]
subscribe_spacing_ms = 20
[feed]
backoff_max_s = 1.0
[watchdog]
stale_s = 3.0
start_s = 15.0
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Path]:
    """A home whose tree runs against the simulator."""
    with temporary_home(SETTINGS) as root, SimulatorProcess(root, root / "truth") as simulator:
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        yield root


def pids(root: Path) -> dict[str, int]:
    """The ids of the processes that run, by name."""
    return {name: process["pid"] for name, process in read_status(root)["processes"].items() if process["pid"]}


@pytest.mark.parametrize("page", ["with its page", "without its page"])
def test_a_stopped_watchdog_is_replaced_by_the_writer_with_and_without_its_page(running: Path, page: str) -> None:
    """SIGSTOP: nobody but the writer looks at it. Bounded by the limit and three looks; the others do not notice."""
    before = pids(running)
    os.kill(before["watchdog"], signal.SIGSTOP)
    if page == "without its page":
        Home(running).vitals_path("watchdog").unlink()

    def is_replaced() -> bool:
        process = read_status(running)["processes"]["watchdog"]
        return process["pid"] not in (0, before["watchdog"]) and process["healthy"]

    wait_until("another watchdog works", is_replaced, 90)
    after = pids(running)
    assert {name: pid for name, pid in before.items() if name != "watchdog"} == {
        name: pid for name, pid in after.items() if name != "watchdog"
    }
    assert ": SIGKILL" in (running / "log" / "writer.log").read_text()


def test_a_watchdog_whose_page_was_deleted_has_one_again(running: Path) -> None:
    """By itself, or as another process: in the end `status` finds it healthy, and it acts."""
    Home(running).vitals_path("watchdog").unlink()

    wait_until("it has a page", lambda: read_status(running)["processes"]["watchdog"]["healthy"], 90)

    kis = pids(running)["kis"]
    os.kill(kis, signal.SIGSTOP)
    wait_until("it replaces another", lambda: pids(running).get("kis", kis) != kis, 60)


def test_systemd_is_notified_while_supervisord_answers_and_not_otherwise(tmp_path: Path) -> None:
    """READY=1 and WATCHDOG=1 come through NOTIFY_SOCKET, stop while supervisord is stopped, come again, end with STOPPING=1."""
    with (
        temporary_home(SETTINGS) as root,
        SimulatorProcess(root, root / "truth") as simulator,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
    ):
        set_addresses(root, simulator.addresses)
        systemd.bind(os.fspath(root / "notify"))
        supervisord = subprocess.Popen(
            [BIN / "supervisord", "-n", "-c", root / "supervisord.conf"],
            env={"PATH": f"{BIN}:{os.defpath}", "NOTIFY_SOCKET": os.fspath(root / "notify")},
            stdout=subprocess.DEVNULL,
        )
        try:
            systemd.settimeout(60)
            assert systemd.recv(4096) == b"READY=1\nWATCHDOG=1"
            assert systemd.recv(4096) == b"READY=1\nWATCHDOG=1"
            supervisord.send_signal(signal.SIGSTOP)
            systemd.settimeout(12)
            with pytest.raises(TimeoutError):
                for _ in range(3):  # one or two may have been under way
                    systemd.recv(4096)
            supervisord.send_signal(signal.SIGCONT)
            systemd.settimeout(60)
            assert b"WATCHDOG=1" in systemd.recv(4096)
        finally:
            supervisord.send_signal(signal.SIGCONT)
            supervisord.terminate()
            supervisord.wait(60)
        last = b""
        systemd.settimeout(1)
        while last != b"STOPPING=1":
            last = systemd.recv(4096)


def test_without_systemd_nothing_is_sent_and_a_deaf_one_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No variable, an address of nobody, one in the abstract namespace, a full queue."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    service_manager.notify(service_manager.READY)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    service_manager.notify(service_manager.READY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0cc-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@cc-{os.getpid()}")
        for _ in range(1000):
            service_manager.notify(service_manager.READY)
        assert systemd.recv(100) == b"READY=1"
