"""The lock of a broker's key between homes of one host: real files, real processes."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from loguru import logger
from support.process_tree import SECRETS
from support.small_disk import fill_disk, small_disk

from brokers.errors import KeyInUse
from brokers.transport.key_lock import KeyLock, find_keys_in_use
from conf import home as home_module
from conf.home import Home
from conf.loader import SECRETS_FILE, SETTINGS_FILE

ROOT = Path(__file__).parents[3]
HOLD = """
import sys
from pathlib import Path
from brokers.transport.key_lock import KeyLock
from conf.home import Home
lock = KeyLock(Home(Path(sys.argv[1])), "kis", 1)
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's runtime directory."""
    directory = tmp_path / "runtime"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    return directory


def make_home(root: Path, settings: str = "") -> Home:
    root.mkdir()
    (root / SETTINGS_FILE).write_text(settings)
    (root / SECRETS_FILE).touch(mode=0o600)
    (root / SECRETS_FILE).write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))
    return Home(root)


@pytest.fixture
def homes(tmp_path: Path, runtime: Path) -> tuple[Home, Home]:
    """Two homes with the same keys."""
    return make_home(tmp_path / "first"), make_home(tmp_path / "second")


def hold(home: Home) -> subprocess.Popen[str]:
    """A process of that home that has its key."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, home.root],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_the_second_home_is_refused_in_words_that_name_the_first(homes: tuple[Home, Home]) -> None:
    """Home, process and remedy; the key itself is nowhere."""
    first, second = homes
    process = hold(first)
    try:
        with pytest.raises(KeyInUse) as refused:
            KeyLock(second, "kis", 1).acquire()
        (sentence,) = find_keys_in_use(second)
    finally:
        end(process)

    assert str(refused.value) == sentence
    assert f"kis: key 1 is in use by the home {first.root} (process {process.pid})" in sentence
    assert f"`collectorctl --home {first.root} stop`" in sentence
    assert SECRETS["KIS_APP_KEY"] not in sentence


def test_a_killed_holder_holds_nothing(homes: tuple[Home, Home]) -> None:
    """The kernel releases it; the file that stays is in nobody's way."""
    first, second = homes
    process = hold(first)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    assert find_keys_in_use(second) == []
    KeyLock(second, "kis", 1).acquire()
    assert find_keys_in_use(first)[0].startswith(f"kis: key 1 is in use by the home {second.root}")


def test_a_home_is_not_in_its_own_way(homes: tuple[Home, Home]) -> None:
    """`start` in a home that runs refuses nothing."""
    process = hold(homes[0])
    try:
        assert find_keys_in_use(homes[0]) == []
    finally:
        end(process)


@pytest.mark.parametrize("difference", ["key", "server", "broker"])
def test_what_does_not_meet_at_a_broker_is_not_refused(homes: tuple[Home, Home], difference: str) -> None:
    """Another key, or the same one at another server: a simulator disturbs nobody. A KIS key is one for both its markets."""
    first, second = homes
    if difference == "key":
        (second.root / SECRETS_FILE).write_text("KIS_APP_KEY=another\nKIS_APP_SECRET=s\n")
    if difference == "server":
        (second.root / SETTINGS_FILE).write_text('[kis]\nws_url = "ws://127.0.0.1:9"\n')
    broker = "us" if difference == "broker" else "kis"
    if broker == "us":
        (second.root / SECRETS_FILE).write_text("US_APP_KEY=key-of-kis\nUS_APP_SECRET=s\n")
    process = hold(first)
    try:
        lock = KeyLock(Home(second.root), broker, 1)
        if broker == "us":
            with pytest.raises(KeyInUse, match=str(first.root)):
                lock.acquire()
        else:
            lock.acquire()
    finally:
        end(process)


def test_the_name_of_a_lock_is_a_fingerprint_and_all_is_private(homes: tuple[Home, Home], runtime: Path) -> None:
    """Neither the names nor the contents have a key; a lock that is let go leaves no file."""
    lock = KeyLock(homes[0], "kis", 1)
    lock.acquire()
    (file,) = (runtime / "collectorctl").iterdir()

    assert SECRETS["KIS_APP_KEY"] not in file.name + file.read_text()
    assert file.read_text() == f"{os.getpid()} {homes[0].root}\n"
    assert (stat.S_IMODE(file.parent.stat().st_mode), stat.S_IMODE(file.stat().st_mode)) == (0o700, 0o600)
    lock.acquire()  # once is enough
    lock.release()
    assert list((runtime / "collectorctl").iterdir()) == []


def test_a_lock_whose_file_was_removed_is_taken_again_before_the_next_connection(
    homes: tuple[Home, Home], runtime: Path
) -> None:
    """The runtime directory goes with a user's last logout: two homes that met meanwhile are told apart at a reconnect."""
    first, second = (KeyLock(home, "kis", 1) for home in homes)
    first.acquire()
    shutil.rmtree(runtime / "collectorctl")
    first.acquire()
    with pytest.raises(KeyInUse):
        second.acquire()
    shutil.rmtree(runtime / "collectorctl")
    second.acquire()
    with pytest.raises(KeyInUse, match=str(homes[1].root)):
        first.acquire()


def test_without_a_place_for_locks_collecting_goes_on_with_a_warning(homes: tuple[Home, Home], runtime: Path) -> None:
    """A directory that others may write in is not used."""
    (runtime / "collectorctl").mkdir()
    (runtime / "collectorctl").chmod(0o777)
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="WARNING")

    KeyLock(homes[0], "kis", 1).acquire()

    logger.remove(sink)
    assert len(said) == 1 and "kis: key 1: cannot be locked" in said[0] and "paths.key_locks" in said[0]


def test_on_a_full_disk_the_lock_holds_without_a_name(tmp_path: Path) -> None:
    """A file without content still excludes."""
    with small_disk(tmp_path / "disk", 1) as disk:
        homes = [make_home(tmp_path / name, f'[paths]\nkey_locks = "{disk}/locks"\n') for name in ("first", "second")]
        (disk / "locks").mkdir()
        fill_disk(disk)
        lock = KeyLock(homes[0], "kis", 1)
        lock.acquire()

        with pytest.raises(KeyInUse, match="another home of this host"):
            KeyLock(homes[1], "kis", 1).acquire()
        lock.release()


def test_the_place_is_the_setting_the_runtime_directory_or_one_in_tmp(
    tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order; a runtime directory of another user is not taken."""
    home, user = make_home(tmp_path / "home"), str(os.getuid())
    assert home.key_lock_directory == runtime / "collectorctl"
    assert (
        make_home(tmp_path / "set", '[paths]\nkey_locks = "locks"\n').key_lock_directory == tmp_path / "set" / "locks"
    )
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(home_module, "USER_RUNTIME", tmp_path / "run-user")
    assert home.key_lock_directory == Path(f"/tmp/collectorctl-{user}")
    (tmp_path / "run-user" / user).mkdir(parents=True)
    assert home.key_lock_directory == tmp_path / "run-user" / user / "collectorctl"
    if os.getuid() == 0:
        os.chown(tmp_path / "run-user" / user, 12345, 12345)
        assert home.key_lock_directory == Path(f"/tmp/collectorctl-{user}")
