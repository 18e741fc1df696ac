"""The rites, seen from outside: real processes, their exit codes, signals, locks and logs."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conf.files import lock as filelock
from conf.files.lock import LockHeld
from conf.home import Home
from conf.loader import SETTINGS_FILE

ROOT = Path(__file__).parents[2]

WAITING = """
def body(home, stop):
    say("ready")
    asked = stop.wait(60)
    say(f"asked {asked}")
"""


def main(tmp_path: Path, body: str) -> Path:
    """A process's module with this body, as brokers and writer have one."""
    module = tmp_path / "a_process.py"
    module.write_text(
        "import os, sys, threading, time\nfrom conf import process\nfrom conf.process import run_process as run\n"
        "from conf.settings import Fault, SettingsError\n"
        "from conf.files import lock as filelock\n"
        "filelock.LOCK_TIMEOUT_S = float(os.environ.get('LOCK_WAIT_S', filelock.LOCK_TIMEOUT_S))\n"
        "def say(text):\n    print(text, flush=True)\n"
        f"{body}\n"
        "sys.exit(run('kis', body))\n"
    )
    return module


@contextmanager
def started(tmp_path: Path, body: str = WAITING, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """That process, started in the home tmp_path; killed at the end if it still runs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SUPERVISOR", "COLLECTOR"))}
    process = subprocess.Popen(
        [sys.executable, main(tmp_path, body)],
        cwd=tmp_path,
        env=inherited | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout.readline() == "ready\n"


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_ends_the_wait_and_the_process_with_0(tmp_path: Path, number: int) -> None:
    """SIGTERM and SIGINT only ask: the body's wait is cut short, the body ends by itself."""
    with started(tmp_path) as process:
        ready(process)
        begin = time.monotonic()
        process.send_signal(number)

        code, out, err = ended(process)

    assert (code, out, err) == (0, "asked True\n", "")
    assert time.monotonic() - begin < 5
    assert "kis ends as asked" in (tmp_path / "log" / "kis.log").read_text()


def test_a_body_decides_itself_when_it_is_done(tmp_path: Path) -> None:
    """Signals during the draining change nothing, however many come."""
    body = """
def body(home, stop):
    say("ready")
    while not stop.requested:
        stop.wait(60)
    say("draining")
    begin = time.monotonic()
    while time.monotonic() < begin + 0.3:
        assert stop.wait(60)
    say("drained")
"""
    with started(tmp_path, body) as process:
        ready(process)
        process.terminate()
        assert process.stdout.readline() == "draining\n"
        for _ in range(20):
            process.terminate()

        code, out, _ = ended(process)

    assert (code, out) == (0, "drained\n")


def test_a_wait_without_a_request_lasts_as_long_as_told(tmp_path: Path) -> None:
    """False afterwards; a wait of nothing or less returns at once."""
    body = """
def body(home, stop):
    begin = time.monotonic()
    assert stop.wait(0.2) is False and time.monotonic() - begin >= 0.19
    assert stop.wait(0) is False and stop.wait(-1) is False
    stop.request()
    assert stop.requested and stop.wait(60) and stop.wait(0)
"""
    with started(tmp_path, body) as process:
        assert ended(process) == (0, "", "")


def test_wrong_settings_end_with_78_before_anything_starts(tmp_path: Path) -> None:
    """The sentence is on stderr, nothing is made in the home."""
    (tmp_path / SETTINGS_FILE).write_text("[kis]\nenabled = 1\n")

    with started(tmp_path) as process:
        code, out, err = ended(process)

    assert (code, out) == (78, "")
    assert (
        err == f"{tmp_path / SETTINGS_FILE}: kis.enabled: 1 is not true or false: write true or false, without quotes\n"
    )
    assert {path.name for path in tmp_path.iterdir()} == {SETTINGS_FILE, "a_process.py"}


@pytest.mark.parametrize(
    ("text", "key"), [("[log]\nrotation = 'often'\n", "log.rotation"), ("[paths]\nlog = 'a_process.py'\n", "paths.log")]
)
def test_settings_that_only_fail_in_use_end_with_78_too(tmp_path: Path, text: str, key: str) -> None:
    """A rotation that loguru does not understand, a directory that is a file: not a traceback."""
    (tmp_path / SETTINGS_FILE).write_text(text)

    with started(tmp_path) as process:
        code, _, err = ended(process)

    assert code == 78
    assert re.fullmatch(rf"{tmp_path / SETTINGS_FILE}: {key}: .+: .+\n", err)


def test_a_settings_error_of_the_body_ends_with_78_and_is_logged(tmp_path: Path) -> None:
    """Secrets are looked up by the body."""
    body = "def body(home, stop):\n    raise SettingsError(Fault('.env', 'KIS_APP_KEY', 'secret_missing', name='KIS_APP_KEY'))\n"

    with started(tmp_path, body) as process:
        code, _, err = ended(process)

    assert (code, err) == (
        78,
        ".env: KIS_APP_KEY: is missing: write a line KIS_APP_KEY=... there, or set it in the environment\n",
    )
    assert "KIS_APP_KEY: is missing" in (tmp_path / "log" / "kis.log").read_text()


def test_a_home_that_does_not_exist_ends_with_78(tmp_path: Path) -> None:
    """COLLECTOR_HOME with a typing error must not become a new installation."""
    with started(tmp_path, COLLECTOR_HOME=str(tmp_path / "hmoe")) as process:
        code, _, err = ended(process)

    assert code == 78
    assert "hmoe: home: there is no such directory" in err
    assert not (tmp_path / "hmoe").exists()


def test_a_second_instance_ends_with_75_and_names_the_first(tmp_path: Path) -> None:
    """One per name and home; the first is not disturbed."""
    with started(tmp_path) as first:
        ready(first)
        with started(tmp_path, LOCK_WAIT_S="0.2") as second:
            code, out, err = ended(second)

        assert (code, out) == (75, "")
        assert err == f"{tmp_path / 'run/kis.lock'}: process {first.pid} holds it: stop that one first\n"
        first.terminate()
        assert ended(first)[0] == 0


def test_the_holder_is_named_where_the_kernels_table_does_not_have_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the number that it wrote into its lock file; an empty one and a directory have none."""
    (tmp_path / "locks").write_text("1: FLOCK  ADVISORY  WRITE 4711 00:00:1 0 EOF\n")
    monkeypatch.setattr(filelock, "KERNEL_LOCKS", tmp_path / "locks")
    (tmp_path / "kis.lock").write_text("4712\n")
    (tmp_path / "empty.lock").touch()

    for name, holder in (("kis.lock", "process 4712"), ("empty.lock", "another process"), (".", "another process")):
        with held(tmp_path / name):
            fd = os.open(tmp_path / name, os.O_RDONLY)
            with pytest.raises(LockHeld, match=f": {holder} holds it: stop that one first"):
                filelock.lock_file(fd, tmp_path / name, timeout_s=0)
            os.close(fd)


def test_a_successor_waits_for_a_dying_predecessor(tmp_path: Path) -> None:
    """A start right after a kill does not fail for the other's last second; a lock dies with its process."""
    with started(tmp_path) as first:
        ready(first)
        with started(tmp_path) as second:
            assert select.select([second.stdout], [], [], 0.5)[0] == []
            first.kill()

            ready(second)
            second.terminate()
            assert ended(second)[:2] == (0, "asked True\n")


def test_a_process_asked_to_stop_while_it_waits_for_the_lock_ends_with_0(tmp_path: Path) -> None:
    """Stopped as asked is no failure."""
    with started(tmp_path) as first:
        ready(first)
        with started(tmp_path) as second:
            until(lambda: has_open(second.pid, tmp_path / "run/kis.lock"))
            second.terminate()

            assert ended(second) == (0, "", "")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """The flock on a file or directory, in the hands of this process."""
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)


def test_a_held_lock_on_the_run_directory_keeps_no_made_home_from_starting(tmp_path: Path) -> None:
    """Whoever holds it, and for however long: where the rings have their place it is not needed."""
    Home(tmp_path).create_directories()

    with held(tmp_path / "run"), started(tmp_path) as process:
        ready(process)


def test_a_start_that_needs_the_held_lock_ends_with_75_and_names_the_holder(tmp_path: Path) -> None:
    """Bounded: not a silent hang before there is a log."""
    (tmp_path / "run").mkdir(mode=0o700)

    with held(tmp_path / "run"), started(tmp_path, LOCK_WAIT_S="0.3") as process:
        assert ended(process) == (75, "", f"{tmp_path / 'run'}: process {os.getpid()} holds it: stop that one first\n")


def test_a_start_that_waits_for_the_held_lock_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    """SIGTERM is heard at once, and stopped as asked is no failure; the next one, with the lock free, runs."""
    (tmp_path / "run").mkdir(mode=0o700)

    with held(tmp_path / "run"), started(tmp_path, LOCK_WAIT_S="60") as process:
        until(lambda: has_open(process.pid, tmp_path / "run"))
        begin = time.monotonic()
        process.terminate()

        assert ended(process) == (0, "", "")
        assert time.monotonic() - begin < 20
    with started(tmp_path) as process:
        ready(process)


def test_a_simulated_clock_that_was_begun_is_read_without_the_lock(tmp_path: Path) -> None:
    """Commands and processes of a demo do not queue for it either; the first one is bounded."""
    (tmp_path / SETTINGS_FILE).write_text('[clock]\nstart = "2026-11-20T10:00:00+09:00"\n')
    body = "def body(home, stop):\n    say(home.load_clock().is_simulated)\n"
    Home(tmp_path).create_directories()

    with held(tmp_path / "run"), started(tmp_path, body, LOCK_WAIT_S="0.3") as process:
        assert ended(process) == (75, "", f"{tmp_path / 'run'}: process {os.getpid()} holds it: stop that one first\n")
    Home(tmp_path).load_clock()
    with held(tmp_path / "run"), started(tmp_path, body) as process:
        assert ended(process) == (0, "True\n", "")


def has_open(pid: int, path: Path) -> bool:
    return any(fd.exists() and fd.samefile(path) for fd in fds(pid))


def fds(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return []


def test_a_bug_ends_with_1_its_traceback_in_the_log_and_no_secret_anywhere(tmp_path: Path) -> None:
    """The values of variables, which loguru shows by default, may be keys: neither log nor stderr has them."""
    body = """
class Key(str):
    pass
def connect(app_secret, url):
    token = "Bearer " + app_secret
    raise ConnectionError("refused")
def body(home, stop):
    secret = "very-" + "secret"
    connect(secret, url="x")
"""
    with started(tmp_path, body) as process:
        code, out, err = ended(process)

    log = (tmp_path / "log" / "kis.log").read_text()
    assert (code, out) == (1, "")
    assert err == f"kis: ConnectionError: refused (the traceback is in {tmp_path / 'log' / 'kis'}.log)\n"
    assert "Traceback" in log
    assert "in connect" in log
    assert "very-secret" not in log + err


def test_sigabrt_leaves_the_stacks_of_all_threads(tmp_path: Path) -> None:
    """What the watchdog sends to a process that hangs: where it hung is then in log/NAME.out."""
    body = """
def hang_in_a_thread(begun):
    begun.set()
    time.sleep(60)
def hang():
    say("ready")
    while True:
        pass
def body(home, stop):
    begun = threading.Event()
    threading.Thread(target=hang_in_a_thread, args=[begun], daemon=True).start()
    begun.wait()
    hang()
"""
    with started(tmp_path, body) as process:
        ready(process)
        process.send_signal(signal.SIGABRT)

        code, _, err = ended(process)

    assert code == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in err
    assert re.search(r"in hang\n", err)
    assert re.search(r"in hang_in_a_thread\n", err)


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(child.stdout.readline().strip(), child.pid, flush=True)
child.wait()
"""


@pytest.mark.parametrize("supervised", [True, False])
def test_a_supervised_process_ends_when_its_supervisor_is_killed(tmp_path: Path, supervised: bool) -> None:
    """SIGKILL of the parent reaches the child as a request to stop; one started by hand outlives its shell."""
    body = WAITING.replace('say(f"asked {asked}")', '(home.log / "asked").write_text(str(asked))')
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("SUPERVISOR", "COLLECTOR"))
    }
    environment |= {"PYTHONPATH": str(ROOT)} | ({"SUPERVISOR_ENABLED": "1"} if supervised else {})
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, main(tmp_path, body)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    word, pid = parent.stdout.readline().split()
    assert word == "ready"

    parent.kill()
    parent.wait()

    try:
        if supervised:
            until((tmp_path / "log" / "asked").exists)
            until(lambda: not fds(int(pid)))
        else:
            parent_of = Path(f"/proc/{pid}/stat")
            until(lambda: int(parent_of.read_text().rpartition(")")[2].split()[1]) != parent.pid)
            assert not (tmp_path / "log" / "asked").exists()
    finally:
        parent.stdout.close()
        if fds(int(pid)):
            os.kill(int(pid), signal.SIGKILL)


def test_a_process_whose_parent_is_gone_already_ends_at_once(tmp_path: Path) -> None:
    """The death that came before PR_SET_PDEATHSIG is found by comparing the parent's pid."""
    body = """
def body(home, stop):
    process.exit_with_parent(parent=os.getppid() + 1)
    say(f"asked {stop.wait(60)}")
"""
    with started(tmp_path, body) as process:
        assert ended(process)[:2] == (0, "asked True\n")


def test_a_process_whose_supervisor_was_killed_while_it_started_ends_at_once(tmp_path: Path) -> None:
    """Adopted before it could ask who its parent is: the pid file says who that was."""
    (tmp_path / "run").mkdir()
    pid_file = tmp_path / "run" / "supervisord.pid"
    body = "def body(home, stop):\n    say(f'asked {stop.wait(0.3)}')\n"
    own, foreign = (f"unix://{directory}/run/supervisor.sock" for directory in (tmp_path, "/elsewhere"))
    answers = []
    for word, server in (
        (f"{os.getppid()}\n", own),
        (f"{os.getppid()}\n", foreign),
        ("no number", own),
        (f"{os.getpid()}\n", own),
    ):
        pid_file.write_text(word)
        with started(tmp_path, body, SUPERVISOR_ENABLED="1", SUPERVISOR_SERVER_URL=server) as process:
            answers.append(ended(process)[1])

    assert ["asked True\n", "asked False\n", "asked False\n", "asked False\n"] == answers


def test_the_home_is_the_environments_else_the_current_directory(tmp_path: Path) -> None:
    """COLLECTOR_HOME goes before the working directory."""
    (tmp_path / "other").mkdir()
    body = "def body(home, stop):\n    say(home.root)\n"

    with started(tmp_path, body) as here, started(tmp_path, body, COLLECTOR_HOME="other") as there:
        assert ended(here)[1] == f"{tmp_path}\n"
        assert ended(there)[1] == f"{tmp_path / 'other'}\n"
