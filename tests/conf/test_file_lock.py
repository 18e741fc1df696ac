"""Lock files: one holder at a time, whoever is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.writer_data import ROOT

from conf.files.lock import LockHeld, exclusive_lock

HOLDER = """
import sys
from pathlib import Path
from conf.files.lock import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "recover", 10.0):
    print("held", flush=True)
    sys.stdin.read()
"""
COUNTER = """
import sys
from pathlib import Path
from conf.files.lock import exclusive_lock
path, inside = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(int(sys.argv[3])):
    with exclusive_lock(path, "counter", 60.0):
        inside.mkdir()  # an error if somebody else is inside
        inside.rmdir()
        with inside.with_suffix(".log").open("ab") as log:
            log.write(b"x")
"""


def start(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    """A process that runs `script`."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_a_held_lock_is_waited_for_so_long_and_the_holder_is_named(tmp_path: Path) -> None:
    """Whoever waits is told once for whom; afterwards nothing is left on disk."""
    path, told = tmp_path / "publish" / "2026-11-20.lock", list[str]()
    with start(HOLDER, path.parent.parent / "publish" / path.name) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        begin = time.monotonic()
        with pytest.raises(LockHeld) as error, exclusive_lock(path, "writer", 0.3, on_wait=told.append):
            pass
        assert time.monotonic() - begin >= 0.3
        with pytest.raises(LockHeld), exclusive_lock(path, "writer", 60.0, cancelled=lambda: True):
            pass
        holder.communicate(b"")

    assert [f"recover, process {holder.pid}"] == told == [error.value.holder]
    assert str(path) in str(error.value)
    assert [] == list(path.parent.iterdir())
    with exclusive_lock(path, "writer", 0.0):
        assert path.read_text() == f"writer, process {os.getpid()}\n"


def test_a_killed_holder_locks_nobody_out(tmp_path: Path) -> None:
    """Its file stays, and goes with the next lock."""
    path = tmp_path / "date.lock"
    holder = start(HOLDER, path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    holder.kill()
    holder.wait()
    assert path.exists()

    with exclusive_lock(path, "writer", 0.0):
        pass

    assert not path.exists()


def test_of_many_processes_one_is_inside_at_a_time_though_some_are_killed(tmp_path: Path) -> None:
    """The file is removed with every lock and made again: two never hold two files of one name."""
    path, inside = tmp_path / "date.lock", tmp_path / "inside"
    counters = [start(COUNTER, path, inside, 150) for _ in range(4)]
    victims = [start(HOLDER, path) for _ in range(3)]
    for victim in victims:
        time.sleep(random.Random(victim.pid).random() / 5)
        victim.send_signal(signal.SIGKILL)
        victim.wait()

    assert [0] * 4 == [counter.wait(60) for counter in counters]
    assert (tmp_path / "inside.log").stat().st_size == 600
