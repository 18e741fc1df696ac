"""The process tree under real supervisord: start, stop, restart, kill, and who may look in."""

from __future__ import annotations

import gc
import os
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.process_tree import (
    BIN,
    SECRETS,
    read_pids,
    read_status,
    run_collectorctl,
    running_tree,
    temporary_home,
    wait_until,
)

from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.supervision import supervisor
from collectorctl.supervision.readiness import wait_until_healthy
from collectorctl.supervision.status import never_started
from collectorctl.supervision.supervisor import SupervisorClient, SupervisorError
from conf.home import Home
from conf.process import AlreadyRunning, ShutdownSignal, acquire_lock

SETTINGS = """
[universe]
kr = ["005930", "000660", "0074K0"]
[clock]
start = "2026-11-20T10:00:00+09:00"
[kis]
subscribe_spacing_ms = 20
[feed]
backoff_max_s = 1.0
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Path]:
    """A home whose tree runs against the simulator."""
    with running_tree(SETTINGS) as root:
        yield root


def healthy_again(root: Path, name: str, old: int) -> bool:
    """Whether a new process of that name is healthy."""
    process = read_status(root)["processes"][name]
    return process["pid"] not in (0, old) and process["healthy"]


def test_start_returns_when_every_process_is_healthy_by_vitals(running: Path) -> None:
    """After `start` the first look finds every process healthy with a fresh heartbeat and modest memory, but for the one that
    runs when it is due."""
    seen = read_status(running)

    assert {"kis", "kiwoom", "gapfill", "writer", "watchdog", "recover"} == set(seen["processes"])
    assert seen["healthy"]
    idle = seen["processes"].pop("recover")
    assert ("STOPPED", True, "nothing is due") == (idle["supervisor_state"], idle["healthy"], idle["verdict"])
    for name, process in seen["processes"].items():
        assert process["heartbeat_age_s"] < 5
        assert process["own_memory_mb"] < (400 if name == "writer" else 60)


def test_a_second_start_disturbs_nobody(running: Path) -> None:
    """`start` on a running home says so, exits 0, and keeps every process."""
    before = read_pids(running)

    again = run_collectorctl(running, "start")

    assert "was running" in again.stdout
    assert before == read_pids(running)


def test_programs_that_are_not_switched_on_are_not_started(running: Path) -> None:
    """Not by supervisord, not by the watchdog, not by a second `start`."""
    run_collectorctl(running, "start")
    programs = {program.name: program for program in SupervisorClient(Home(running)).list_programs()}

    assert {"us", "metrics", "relay", "zmq", "notify"} <= {
        name for name, program in programs.items() if never_started(program)
    }


def test_a_program_that_a_user_added_counts_as_healthy_while_it_runs(running: Path) -> None:
    """It has no vitals: what supervisord knows of it is all there is."""
    conf = running / "supervisord.conf"
    before = conf.read_text()
    control = [BIN / "supervisorctl", "-c", conf]
    conf.write_text(f"{before}\n[program:strategy]\ncommand = sleep 1000\nstartsecs = 0\n")
    try:
        subprocess.run([*control, "update"], check=True)

        assert run_collectorctl(running, "start", "--wait", "10").returncode == 0
        assert read_status(running)["processes"]["strategy"]["healthy"]

        subprocess.run([*control, "signal", "KILL", "strategy"], check=True)
        subprocess.run([*control, "stop", "strategy"], check=True)

        seen = read_status(running)["processes"]["strategy"]
        assert (False, "supervisor: STOPPED") == (seen["healthy"], seen["verdict"])
    finally:
        conf.write_text(before)
        subprocess.run([*control, "update"], check=True)
    assert "strategy" not in read_status(running)["processes"]


def test_supervisorctl_restart_kis_works_in_the_home_and_leaves_the_others_alone(running: Path) -> None:
    """The command people know, typed where supervisord.conf lies."""
    before = read_pids(running)

    ran = subprocess.run(
        [BIN / "supervisorctl", "restart", "kis"], cwd=running, capture_output=True, text=True, check=False
    )

    assert "kis: started" in ran.stdout
    wait_until("kis is healthy", lambda: healthy_again(running, "kis", before["kis"]))
    after = read_pids(running)
    assert before["kis"] != after["kis"]
    assert (before["kiwoom"], before["writer"]) == (after["kiwoom"], after["writer"])


@pytest.mark.parametrize("name", ["kis", "kiwoom", "gapfill", "writer"])
def test_a_killed_process_comes_back_and_the_others_do_not_notice(running: Path, name: str) -> None:
    """SIGKILL of one process: supervisord starts it again, the other pids stay."""
    before = read_pids(running)

    os.kill(before[name], signal.SIGKILL)

    wait_until(f"{name} is healthy", lambda: healthy_again(running, name, before[name]))
    assert {n: p for n, p in before.items() if n != name} == {n: p for n, p in read_pids(running).items() if n != name}


def test_restart_of_an_unknown_process_says_so(running: Path) -> None:
    """One line, exit 1, nothing harmed."""
    ran = run_collectorctl(running, "restart", "nobody", check=False)

    assert ran.returncode == 1
    assert "nobody: no such program" in ran.stderr


def test_a_supervisord_that_stands_still_is_said_to_and_not_waited_for(running: Path) -> None:
    """SIGSTOP of supervisord: commands end with words instead of hanging; after SIGCONT all is as before."""
    before, root = read_pids(running), read_status(running)["supervisor_pid"]
    os.kill(root, signal.SIGSTOP)
    try:
        ran = run_collectorctl(running, "status", check=False, timeout_s=30)
    finally:
        os.kill(root, signal.SIGCONT)

    assert ran.returncode == 1
    assert "does not answer" in ran.stderr
    assert before == read_pids(running)


def test_a_start_waits_for_a_supervisord_that_is_slow_to_answer(running: Path) -> None:
    """SIGSTOP of supervisord for longer than one call waits, which is what a busy machine does to it."""
    root = SupervisorClient(Home(running)).find_pid()
    assert root is not None
    os.kill(root, signal.SIGSTOP)
    going_on = threading.Timer(supervisor.RESPONSE_TIMEOUT_S + 1.0, os.kill, (root, signal.SIGCONT))
    going_on.start()
    try:
        assert wait_until_healthy(Home(running), 30.0) == []
        assert not going_on.is_alive()
    finally:
        going_on.join()

    os.kill(root, signal.SIGSTOP)
    try:
        with pytest.raises(SupervisorError, match="does not answer"):
            wait_until_healthy(Home(running), 1.0)
    finally:
        os.kill(root, signal.SIGCONT)


def test_only_the_owner_can_reach_the_tree_and_no_port_is_open(running: Path) -> None:
    """run/ is 0700, the socket 0600, and no process of the tree listens on TCP."""
    assert stat.S_IMODE((running / "run").stat().st_mode) == 0o700
    assert stat.S_IMODE((running / "run" / "supervisor.sock").stat().st_mode) == 0o600
    for pid in [read_status(running)["supervisor_pid"], *read_pids(running).values()]:
        assert [c for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN] == []


def test_no_secret_reaches_logs_status_or_data(running: Path) -> None:
    """Neither keys nor secrets stand in any file the tree wrote, nor in what status prints."""
    secrets = [value.encode() for name, value in SECRETS.items()]
    written = [p for d in ("log", "data") for p in (running / d).rglob("*") if p.is_file()]

    assert written
    for path in written:
        content = path.read_bytes()
        assert not [s for s in secrets if s in content], path
    assert not [s for s in secrets if s in run_collectorctl(running, "status", "--json", check=False).stdout.encode()]


def test_stop_drains_to_zero_and_says_so() -> None:
    """Brokers go first, the writer publishes the open hour and empties the journal; a second stop finds nothing."""
    with temporary_home(SETTINGS) as root, SimulatorProcess(root, root / "truth") as simulator:
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        wait_until(
            "rows are journalled", lambda: read_status(root)["processes"]["writer"]["counters"]["journal_rows"] > 50
        )

        said = run_collectorctl(root, "stop").stdout

        assert "drained to zero" in said
        assert "nothing runs here" in run_collectorctl(root, "stop").stdout
        assert list((root / "data" / "kr" / "orderbook").rglob("part-*.parquet"))
        assert sum(ring["backlog"] for ring in read_status(root)["rings"]) == 0


def test_start_refuses_wrong_settings_before_anything_runs() -> None:
    """Exit 78 with file, key and what to write; no supervisord afterwards."""
    with temporary_home("") as root:
        (root / ".env").write_text("KIS_APP_KEY=key-of-kis\n")
        ran = run_collectorctl(root, "start", check=False)

        assert ran.returncode == 78
        assert read_status(root)["supervisor_pid"] is None


def test_a_fresh_home_starts_under_plain_supervisord_in_the_foreground() -> None:
    """What a systemd unit does: no `collectorctl start` before it, only PATH given."""
    with temporary_home(SETTINGS) as root, SimulatorProcess(root, root / "truth") as simulator:
        set_addresses(root, simulator.addresses)
        supervisord = subprocess.Popen(
            [BIN / "supervisord", "-n", "-c", root / "supervisord.conf"],
            env={"PATH": f"{BIN}:{os.defpath}"},
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_until("all are healthy", lambda: read_status(root)["healthy"])
        finally:
            supervisord.terminate()
            supervisord.wait(60)
        assert not list((root / "run").glob("*.sock"))


@pytest.mark.parametrize(
    "left", [pytest.param("nothing", marks=pytest.mark.long), "the socket of a killed supervisord"]
)
def test_of_two_starts_at_once_both_end_with_the_one_healthy_tree(left: str) -> None:
    """One starts it, the other waits for it; there is one supervisord, also where a killed one left its socket."""
    with temporary_home(SETTINGS) as root, SimulatorProcess(root, root / "truth") as simulator:
        set_addresses(root, simulator.addresses)
        if left != "nothing":
            run_collectorctl(root, "start")
            os.kill(read_status(root)["supervisor_pid"], signal.SIGKILL)

        both = [
            subprocess.Popen([BIN / "collectorctl", "--home", root, "start"], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        said = sorted(process.communicate(timeout=200)[0] for process in both)

        assert [process.returncode for process in both] == [0, 0]
        assert said == ["started\nhealthy\n", "was running\nhealthy\n"]
        supervisors = [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if "supervisor.supervisord" in (process.info["cmdline"] or ())  # a zombie has none
            and f"{root}/supervisord.conf" in process.info["cmdline"]
        ]
        assert supervisors == [read_status(root)["supervisor_pid"]]


def test_a_start_beside_one_that_does_not_end_says_who_holds_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded, in words, and nothing is started twice."""
    with temporary_home(SETTINGS) as root:
        home = Home(root)
        home.create_directories()
        monkeypatch.setattr(supervisor, "START_TIMEOUT_S", 0.2)
        lock = acquire_lock(home.lock_path("start"), ShutdownSignal())
        try:
            with pytest.raises(AlreadyRunning, match=rf"run/start\.lock: process {os.getpid()} holds it"):
                SupervisorClient(home).start()
        finally:
            os.close(lock)


def test_a_call_to_supervisord_leaves_no_socket_open(running: Path) -> None:
    """Closed at once, not when the garbage collector comes by; a call that fails as well."""
    client = SupervisorClient(Home(running))
    sockets = lambda: [connection.fd for connection in psutil.Process().net_connections("unix")]  # noqa: E731
    before = sockets()
    gc.disable()
    try:
        for _ in range(20):
            assert client.list_programs()
            with pytest.raises(SupervisorError, match="no such program"):
                client.start_program("nobody")
    finally:
        gc.enable()

    assert sockets() == before


def test_a_call_that_is_not_answered_leaves_no_socket_open() -> None:
    """Closed when the wait is over, though nothing was read from it."""
    with temporary_home(SETTINGS) as root, socket.socket(socket.AF_UNIX) as deaf:
        client = SupervisorClient(Home(root))
        client.home.create_directories()
        deaf.bind(os.fspath(client.home.socket_path()))
        deaf.listen(20)
        sockets = lambda: [connection.fd for connection in psutil.Process().net_connections("unix")]  # noqa: E731
        before = sockets()
        gc.disable()
        try:
            for _ in range(5):
                with pytest.raises(SupervisorError, match="does not answer"):
                    client._call("getPID", timeout_s=0.1)
            assert sockets() == before
        finally:
            gc.enable()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n<?xml", b"HTT", b""])
def test_a_supervisord_that_is_killed_in_the_middle_of_its_answer_is_gone(answer: bytes) -> None:
    """Half an answer is none: whoever asks, the watchdog among them, goes on as after a refused connection."""
    with temporary_home(SETTINGS) as root, socket.socket(socket.AF_UNIX) as dying:
        client = SupervisorClient(Home(root))
        client.home.create_directories()
        dying.bind(os.fspath(client.home.socket_path()))
        dying.listen()

        def answer_in_part() -> None:
            for _ in range(2):
                peer, _ = dying.accept()
                with peer:
                    peer.recv(1 << 16)
                    peer.sendall(answer)

        server = threading.Thread(target=answer_in_part)
        server.start()
        assert client.list_programs() == []
        assert client.find_pid() is None
        server.join()
