"""Who watches the watchdog: the writer, and systemd, under a real supervisord."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.process_tree import BIN, read_pids, read_status, run_collectorctl, running_tree, temporary_home, wait_until

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
    with running_tree(SETTINGS) as root:
        yield root


@pytest.mark.parametrize("page", [pytest.param("with its page", marks=pytest.mark.long), "without its page"])
def test_a_stopped_watchdog_is_replaced_by_the_writer_with_and_without_its_page(running: Path, page: str) -> None:
    """SIGSTOP: nobody but the writer looks at it. Bounded by the limit and three looks; the others do not notice."""
    before = read_pids(running)
    os.kill(before["watchdog"], signal.SIGSTOP)
    if page == "without its page":
        Home(running).vitals_path("watchdog").unlink()

    def is_replaced() -> bool:
        process = read_status(running)["processes"]["watchdog"]
        return process["pid"] not in (0, before["watchdog"]) and process["healthy"]

    wait_until("another watchdog works", is_replaced, 90)
    after = read_pids(running)
    assert {name: pid for name, pid in before.items() if name != "watchdog"} == {
        name: pid for name, pid in after.items() if name != "watchdog"
    }
    assert ": SIGKILL" in (running / "log" / "writer.log").read_text()


def test_a_watchdog_whose_page_was_deleted_has_one_again(running: Path) -> None:
    """By itself, or as another process: in the end `status` finds it healthy, and it acts."""
    Home(running).vitals_path("watchdog").unlink()

    wait_until("it has a page", lambda: read_status(running)["processes"]["watchdog"]["healthy"], 90)

    kis = read_pids(running)["kis"]
    os.kill(kis, signal.SIGSTOP)
    wait_until("it replaces another", lambda: read_pids(running).get("kis", kis) != kis, 60)


CONFUSED = """
import sys
from pathlib import Path
from collectorctl.supervision.watchdog import __main__ as watchdog
watchdog.EVENT_TIMEOUT_S = 8.0
if not Path("run/confused").exists():
    Path("run/confused").touch()
    watchdog.send = lambda protocol, *messages: protocol.write("what?\\n") > 0
sys.exit(watchdog.main())
"""


def test_a_watchdog_to_which_supervisord_sends_nothing_more_makes_room_for_another() -> None:
    """Its heartbeat is fresh, but no event comes: a listener whose answer supervisord does not understand. The next one acts."""
    with temporary_home(SETTINGS) as root, SimulatorProcess(root, root / "truth") as simulator:
        set_addresses(root, simulator.addresses)
        (root / "confused.py").write_text(CONFUSED)
        conf = (root / "supervisord.conf").read_text()
        command = "python -m collectorctl.supervision.watchdog"
        assert command in conf
        (root / "supervisord.conf").write_text(conf.replace(command, "python confused.py"))
        run_collectorctl(root, "start")
        kis = read_pids(root)["kis"]
        os.kill(kis, signal.SIGSTOP)

        wait_until("kis is replaced", lambda: read_pids(root).get("kis", kis) != kis, 90)

        assert "sent no event for 8 s" in (root / "log" / "watchdog.log").read_text()


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
