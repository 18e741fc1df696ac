"""The watchdog under real supervisord: hung, fat, given up, and its own death."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.process_tree import read_status, run_collectorctl, temporary_home, wait_until

from collectorctl.demo.environment import SimulatorProcess, set_addresses

SETTINGS = """
[universe]
kr = ["005930", "000660", "0074K0"]
[clock]
start = "2026-11-20T10:00:00+09:00"
[kis]
subscribe_spacing_ms = 20
[feed]
backoff_max_s = 1.0
[watchdog]
stale_s = 3.0
start_s = 15.0
terminate_timeout_s = 30.0
fatal_restart_s = 1.0
kis_memory_mb = 120
kiwoom_memory_mb = 120
writer_memory_mb = 260
"""

ORDER = re.compile(
    r"(\d\d:\d\d:\d\d\.\d+) WARNING watchdog (\w+): (.*): (SIGABRT|SIGKILL|SIGTERM|start)$", re.MULTILINE
)


def orders(root: Path) -> list[tuple[str, str]]:
    """What the watchdog did, as (what, name), in order."""
    return [(what, name) for _, name, _, what in ORDER.findall((root / "log" / "watchdog.log").read_text())]


def pids(root: Path) -> dict[str, int]:
    """The processes' ids by name."""
    return {name: process["pid"] for name, process in read_status(root)["processes"].items()}


def test_hung_collectors_are_aborted_then_killed_and_come_back() -> None:
    """A collector stopped by SIGSTOP and one stuck in a system call: both replaced, the stuck one's stack kept, no other touched.

    A quarantine file that is a pipe nobody reads blocks whoever opens it: a real loop that hangs.
    """
    with temporary_home(SETTINGS) as root, SimulatorProcess(root, root / "truth") as simulator:
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        before = pids(root)
        pipe = root / "data" / "quarantine" / "date=2026-11-20" / "kiwoom.jsonl"
        pipe.parent.mkdir(parents=True)
        os.mkfifo(pipe)
        simulator.send_command("kiwoom garble 1")
        os.kill(before["kis"], signal.SIGSTOP)

        wait_until("kiwoom is aborted", lambda: ("SIGABRT", "kiwoom") in orders(root), 40)
        pipe.unlink()
        wait_until("kis is killed", lambda: ("SIGKILL", "kis") in orders(root), 20)
        wait_until("both are healthy again", lambda: read_status(root)["healthy"])

        after = pids(root)
        assert before["kis"] != after["kis"] and before["kiwoom"] != after["kiwoom"]
        assert (before["writer"], before["watchdog"]) == (after["writer"], after["watchdog"])
        assert [("SIGABRT", "kis"), ("SIGKILL", "kis")] == [order for order in orders(root) if order[1] == "kis"]
        assert [("SIGABRT", "kiwoom")] == [order for order in orders(root) if order[1] == "kiwoom"]
        stack = (root / "log" / "kiwoom.out").read_text()
        assert "quarantine.py" in stack and "in _write_line" in stack
        assert read_status(root)["processes"]["watchdog"]["counters"]["orders"] == 3

        done = len(orders(root))
        assert "drained to zero" in run_collectorctl(root, "stop").stdout
        assert done == len(orders(root))
        log = (root / "log" / "watchdog.log").read_text()
        assert "the watchdog stops acting" in log and "watchdog ends as asked" in log


LEAKING = """
import sys, time
from pathlib import Path
from conf.process import run_process
from ringbuf.vitals import ProcessState, Vitals

name, leak_mb = sys.argv[1], int(sys.argv[2])

def body(home, stop):
    vitals = Vitals.create(home.vitals_path(name), name)
    vitals.set_state(ProcessState.STREAMING)
    lives = home.run / f"{name}.lives"
    first = not lives.exists()
    with lives.open("a") as file:
        file.write(f"begin {time.monotonic()}\\n")
    held = bytearray(0)
    while not stop.wait(0.2):
        vitals.heartbeat()
        if first and len(held) < leak_mb * 1_000_000:
            held += bytes(10_000_000)
    with lives.open("a") as file:
        file.write(f"end {time.monotonic()}\\n")

sys.exit(run_process(name, body))
"""

FAILING = """
import sys, time
from pathlib import Path
tries = Path("run/tries")
tries.write_text(str(int(tries.read_text()) + 1 if tries.exists() else 1))
if int(tries.read_text()) < 3:
    sys.exit("cannot run")
time.sleep(1000)
"""

TALKING = """
import sys
from collectorctl.supervision.watchdog import __main__ as watchdog
observe = watchdog.observe
watchdog.observe = lambda *given: (print("a stray line"), observe(*given))[1]
sys.exit(watchdog.main())
"""


@pytest.mark.long
def test_fat_ones_leave_in_turn_the_writer_last_and_the_given_up_are_started_again() -> None:
    """Three programs that leak, one that fails until its third start, a watchdog that prints where it must not and is killed.

    Each leaking program ends in order before the next is asked, the writer last; the failing one runs in the end.
    """
    with temporary_home(SETTINGS) as root:
        for name, text in (("leaking.py", LEAKING), ("failing.py", FAILING), ("talking.py", TALKING)):
            (root / name).write_text(text)
        conf = (root / "supervisord.conf").read_text()
        for command, other in (
            ("python -m brokers kis", "python leaking.py kis 150"),
            ("python -m brokers kiwoom", "python leaking.py kiwoom 150"),
            ("python -m writer", "python leaking.py writer 300"),
            ("python -m collectorctl.supervision.watchdog", "python talking.py"),
        ):
            assert f"command = {command}\n" in conf
            conf = conf.replace(f"command = {command}\n", f"command = {other}\n")
        failing = "[program:failing]\ncommand = python failing.py\ndirectory = %(here)s\nstartretries = 0\n"
        (root / "supervisord.conf").write_text(conf + failing)
        run_collectorctl(root, "start", "--wait", "10", check=False)  # the failing one is not healthy, ever

        wait_until("one has been SIGTERM sent", lambda: any(what == "SIGTERM" for what, _ in orders(root)), 40)
        wait_until("it works again", lambda: read_status(root)["processes"]["kis"]["healthy"])
        old = pids(root)["watchdog"]
        os.kill(old, signal.SIGKILL)
        wait_until("another watchdog runs", lambda: pids(root)["watchdog"] not in (0, old))
        wait_until("the writer has been asked", lambda: ("SIGTERM", "writer") in orders(root), 60)
        wait_until(
            "every one works",
            lambda: all(s["healthy"] for n, s in read_status(root)["processes"].items() if n != "failing"),
        )
        wait_until(
            "the failing one runs", lambda: read_status(root)["processes"]["failing"]["supervisor_state"] == "RUNNING"
        )

        assert ["kis", "kiwoom", "writer"] == [name for what, name in orders(root) if what == "SIGTERM"]
        assert {("SIGTERM", "kis"), ("SIGTERM", "kiwoom"), ("SIGTERM", "writer"), ("start", "failing")} == set(
            orders(root)
        )
        assert "3" == (root / "run" / "tries").read_text()
        wait_until("the writer has begun again", lambda: len(_lives(root, "writer")) > 2)
        lives = {name: _lives(root, name) for name in ("kis", "kiwoom", "writer")}
        assert [["begin", "end", "begin"]] * 3 == [[what for what, _ in life] for life in lives.values()]
        assert lives["kis"][2][1] < lives["kiwoom"][1][1] and lives["kiwoom"][2][1] < lives["writer"][1][1]
        assert "a stray line" in (root / "log" / "watchdog.out").read_text()

        begun = time.monotonic()
        run_collectorctl(root, "stop")
        assert time.monotonic() - begun < 20
        assert [["begin", "end"] * 2] * 3 == [[what for what, _ in _lives(root, name)] for name in lives]


def _lives(root: Path, name: str) -> list[tuple[str, float]]:
    lines = (root / "run" / f"{name}.lives").read_text().splitlines()
    return [(what, float(at)) for what, at in (line.split() for line in lines)]


def start_watchdog(root: Path) -> subprocess.Popen[bytes]:
    """A watchdog whose supervisord is this test; it is ready for the first event."""
    dog = subprocess.Popen(
        [sys.executable, "-m", "collectorctl.supervision.watchdog"],
        env=os.environ | {"COLLECTOR_HOME": str(root)},
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert dog.stdout.readline() == b"READY\n"
    return dog


def test_it_ends_in_order_when_supervisord_is_gone_in_the_middle_of_an_answer() -> None:
    """A closed pipe is no bug: a SIGKILL of supervisord is noticed by whichever comes first, the signal or the pipe."""
    with temporary_home("") as root:
        dog = start_watchdog(root)
        dog.stdout.close()
        dog.stdin.write(b"eventname:TICK_5 len:15\nwhen:1201063880")
        dog.stdin.flush()

        assert dog.wait(20) == 0

        dog.stdin.close()
        assert b"Traceback" not in dog.stderr.read()
        dog.stderr.close()
        assert "watchdog ends as asked" in (root / "log" / "watchdog.log").read_text()


@pytest.mark.parametrize(
    "part", [b"eventname:TICK_5 le", b"eventname:TICK_5 len:15", b"eventname:TICK_5 len:15\nwhen:12"]
)
def test_it_ends_in_order_when_supervisord_is_gone_in_the_middle_of_an_event(part: bytes) -> None:
    """Half a line is no event: supervisord was killed while it wrote it."""
    with temporary_home("") as root:
        dog = start_watchdog(root)

        _, errors = dog.communicate(part, timeout=20)

        assert (dog.returncode, b"Traceback" in errors) == (0, False)
        assert "watchdog ends as asked" in (root / "log" / "watchdog.log").read_text()
