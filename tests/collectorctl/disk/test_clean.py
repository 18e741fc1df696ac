"""`collectorctl clean` on a real home: by hand, killed, led astray, and unattended."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from support import kill_at_unlink
from support.process_tree import temporary_home, wait_until

from collectorctl.cli import main
from collectorctl.disk import clean as clean_module
from collectorctl.disk.retention import Kind
from collectorctl.recover.download.page_store import PageSequence
from conf.home import Home
from ringbuf.vitals import read_snapshot

SETTINGS = """
[universe]
kr = ["005930"]
[clock]
start = "2026-11-25T12:00:00+09:00"
[retention]
quarantine_days = 7
capture_days = 7
staging_days = 7
uncertified_days = 40
log_days = 7
"""
OLD = time.time() - 30 * 86_400
GOING = (
    "data/quarantine/date=2026-11-17/kis.jsonl",
    "data/quarantine/date=2026-11-17/kis.placed.jsonl",
    "data/capture/kis/2026-11-01T09-00-00.000000000.jsonl.gz",
    "data/recover/date=2026-10-05/005930/chart/000001.json.gz",
    "data/recover/date=2026-10-05/005930/chart/000002.json.gz",
    "data/recover/date=2026-10-05/005930/chart/end.json",
    "data/recover/date=2026-10-05/005930/filled-1791158400.npy",
    "log/kis.2026-10-01_09-00-00_000000.log",
)
STAYING = (
    "data/quarantine/date=2026-11-18/kis.jsonl",
    "data/capture/kis/2026-11-02T09-00-00.000000000.jsonl.gz",
    "data/recover/date=2026-10-05/005930/evidence.json",
    "data/recover/date=2026-11-20/005930/chart/000001.json.gz",
    "data/kr/tick/date=2026-10-05/hour=09/part-0.parquet",
    "data/journal/kr.tick/000000000001.journal",
    "log/kis.log",
)


@pytest.fixture
def root() -> Iterator[Path]:
    """A home with old files of every kind."""
    with temporary_home(SETTINGS) as root:
        for name in (*GOING, *STAYING):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(bytes(10))
            os.utime(root / name, (OLD, OLD))
        yield root


def run(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(root), "clean", *arguments])


def left(root: Path) -> set[str]:
    return {name for name in (*GOING, *STAYING) if (root / name).exists()}


def test_a_dry_run_lists_what_goes_and_then_exactly_that_goes(root: Path) -> None:
    """With bytes; folders of dates that are empty then go as well; a second time there is nothing to do."""
    listed = msgspec.json.decode(run(root, "--dry-run", "--json").stdout)["removed"]
    assert left(root) == {*GOING, *STAYING}
    text = run(root, "--dry-run")
    done = run(root)

    assert {one["path"] for one in listed} == {str((root / name).resolve()) for name in GOING}
    assert sum(one["bytes"] for one in listed) == 10 * len(GOING)
    assert f"would be removed: {len(GOING)} files, {10 * len(GOING)} bytes" in text.stdout
    assert (done.exit_code, left(root)) == (0, set(STAYING))
    assert not (root / "data/quarantine/date=2026-11-17").exists()
    assert not (root / "data/recover/date=2026-10-05/005930/chart").exists()
    assert "removed: 0 files, 0 bytes" in run(root).stdout


def test_every_kind_is_kept_for_ever_by_default(root: Path) -> None:
    """And says so."""
    (root / "collector.toml").write_text(SETTINGS.partition("[retention]")[0])

    done = run(root)

    assert (done.exit_code, left(root)) == (0, {*GOING, *STAYING})
    assert done.stdout.count("kept for ever") == len(Kind)


def test_a_home_in_which_nothing_ran_has_nothing_to_remove() -> None:
    """None of the folders is there."""
    with temporary_home(SETTINGS) as root:
        shutil.rmtree(root / "data")
        shutil.rmtree(root / "log")

        assert (run(root, "--dry-run").exit_code, run(root).exit_code) == (0, 0)


def test_no_link_leads_out_of_the_home(root: Path, tmp_path: Path) -> None:
    """Neither a linked folder nor a linked file, nor a folder that becomes a link after the plan was made."""
    outside = tmp_path / "date=2026-11-01"
    outside.mkdir()
    (outside / "kis.jsonl").write_bytes(b"theirs")
    os.utime(outside / "kis.jsonl", (OLD, OLD))
    (root / "data/quarantine/date=2026-11-01").symlink_to(outside)
    (root / "data/quarantine/date=2026-11-17/link.jsonl").symlink_to(outside / "kis.jsonl")
    home = Home(root)
    planned = clean_module.plan(home).removals
    swapped = root / "data/quarantine/date=2026-11-17"
    swapped.rename(tmp_path / "date=2026-11-17")
    swapped.symlink_to(tmp_path / "date=2026-11-17")

    for one in planned:
        if one.kind == "quarantine":
            with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
                clean_module._remove(home, one)
    assert "date=2026-11-01" not in str(planned)
    assert run(root).exit_code == 0
    assert (outside / "kis.jsonl").read_bytes() == b"theirs"
    assert len(list((tmp_path / "date=2026-11-17").iterdir())) == 3


def test_a_file_that_changed_since_the_plan_stays(root: Path) -> None:
    """Somebody uses it."""
    home = Home(root)
    (one,) = (one for one in clean_module.plan(home).removals if one.path.endswith("17/kis.jsonl"))
    with (root / one.path).open("ab") as file:
        file.write(b"more")

    assert not clean_module._remove(home, one)
    assert (root / one.path).exists()


@pytest.mark.parametrize(
    ("lock", "kept"),
    [("recovering", "data/recover"), ("requarantine", "data/quarantine")],
    ids=["recover", "reprocess"],
)
def test_what_recover_or_reprocess_uses_now_stays(root: Path, lock: str, kept: str) -> None:
    """The rest goes; it says what not, and by whom it is used."""
    with (root / f"run/{lock}.lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        done = run(root)

    assert left(root) == {*STAYING, *(name for name in GOING if name.startswith(kept))}
    assert done.exit_code == 1 and f"{lock}.lock" in done.output


def test_killed_at_any_file_it_leaves_whole_files_and_the_next_one_ends_it(root: Path) -> None:
    """What is left of fetched pages is a beginning that recovery accepts."""
    fork = multiprocessing.get_context("forkserver")
    fork.set_forkserver_preload(["collectorctl.disk.clean"])
    for kill_at in range(1, len(GOING) + 1):
        for name in GOING:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(bytes(10))
            os.utime(root / name, (OLD, OLD))
        child = fork.Process(target=kill_at_unlink.clean_and_kill, args=(root, kill_at))
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
        assert left(root) >= set(STAYING)
        assert len(left(root)) == len(STAYING) + len(GOING) - kill_at + 1
        chart = root / "data/recover/date=2026-10-05/005930/chart"
        if chart.exists() and len(list(chart.iterdir())) < 3:
            assert not (chart / "end.json").exists() and PageSequence(chart).end_record is None
        clean_module.clean(Home(root))
        assert left(root) == set(STAYING)


def test_scheduled_recovery_cleans_before_its_run(root: Path) -> None:
    """The process as the watchdog starts it: files go before anything is fetched, and the log has how much went."""
    with (root / "collector.toml").open("a") as settings:
        settings.write('[kiwoom]\nrest_url = "http://127.0.0.1:9"\n')
    process = subprocess.Popen(
        [sys.executable, "-m", "collectorctl.recover"], env=os.environ | {"COLLECTOR_HOME": str(root)}
    )
    try:
        wait_until("it has cleaned", lambda: left(root) == set(STAYING))
        wait_until("the log has it", lambda: f"{len(GOING)} files" in (root / "log/recover.log").read_text())
        assert read_snapshot(Home(root).vitals_path("recover")).name == "recover"
    finally:
        process.kill()
        process.wait()
