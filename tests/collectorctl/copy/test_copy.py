"""Copies of certified days: complete or without a manifest, resumed, checked and verified where nothing else is."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path
from uuid import uuid4

import fsspec
import msgspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from support.certified_day import certify_day, make_certified_days, run
from support.copied_day import TICKS, copy, run_killed_copy
from support.stored_day import DAY
from support.us_day import NEXT, certify_us_days, make_us_day

from conf.home import Home

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored day, every instrument PROVEN."""
    return make_certified_days(tmp_path_factory.mktemp("home"), [DAY])


@pytest.fixture
def home(certified: Path, tmp_path: Path) -> Path:
    """The same home, to be changed."""
    return Path(shutil.copytree(certified, tmp_path / "home"))


def test_a_stranger_verifies_a_copied_day_with_nothing_but_the_copy(certified: Path, tmp_path: Path) -> None:
    """By sha256sum, by the certificates, and by --check, which finds one changed byte."""
    status, one = copy(certified, tmp_path / "copy")
    by_hash = subprocess.run(
        ["sha256sum", "--strict", "-c", f"manifest/kr/{DAY}.sha256"],
        cwd=tmp_path / "copy", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    verified = run(tmp_path / "copy", "verify", "--date", DAY)
    checked = copy(certified, tmp_path / "copy", "--check")

    assert (status, one["outcome"], one["result"]["is_whole"]) == (0, "copied", True)
    assert (by_hash.returncode, by_hash.stdout.count(": OK")) == (0, len(one["result"]["files"]))
    assert (verified.exit_code, verified.stdout.count("PROVEN")) == (0, 3), verified.output
    assert (checked[0], checked[1]["outcome"]) == (0, "as copied")

    damaged = tmp_path / "copy" / TICKS
    content = bytearray(damaged.read_bytes())
    content[100] ^= 1
    damaged.write_bytes(content)
    status, found = copy(certified, tmp_path / "copy", "--check")
    assert (status, found["outcome"], f"{TICKS}: missing or changed" in found["note"]) == (1, "damaged", True)


def test_a_copy_elsewhere_is_the_same_and_is_resumed_where_it_ended(certified: Path) -> None:
    url = f"memory://{uuid4()}/archive"
    store = fsspec.filesystem("memory")
    first = copy(certified, url)
    again = copy(certified, url)
    files = {path: store.cat_file(path) for path in store.find(url)}
    store.rm_file(f"{url}/manifest/kr/{DAY}.json")
    store.rm_file(f"{url}/{TICKS}")
    resumed = copy(certified, url)

    assert [one["outcome"] for _, one in (first, again, resumed)] == ["copied", "unchanged", "copied"]
    assert resumed[1]["note"].endswith(f"{len(resumed[1]['result']['files'])} files, 1 sent")
    assert {path: store.cat_file(path) for path in store.find(url)} == files
    assert copy(certified, url, "--check")[0] == 0


def test_a_copy_that_was_killed_has_no_manifest_and_is_completed_by_the_next(certified: Path, tmp_path: Path) -> None:
    ended = run_killed_copy(certified, tmp_path)
    left = sorted(path.name for path in (tmp_path / "manifest/kr").iterdir())
    incomplete = copy(certified, tmp_path, "--check")
    completed = copy(certified, tmp_path)

    assert (ended, left) == (-signal.SIGKILL, [f"{DAY}.incomplete.json"])
    assert (incomplete[0], "incomplete" in incomplete[1]["note"]) == (1, True)
    sent = len(completed[1]["result"]["files"]) - 2
    assert (completed[0], completed[1]["note"].endswith(f"{sent} sent")) == (0, True)
    assert not list(tmp_path.rglob("*.copying"))


def test_a_day_that_changed_replaces_its_copy_and_what_is_not_of_a_copy_is_left_alone(
    home: Path, tmp_path: Path
) -> None:
    to = tmp_path / "copy"
    assert copy(home, to)[0] == 0
    (home / f"data/kr/orderbook/date={DAY}/hour=11/part-0.parquet").unlink()
    certify_day(home, lacking=("000660",))

    status, one = copy(home, to)
    assert (status, one["outcome"], one["result"]["is_whole"]) == (1, "not whole", False)
    assert {str(path.relative_to(to)) for path in (to / "data").rglob("*") if path.is_file()} == {
        entry["path"] for entry in one["result"]["files"]
    }

    foreign = to / f"data/kr/tick/date={DAY}/hour=09/part-9.parquet"
    foreign.write_bytes(b"mine")
    certify_day(home)
    status, one = copy(home, to)
    assert (status, one["outcome"], "part-9.parquet is there and of no copy" in one["note"]) == (1, "not copied", True)
    assert foreign.read_bytes() == b"mine"
    assert (to / f"manifest/kr/{DAY}.json").exists()


def test_a_day_without_a_certificate_that_holds_is_not_copied(home: Path, tmp_path: Path) -> None:
    shutil.rmtree(home / "data/recover")

    status, one = copy(home, tmp_path / "copy")
    itself = run(home, "copy", "--date", DAY, "--to", str(home))

    assert (itself.exit_code, "is this home" in itself.stderr) == (2, True)
    assert (status, one["outcome"], "contradict" in one["note"]) == (1, "not copied", True)
    assert not (tmp_path / "copy").exists()


def test_a_copy_has_days_of_both_markets_and_a_stranger_verifies_the_us_ones(home: Path, tmp_path: Path) -> None:
    """Of a US date come the sessions of its rows, and what a compaction made of it replaces its files."""
    us_home, to = make_us_day(tmp_path / "us_home").root, tmp_path / "copy"
    certify_us_days(Home(us_home))
    for folder in ("us", "recover"):
        shutil.copytree(us_home / "data" / folder, home / "data" / folder, dirs_exist_ok=True)
    assert copy(home, to)[0] == 0
    whole = {}
    for day in ("2026-11-19", DAY, NEXT):
        status, one = copy(home, to, "--market", "us", "--date", day)
        assert (status, one["outcome"]) == (1, "not whole"), one
        whole[day] = one["result"]
    sessions = [(one["instrument"], one["certificate"], one.get("session", "")) for one in whole[DAY]["instruments"]]
    assert sessions == [
        *((name, "MINUTE_ONLY", "") for name in ("NYS.BRK/B", "NAS.NVDA", "BAQ.NVDA")),
        ("BAQ.NVDA", "MINUTE_ONLY", NEXT),
    ]
    for day in (DAY, NEXT):
        verify = "verify", "--market", "us", "--date", day, "--json"
        assert run(to, *verify).stdout == run(home, *verify).stdout
    assert copy(home, to)[1]["outcome"] == "unchanged"

    assert run(home, "compact", "--market", "us", "--date", DAY).exit_code == 0
    assert copy(home, to, "--market", "us", "--date", DAY)[1]["outcome"] == "not whole"
    assert [path.parent.name for path in (to / f"data/us/tick/date={DAY}").rglob("part-*")] == ["hour=all"]
    checked = msgspec.json.decode(run(home, "copy", "--check", "--to", str(to), "--json").stdout)
    assert [(one["day"], one["outcome"]) for one in checked] == [
        (day, "as copied") for day in (DAY, "2026-11-19", DAY, NEXT)
    ]
    (to / f"data/us/tick/date={DAY}/hour=all/part-0.parquet").write_bytes(b"x")
    damaged = run(home, "copy", "--check", "--to", str(to))
    assert (damaged.exit_code, f"manifest/us/{DAY}.json" in "".join(damaged.output.split())) == (1, True)


class CuttingStore(MemoryFileSystem):
    """A store that keeps fifty bytes of each file."""

    protocol = "cutting"

    def put_file(self, lpath: str, rpath: str, **_: object) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes()[:50])


def test_a_place_that_damages_what_it_is_sent_gets_no_manifest(certified: Path) -> None:
    """The read back finds it."""
    fsspec.register_implementation("cutting", CuttingStore, clobber=True)
    place = str(uuid4())

    status, one = copy(certified, f"cutting://{place}")

    assert (status, "is not what was sent" in one["note"]) == (1, True)
    names = [path.rpartition("/")[2] for path in CuttingStore.store if place in path]
    assert (f"{DAY}.incomplete.json" in names, f"{DAY}.json" in names) == (True, False)
