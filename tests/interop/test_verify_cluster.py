"""Verification by a Dask cluster on loopback: a scheduler and workers as an operator starts them, in processes of their own."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from support.certified_day import make_certified_days, run
from support.stored_day import DAY

from collectorctl.recover import verify_cluster
from collectorctl.recover.verify import verify_day
from collectorctl.recover.verify_cluster import SOURCES, verify_on_cluster
from conf.home import Home
from conf.market import KR

distributed = pytest.importorskip("distributed", reason="distributed is missing: pip install -e .[test,cluster]")

ROOT = Path(__file__).parents[2]
DAYS = [str(day) for n in range(26) if (day := dt.date(2026, 10, 26) + dt.timedelta(n)).weekday() < 5]
DATES = [dt.date.fromisoformat(day) for day in DAYS]
START_S = 60


class Cluster:
    """A scheduler and its workers; `start_worker`'s environment and prefix make one that is not as the others."""

    def __init__(self, directory: Path, workers: int) -> None:
        self._directory, self._processes = directory, ExitStack()
        directory.mkdir()
        file = directory / "scheduler.json"
        self.scheduler = self._start([], ["scheduler", "--scheduler-file", str(file)], {})
        self._await(lambda: file.exists() and file.stat().st_size > 0)
        self.address: str = msgspec.json.decode(file.read_bytes())["address"]
        self.workers = [self.start_worker() for _ in range(workers)]
        with distributed.Client(self.address, set_as_default=False) as client:
            self._await(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == workers)

    def start_worker(self, *prefix: str, **environment: str) -> subprocess.Popen[bytes]:
        options = ("--no-nanny", "--nthreads", "1", "--local-directory", str(self._directory))
        return self._start(prefix, ["worker", self.address, *options], environment)

    def _start(self, prefix: object, arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        command = [*prefix, sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--no-dashboard"]
        if arguments[0] == "scheduler":
            command += ["--port", "0"]
        log = self._processes.enter_context((self._directory / f"{arguments[0]}.log").open("ab"))
        started = subprocess.Popen(
            command, cwd=self._directory, stdout=log, stderr=log, env=os.environ | environment, start_new_session=True
        )
        self._processes.callback(started.wait)
        self._processes.callback(started.kill)
        return started

    def _await(self, condition: Callable[[], bool]) -> None:
        give_up = time.monotonic() + START_S
        while not condition():
            assert time.monotonic() < give_up, "".join(log.read_text() for log in self._directory.glob("*.log"))
            time.sleep(0.02)

    def close(self) -> None:
        self._processes.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty certified days of equal trades."""
    return make_certified_days(tmp_path_factory.mktemp("home"), DAYS)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers that are as they should be."""
    cluster = Cluster(tmp_path_factory.mktemp("pair") / "dask", 2)
    yield cluster
    cluster.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[int], Cluster]]:
    """Start a cluster of one's own, of so many workers."""
    with ExitStack() as started:

        def start_one(workers: int) -> Cluster:
            cluster = Cluster(tmp_path / "dask", workers)
            started.callback(cluster.close)
            return cluster

        yield start_one


def before_installed(directory: Path) -> str:
    """A PYTHONPATH on which the packages of a directory come before all others."""
    return os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])


def find_markers(root: Path) -> list[Path]:
    return list((root / "data").glob(".verify-*"))


def test_one_process_two_processes_and_a_cluster_print_the_same_bytes(home: Path, pair: Cluster) -> None:
    assert len(DAYS) == 20
    ways = ["--jobs", "1"], ["--jobs", "2"], ["--cluster", pair.address]
    one, two, cluster = (run(home, "verify", "--last", "20d", "--json", *way) for way in ways)

    assert (one.exit_code, [each["outcome"] for each in msgspec.json.decode(one.stdout)]) == (0, ["whole"] * 20)
    assert one.stdout_bytes == two.stdout_bytes == cluster.stdout_bytes
    assert (cluster.exit_code, cluster.stderr, find_markers(home)) == (0, "", [])
    single, by_cluster = (run(home, "verify", "--date", DAY, "--json", *way) for way in (ways[0], ways[2]))
    assert (by_cluster.exit_code, by_cluster.stdout_bytes) == (0, single.stdout_bytes)


def test_all_ways_name_a_damaged_file_with_its_day(home: Path, pair: Cluster, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(home, tmp_path / "home"))
    damaged = next((copied / f"data/kr/tick/date={DAYS[17]}").rglob("part-0.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-20])

    ways = ["--jobs", "1"], ["--jobs", "2"], ["--cluster", pair.address]
    one, two, cluster = (run(copied, "verify", "--last", "5d", "--json", *way) for way in ways)

    assert one.stdout_bytes == two.stdout_bytes == cluster.stdout_bytes
    assert one.exit_code == two.exit_code == cluster.exit_code == 1
    found = msgspec.json.decode(cluster.stdout)
    assert [each["outcome"] for each in found] == ["whole", "whole", "failed", "whole", "whole"]
    assert found[2]["note"].startswith(f"{DAYS[17]}: {damaged}: cannot be read")


def test_a_worker_that_is_killed_in_mid_run_changes_no_byte_and_one_worker_is_enough(
    home: Path, start: Callable[[int], Cluster]
) -> None:
    """It is stopped with a day in its hands before it is killed, so that this day is never done by it."""
    cluster, expected, killed_at = start(2), [verify_day(Home(home), day, KR) for day in DATES], list[int]()
    victim = cluster.workers[0]

    def on_done(done: int) -> None:
        if not done:
            victim.send_signal(signal.SIGSTOP)
        elif done >= 10 and not killed_at:
            victim.kill()
            killed_at.append(done)

    found = verify_on_cluster(Home(home), DATES, KR, cluster.address, on_done)
    by_the_other = verify_on_cluster(Home(home), DATES, KR, cluster.address)

    assert len(killed_at) == 1 and killed_at[0] < len(DATES)
    assert msgspec.json.encode(found) == msgspec.json.encode(expected)
    assert msgspec.json.encode(by_the_other) == msgspec.json.encode(expected)


def test_when_every_worker_or_the_scheduler_is_lost_each_day_without_a_result_says_so(
    home: Path, start: Callable[[int], Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_cluster, "ANSWER_TIMEOUT_S", 2.0)
    cluster = start(1)
    (worker,) = cluster.workers
    lost = verify_on_cluster(Home(home), DATES, KR, cluster.address, lambda _: worker.kill())
    cluster.start_worker()
    alone = verify_on_cluster(Home(home), DATES, KR, cluster.address, lambda _: cluster.scheduler.kill())

    for found in (lost, alone):
        assert [one.day for one in found] == DATES
        assert found[-1].failure.startswith(f"{DAY}: no worker of the cluster returned it")
    assert find_markers(home) == []


def test_a_worker_of_other_code_is_refused_by_name_and_verifies_nothing(
    home: Path, start: Callable[[int], Cluster], tmp_path: Path
) -> None:
    for package in SOURCES:
        shutil.copytree(ROOT / package, tmp_path / "other" / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "other/conf/market.py").open("a") as module:
        module.write("# changed\n")
    cluster = start(0)
    cluster.start_worker(PYTHONPATH=before_installed(tmp_path / "other"))

    refused = run(home, "verify", "--last", "2d", "--cluster", cluster.address)

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "worker tcp://127.0.0.1:" in refused.stderr and "has code " in refused.stderr, refused.stderr
    assert find_markers(home) == []


def test_a_worker_that_does_not_see_the_files_is_refused_and_one_that_joins_later_verifies_no_day(
    home: Path, start: Callable[[int], Cluster]
) -> None:
    """The first is in a mount namespace in which something else lies over the home; for the second the marker is taken away."""
    hidden = 'mount -t tmpfs none "$0" && exec "$@"'
    namespace = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", hidden, str(home))
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        namespace = ("unshare", "--mount", *namespace[4:])
    may_hide = subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode == 0
    cluster = start(1)

    def take_marker(_: int) -> None:
        for path in find_markers(home):
            path.unlink()

    found = verify_on_cluster(Home(home), DATES[-2:], KR, cluster.address, take_marker)
    assert ["does not see the files of" in one.failure for one in found] == [True, True], found
    if may_hide:
        cluster.start_worker(*namespace)
        cluster.workers[0].kill()
        refused = run(home, "verify", "--last", "2d", "--cluster", cluster.address)
        assert (refused.exit_code, "does not see the files of" in refused.stderr) == (2, True), refused.output


def test_a_scheduler_that_does_not_answer_or_has_no_worker_is_said_within_the_time(
    home: Path, start: Callable[[int], Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_cluster, "CONNECT_TIMEOUT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        mute = run(home, "verify", "--last", "2d", "--cluster", address)
    refused = run(home, "verify", "--last", "2d", "--cluster", address)
    empty = run(home, "verify", "--last", "2d", "--cluster", start(0).address)
    wrong = run(home, "verify", "--last", "2d", "--cluster", "no-such-scheme://x")

    for result in (mute, refused):
        assert (result.exit_code, f"{address}: no scheduler answered within 2 s" in result.stderr) == (2, True), result
    assert "takes the connection and does not answer" in mute.stderr
    assert (empty.exit_code, "has no worker after 1 s" in empty.stderr) == (2, True), empty.output
    assert (wrong.exit_code, "Traceback" in wrong.output) == (2, False), wrong.output
    assert find_markers(home) == []
