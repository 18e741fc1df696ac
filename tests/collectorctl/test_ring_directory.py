"""What `check` says about the directory of the rings."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from collectorctl.ring_directory import MAX_LISTED, find_orphans, find_removal_risk
from conf.home import RING_OWNER
from ringbuf.records import TICK
from ringbuf.ring import Producer

SHARED = Path("/dev/shm/collectorctl-1000-abc")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system of a host that systemd runs, with logind's defaults."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "var/lib/systemd/linger").mkdir(parents=True)
    (tmp_path / "etc/systemd/logind.conf.d").mkdir(parents=True)
    (tmp_path / "etc/systemd/logind.conf").write_text("[Login]\n#RemoveIPC=no\n")
    return tmp_path


def test_what_logind_deletes_at_a_logout_is_said_with_what_prevents_it(root: Path) -> None:
    """A login user's rings in /dev/shm, by logind's default or by its settings; the last word of its files counts."""
    said = find_removal_risk(SHARED, "me", 1000, root)
    assert said.startswith(f"{SHARED}: logind deletes it when me logs out last (RemoveIPC): ")
    assert "enable-linger me" in said and "RuntimeDirectory" in said

    (root / "etc/systemd/logind.conf").write_text("[Login]\nRemoveIPC=no\n")
    assert find_removal_risk(SHARED, "me", 1000, root) == ""

    (root / "etc/systemd/logind.conf.d/90-x.conf").write_text("[Login]\nRemoveIPC=yes\n")
    assert find_removal_risk(SHARED, "me", 1000, root) == said


def test_where_logind_deletes_nothing_nothing_is_said(root: Path) -> None:
    """Another directory, a system user, a user who lingers, a host without systemd."""
    assert find_removal_risk(Path("/run/collector"), "me", 1000, root) == ""
    assert find_removal_risk(SHARED, "collector", 998, root) == ""
    (root / "var/lib/systemd/linger/me").touch()
    assert find_removal_risk(SHARED, "me", 1000, root) == ""
    assert find_removal_risk(SHARED, "me", 1000, root / "elsewhere") == ""


def test_of_many_orphaned_directories_the_first_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    directories = [tmp_path / f"shm {number}" for number in range(MAX_LISTED + 3)]
    for directory in directories:
        directory.mkdir()
        (directory / "kis.tick.ring").write_bytes(bytes(500_000))

    found = find_orphans(directories)

    assert [line.partition(":")[0] for line in found[:-1]] == [str(one) for one in directories[:MAX_LISTED]]
    assert found[-1].startswith("3 more such directories, 2 MB")


def test_rings_of_homes_that_are_gone_are_listed_with_the_command_that_removes_them(tmp_path: Path) -> None:
    """A deleted home, and one that leads elsewhere now; not a home that exists, nor rings that a process writes."""
    directories = {}
    for name in ("deleted", "moved", "there", "written"):
        directory = tmp_path / f"shm {name}"
        directory.mkdir()
        link = tmp_path / name / "run" / "ring"
        link.parent.mkdir(parents=True)
        link.symlink_to(directory)
        (directory / RING_OWNER).write_text(f"{link}\n")
        Producer.open(directory / "kis.tick.ring", TICK, 64).close()
        directories[name] = directory
    shutil.rmtree(tmp_path / "deleted")
    (tmp_path / "moved" / "run" / "ring").unlink()
    (tmp_path / "moved" / "run" / "ring").mkdir()
    shutil.rmtree(tmp_path / "written")
    producer = Producer.open(directories["written"] / "kis.tick.ring", TICK, 64)

    found = find_orphans(sorted(directories.values()))

    assert [line.partition(":")[0] for line in found] == [str(directories["deleted"]), str(directories["moved"])]
    assert "/deleted/run/ring, which is gone" in found[0]
    subprocess.run(found[0].rpartition(": ")[2], shell=True, check=True)
    assert not directories["deleted"].exists()
    producer.close()
    assert len(find_orphans([directories["written"], tmp_path / "removed by its home just now"])) == 1
