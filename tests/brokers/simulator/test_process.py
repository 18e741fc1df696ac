"""The simulator as a process: how it starts, what day it lives in, how it ends, what it puts up with."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support.vendor_clients import (
    ROOT,
    KisClient,
    KiwoomClient,
    SimulatorHandle,
    request_kis_approval,
    request_kiwoom_token,
    start_simulator,
)

from brokers.simulator.ground_truth import load

Start = Callable[..., SimulatorHandle]
COMMAND = [sys.executable, "-m", "brokers.simulator"]


def run(*options: str, **how: object) -> subprocess.Popen[str]:
    """The bare process, stdin as given."""
    return subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True, cwd=ROOT, **how)


def await_gone(pid: int, within_s: float = 10) -> None:
    """Until no such process runs."""
    deadline_s = time.monotonic() + within_s
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline_s, f"{pid} still runs"
        time.sleep(0.02)


def test_it_listens_on_loopback_only(start: Start) -> None:
    """One port a broker, REST and WebSocket on the same one, 127.0.0.1."""
    running = start()
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for connection in psutil.Process(running.process.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    ports = {
        int(running.ready[line][url].split(":")[2].split("/")[0])
        for line in ("kis", "kiwoom", "us")
        for url in ("ws_url", "rest_url")
    }

    assert {("127.0.0.1", port) for port in ports} == listening
    assert len(ports) == 3


def test_it_lives_on_without_stdin_and_ends_by_itself_when_told_so(home: Path) -> None:
    """/dev/null on stdin is no steering, not an end; --seconds is."""
    begun_s = time.monotonic()
    process = run("--home", str(home), "--seconds", "1.5", stdin=subprocess.DEVNULL)
    code = process.wait(20)

    assert code == 0
    assert time.monotonic() - begun_s > 1.5
    assert process.stdout.read().count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_with_the_truth_on_disk(home: Path, tmp_path: Path, number: int) -> None:
    """Exit 0; every client is cut, every record settled."""
    with start_simulator(home, "--always-open", "--symbols", "005930", "--truth", str(tmp_path / "t")) as running:
        client = KisClient(running.ready)
        client.subscribe("H0STASP0", "005930")
        client.await_frame(lambda frame: b"H0STASP0|" in frame)
        running.process.send_signal(number)
        ended = client.await_end()
        code = running.process.wait(20)
    truth = load(tmp_path / "t")

    assert (code, ended) == (0, "cut")
    assert [row["how"] for row in truth.connections] == ["simulator stopped"]
    assert len(truth.deliveries) > 0


def test_it_dies_with_its_parent(home: Path) -> None:
    """--die-with-parent: a parent that is killed takes it along."""
    script = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([*{COMMAND!r}, '--home', {str(home)!r}, '--die-with-parent'], stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()

    await_gone(child)


def test_wrong_options_and_settings_end_it_with_a_sentence(home: Path, tmp_path: Path) -> None:
    """2 for usage, 78 for configuration."""
    (tmp_path / "collector.toml").write_text("[universe]\nkr = ['nonsense']\n")
    outcomes = [
        subprocess.run([*COMMAND, *options], capture_output=True, text=True, cwd=ROOT, check=False)
        for options in (["--home", str(home), "--symbols", "59300"], ["--home", str(tmp_path)])
    ]

    assert [outcome.returncode for outcome in outcomes] == [2, 78]
    assert "is not an instrument" in outcomes[0].stderr
    assert "universe.kr" in outcomes[1].stderr


def test_a_client_that_stops_reading_is_cut_and_costs_the_others_nothing(home: Path, tmp_path: Path) -> None:
    """Bounded memory: what it did not take is lost, and said to be."""
    options = ("--always-open", "--symbols", "005930", "--books-per-s", "4000", "--truth", str(tmp_path / "t"))
    with start_simulator(home, *options) as running:
        stuck, good = KisClient(running.ready, "stuck"), KisClient(running.ready, "good")
        stuck.ws.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.subscribe("H0STASP0", "005930")
        good.subscribe("H0STASP0", "005930")
        deadline_s = time.monotonic() + 60
        while running.send_command("status")["kis"]["connections"] == 2:
            good.read_for(0.5)
            assert time.monotonic() < deadline_s
        good.frames.clear()
        good.await_frame(lambda frame: b"H0STASP0|" in frame)
        memory_mb = psutil.Process(running.process.pid).memory_info().rss / 1e6
        good.close()
        running.stop()
    truth = load(tmp_path / "t")

    assert [row["how"] for row in truth.connections] == ["client stopped reading", "client closed"]
    assert memory_mb < 200
    assert (truth.deliveries[truth.deliveries["connection"] == 1]["outcome"] == 1).sum() > 5_000


def test_many_reconnects_leave_nothing_behind(start: Start) -> None:
    """Closed, vanished and never logged in: no connection and no descriptor stays."""
    running = start()
    process = psutil.Process(running.process.pid)
    token = request_kiwoom_token(running.ready)["token"]
    approval = request_kis_approval(running.ready)
    before = process.num_fds()
    for number in range(60):
        for client in (
            KisClient(running.ready, approval=approval),
            KiwoomClient(running.ready, token=token, login=False),
        ):
            client.vanish() if number % 2 else client.close()
    deadline_s = time.monotonic() + 15
    while True:
        status = running.send_command("status")
        left = [status["kis"]["connections"], status["kiwoom"]["connections"], max(process.num_fds() - before, 0)]
        if left == [0, 0, 0]:
            break
        assert time.monotonic() < deadline_s, left
        time.sleep(0.05)


def warped_home(root: Path, start: str, speed: float) -> Path:
    """A home on a warped clock."""
    root.mkdir()
    (root / "collector.toml").write_text(f'[universe]\nkr = ["005930"]\n[clock]\nstart = "{start}"\nspeed = {speed}\n')
    return root


def test_the_day_opens_with_an_auction_print_and_a_phase_message(tmp_path: Path) -> None:
    """On a warped clock across 09:00: expected prices before, one unsigned print, then trading; 0s says so."""
    home = warped_home(tmp_path / "home", "2026-11-20T08:57:00+09:00", 60.0)
    with start_simulator(home, "--kis-loss", "0", "--kiwoom-loss", "0") as running:
        kis, kiwoom = KisClient(running.ready), KiwoomClient(running.ready)
        kis.subscribe("H0STCNT0", "005930")
        kis.subscribe("H0STASP0", "005930")
        kiwoom.request("REG", ["005930"], ["0B", "0D"])
        kiwoom.request("REG", [""], ["0s"], group="2")
        kiwoom.await_frame(lambda frame: b'"0B"' in frame, 20)
        kiwoom.read_for(2)
        kis.read_for(0.5)
        (phase,) = kiwoom.collect_entries("0s")
        kis.close()
        kiwoom.close()
    first, *others = kiwoom.collect_entries("0B")
    books = kis.collect_records("H0STASP0")
    before = [row for row in books if row[1] < "090000"]
    after = [row for row in books if row[1] >= "090000"]

    assert (phase["item"], phase["values"]["215"], phase["values"]["20"][:4] + "00") == ("", "3", "090000")
    assert first["values"]["15"].isdigit()
    assert first["values"]["20"][:4] == "0900"
    assert others
    assert all(entry["values"]["15"][0] in "+-" for entry in others)
    assert before
    assert all(row[2] == "B" and row[6] == "0" for row in before)
    assert any(int(row[48]) > 0 for row in before)
    assert after
    assert all((row[2], row[47]) == ("0", "0") for row in after)
    assert kis.collect_records("H0STCNT0")[0][13] == first["values"]["13"]


def test_a_closed_market_is_silent_but_alive(tmp_path: Path) -> None:
    """On a Sunday nothing comes but heartbeats and acknowledgements."""
    home = warped_home(tmp_path / "home", "2026-11-22T10:00:00+09:00", 1.0)
    with start_simulator(home, "--kiwoom-ping-every-s", "0.3") as running:
        client = KiwoomClient(running.ready)
        assert client.request("REG", ["005930"], ["0B", "0D", "0s"])["return_code"] == 0
        client.read_for(1.0)
        client.close()

    assert client.collect_entries("0B") + client.collect_entries("0D") + client.collect_entries("0s") == []
    assert client.frames.count(b'{"trnm":"PING"}') >= 2
