"""Homes: one place for every path, made once, private, also by many processes at once."""

from __future__ import annotations

import grp
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from conf import home as home_module
from conf.home import MAX_BOOK_BYTES, MAX_TICK_BYTES, Home
from conf.loader import SETTINGS_FILE
from conf.settings import SettingsError
from ringbuf.records import ORDERBOOK, TICK


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def has_room(monkeypatch: pytest.MonkeyPatch, free: int | None) -> None:
    """Say how much room /dev/shm has: the machine's own cannot be filled by a test."""
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(home_module.shutil, "disk_usage", lambda _: usage._replace(free=free))


def test_every_path_lies_in_the_home(root: Path) -> None:
    """The picture at the top of home.py."""
    home = Home(root)

    assert home.ring_path("kis", "orderbook") == root / "run/ring/kis.orderbook.ring"
    assert home.vitals_path("kis") == root / "run/ring/kis.vitals"
    assert home.lock_path("writer") == root / "run/writer.lock"
    assert home.token_path("kiwoom") == root / "run/token/kiwoom.json"
    assert home.socket_path() == root / "run/supervisor.sock"
    assert home.journal_directory("kr.orderbook") == root / "data/journal/kr.orderbook"
    assert home.quarantine_directory() == root / "data/quarantine"
    assert home.capture_directory("kis") == root / "data/capture/kis"
    assert home.capture_switch_path("kis") == root / "run/capture/kis"


def test_paths_may_be_set_relative_or_absolute(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Relative to the home, or anywhere."""
    elsewhere = tmp_path_factory.mktemp("disk")
    (root / SETTINGS_FILE).write_text(f'[paths]\ndata = "{elsewhere}/data"\nlog = "var/log"\n')

    home = Home(root)
    home.create_directories()

    assert home.data == elsewhere / "data"
    assert home.log == root / "var" / "log"
    assert home.data.is_dir()
    assert home.log.is_dir()


def test_making_a_home_twice_changes_nothing(root: Path) -> None:
    """`make` is idempotent: the rings stay where they are, with what is in them."""
    Home(root).create_directories()
    Home(root).ring_path("kis", "tick").write_bytes(b"records")
    place = (root / "run" / "ring").resolve()

    Home(root).create_directories()

    assert (root / "run" / "ring").resolve() == place
    assert Home(root).ring_path("kis", "tick").read_bytes() == b"records"
    assert {path.name for path in root.iterdir()} == {"data", "run", "log"}
    assert [path.name for path in (root / "run").iterdir()] == ["ring"]


def test_run_is_for_the_owner_only(root: Path) -> None:
    """0700 whatever the umask and whatever it was before; the rings' place too."""
    (root / "run").mkdir(mode=0o755)
    before = os.umask(0)
    try:
        Home(root).create_directories()
    finally:
        os.umask(before)

    assert mode(root / "run") == 0o700
    assert mode(root / "run" / "ring") == 0o700
    assert mode(root / "log") == 0o700


def test_rings_lie_in_shared_memory_when_there_is_room(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of this home and user alone; another home has another one."""
    settings = Home(root).settings.ring
    need = 3 * (settings.orderbook_capacity * MAX_BOOK_BYTES + settings.tick_capacity * MAX_TICK_BYTES)
    has_room(monkeypatch, need)

    Home(root).create_directories()

    place = (root / "run" / "ring").readlink()
    assert place.parent == Path("/dev/shm")
    assert place.name.startswith(f"collectorctl-{os.getuid()}-")
    assert Home(root / "data")._create_shared_memory_directory() != place
    (Path("/dev/shm") / Home(root / "data")._create_shared_memory_directory().name).rmdir()


@pytest.mark.parametrize("reason", ["full", "absent"])
def test_rings_lie_under_run_when_shared_memory_has_no_room(
    root: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """Docker gives /dev/shm 64 MB: rings that do not fit there are put on the disk."""
    if reason == "full":
        has_room(monkeypatch, 64 << 20)
    else:
        monkeypatch.setattr(home_module, "SHM", root / "no such place")

    Home(root).create_directories()

    assert (root / "run" / "ring").is_dir()
    assert not (root / "run" / "ring").is_symlink()


def test_a_place_in_shared_memory_that_somebody_else_took_is_not_used(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Anybody may write in /dev/shm: a directory open to others, or a link, under our name is left alone."""
    shared = tmp_path_factory.mktemp("shm")
    monkeypatch.setattr(home_module, "SHM", shared)
    has_room(monkeypatch, 1 << 40)
    place = Home(root)._create_shared_memory_directory()
    place.chmod(0o777)
    assert Home(root)._create_shared_memory_directory() is None
    place.rmdir()
    place.symlink_to(root)
    assert Home(root)._create_shared_memory_directory() is None

    Home(root).create_directories()

    assert not (root / "run" / "ring").is_symlink()


def test_rings_lie_where_the_setting_says(root: Path) -> None:
    """[paths] ring goes before everything else."""
    (root / SETTINGS_FILE).write_text('[paths]\nring = "fast/rings"\n')

    Home(root).create_directories()

    assert (root / "run" / "ring").readlink() == root / "fast" / "rings"
    assert mode(root / "fast" / "rings") == 0o700


def test_a_link_that_a_reboot_left_dangling_is_mended(root: Path) -> None:
    """Shared memory is empty after a reboot; run/ring still points there."""
    Home(root).create_directories()
    (root / "run" / "ring").unlink()
    (root / "run" / "ring").symlink_to(root / "went with the reboot")
    shutil.rmtree(Home(root)._create_shared_memory_directory() or root / "none", ignore_errors=True)

    Home(root).create_directories()
    Home(root).ring_path("kis", "tick").write_bytes(b"records")

    assert Home(root).ring_path("kis", "tick").exists()
    assert not (root / "went with the reboot").exists()


MAKE = """
import sys
from pathlib import Path
from conf.home import Home
home = Home(Path(sys.argv[1]))
sys.stdin.readline()
for turn in range(200):
    home.create_directories()
    (home.ring_path("kis", f"{sys.argv[2]}.{turn}")).touch()
"""


def test_processes_may_make_a_home_at_once(root: Path) -> None:
    """What one process made, no other takes away: each can write its ring at once."""
    processes = [
        subprocess.Popen([sys.executable, "-c", MAKE, root, str(number)], stdin=subprocess.PIPE, text=True)
        for number in range(3)
    ]

    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.stdin.close()

    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len(list((root / "run" / "ring").glob("*.ring"))) == 600


def test_many_at_once_mend_a_dangling_link_together(root: Path) -> None:
    """The race itself, many times: eight find the link that a reboot left, none removes what another has just mended."""
    home, failures = Home(root), []
    home.create_directories()
    link = root / "run" / "ring"
    place = link.resolve()

    def make(begin: threading.Barrier, number: int) -> None:
        begin.wait()
        try:
            home.create_directories()
            home.ring_path("kis", str(number)).touch()
        except OSError as error:
            failures.append(error)

    for _ in range(60):
        link.unlink()
        link.symlink_to(root / "went with the reboot")
        begin = threading.Barrier(8)
        threads = [threading.Thread(target=make, args=(begin, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert failures == []
    assert link.resolve() == place


def test_a_directory_that_cannot_be_made_is_a_settings_error(root: Path) -> None:
    """A file in the way: the message names the setting."""
    (root / "run").write_text("in the way")

    with pytest.raises(SettingsError, match=r"collector\.toml: paths\.run: .*File exists.*: name a directory"):
        Home(root).create_directories()


def test_the_room_asked_for_is_enough_for_the_records() -> None:
    """home.py may not import ringbuf: its guess of a record's size must not fall behind."""
    assert ORDERBOOK.itemsize <= MAX_BOOK_BYTES
    assert TICK.itemsize <= MAX_TICK_BYTES


def test_the_clock_is_the_one_the_settings_describe(root: Path) -> None:
    """Real without a start; with one, the warped line whose anchor lies in run/."""
    assert not Home(root).load_clock().is_simulated
    (root / SETTINGS_FILE).write_text('[clock]\nstart = "2026-11-20T08:55:00+09:00"\nspeed = 150.0\n')

    first, second = Home(root).load_clock(), Home(root).load_clock()

    assert first.is_simulated
    assert first.anchor == second.anchor
    assert (root / "run" / "clock.json").exists()


@pytest.fixture
def group() -> grp.struct_group:
    """A group in which this user is, another one than that of its files where there is one."""
    return grp.getgrgid(1 if os.geteuid() == 0 else ([*os.getgroups(), os.getegid()])[0])


@pytest.mark.parametrize("rings", ["rings", ""])
def test_a_group_may_read_the_rings_and_nothing_else_while_the_setting_names_it(
    root: Path, group: grp.struct_group, rings: str
) -> None:
    """Directories and what is in them, once named and once no more."""
    settings = root / SETTINGS_FILE
    settings.write_text(f'[paths]\nring = "{rings}"\n')
    Home(root).create_directories()
    ring = (root / "run/ring").resolve()
    (ring / "kis.tick.ring").touch(0o600)
    try:
        settings.write_text(f'[paths]\nring = "{rings}"\n[ring]\nreader_group = "{group.gr_name}"\n')
        Home(root).create_directories()

        assert [mode(root / "run"), mode(ring), mode(ring / "kis.tick.ring")] == [0o2710, 0o2750, 0o640]
        assert {path.stat().st_gid for path in (root / "run", ring, ring / "kis.tick.ring")} == {group.gr_gid}
        assert Home(root).find_directory_faults() == []

        settings.write_text(f'[paths]\nring = "{rings}"\n')
        Home(root).create_directories()

        assert [mode(root / "run"), mode(ring), mode(ring / "kis.tick.ring")] == [0o700, 0o700, 0o600]
    finally:
        shutil.rmtree(ring)


def test_a_group_that_does_not_exist_is_refused_by_name(root: Path) -> None:
    """By `check` without a change, and by whoever would make the directories."""
    (root / SETTINGS_FILE).write_text('[ring]\nreader_group = "no-such-group"\n')

    (fault,) = Home(root).find_directory_faults()
    with pytest.raises(SettingsError, match=r"ring\.reader_group: group 'no-such-group': there is none"):
        Home(root).create_directories()

    assert (fault.key, fault.code) == ("ring.reader_group", "reader_group")
