"""Verification: the certificates of a day computed again from files alone, of several days in several processes.

    days ──verify_day──> DayVerification, in order of the days        jobs = 1: here
          ├ N processes; the day of a killed one is done again
          └ workers of a cluster: verify_cluster.py

Guarantees:
    * Nothing is fetched or changed; a certificate that the files contradict is named, with the difference.
    * The result of a day depends on its files alone: any number of processes gives the same, and a process that is killed
      in the middle of a day leaves nothing of it.
    * A file that cannot be read is named, and concerns its day only.
    * A day whose ticks or books were removed by retention has the certificates that it had, and is not judged by what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue

import msgspec
import pyarrow as pa

from collectorctl.disk import retired
from collectorctl.recover import us_job
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import COMPLETE_GRADES, Certificate
from collectorctl.recover.job import compute_certificate
from conf.home import Home
from conf.instrument import Instrument
from conf.market import KR, MARKETS, Market
from writer.publish.verified_file import PartitionWriteError

MAX_KILLED = 3
"""How often the process of a day may be killed; more is no accident (a day that needs too much memory)."""


JUDGED_DATASETS = ("tick", "orderbook")
"""The rows that a certificate is computed from."""


def format_recovery_command(day: date, market: Market) -> str:
    """The command that certifies a day."""
    return f"`collectorctl recover --date {day}{format_market_option(market)}`"


def format_market_option(market: Market) -> str:
    """The option of a command that names a market, "" for the one that is meant without it."""
    return "" if market is KR else f" --market {market.name}"


class VerifiedCertificate(msgspec.Struct):
    """A certificate as the files bear it out now; `differs`: fields that the stored one has otherwise."""

    now: Certificate
    differs: list[str]

    @property
    def passed(self) -> bool:
        """Whether the stored certificate holds and the day is complete."""
        return not self.differs and self.now.certificate in COMPLETE_GRADES


class DayVerification(msgspec.Struct):
    """The certificates of a day; `failure`: why there are none, "" for nothing; `retired`: that its rows were removed, in words."""

    day: date
    certificates: list[VerifiedCertificate]
    failure: str = ""
    retired: str = ""


def verify_day(home: Home, day: date, market: Market = KR, instruments: Collection[Instrument] = ()) -> DayVerification:
    """Every certificate of a day, or those of `instruments`; none if there is none."""
    try:
        gone = retired.describe_sessions(home.data, day, JUDGED_DATASETS, market)
        return DayVerification(day, _verify(home, day, market, instruments, bool(gone)), retired=gone)
    except (PartitionWriteError, pa.ArrowException, OSError) as error:
        return DayVerification(day, [], f"{day}: {error}")


def _verify(
    home: Home, day: date, market: Market, instruments: Collection[Instrument], is_retired: bool
) -> list[VerifiedCertificate]:
    found = []
    for (symbol, venue), stored in sorted(store.load(home.data, day, market).items()):
        instrument = Instrument(symbol, venue)
        if instruments and instrument not in instruments:
            continue
        if is_retired:
            found.append(VerifiedCertificate(stored, []))
            continue
        now = (
            compute_certificate(home, day, instrument)
            if market is KR
            else us_job.compute_certificate(home.data, day, instrument)
        )
        stored_content, content = stored.content(), now.content()
        now.made_at = stored.made_at
        found.append(VerifiedCertificate(now, [name for name in content if content[name] != stored_content[name]]))
    return found


def verify_days(
    home: Home, days: Sequence[date], market: Market, jobs: int, on_done: Callable[[int], None] = lambda _: None
) -> list[DayVerification]:
    """The days in order, verified by `jobs` processes. `on_done`: called with how many are done."""
    found: dict[date, DayVerification] = {}
    if jobs <= 1:
        for number, day in enumerate(days):
            on_done(number)
            found[day] = verify_day(home, day, market)
        return [found[day] for day in days]
    workers: SimpleQueue[_WorkerProcess] = SimpleQueue()
    with ExitStack() as opened, ThreadPoolExecutor(min(jobs, len(days)) or 1) as threads:
        for _ in days[:jobs]:
            workers.put(opened.enter_context(closing(_WorkerProcess())))

        def verify(day: date) -> DayVerification | None:
            worker = workers.get()
            try:
                return worker.verify(home.root, day, market.name)
            finally:
                workers.put(worker)

        try:
            for task in as_completed([threads.submit(verify, day) for day in days]):
                if (one := task.result()) is not None:
                    found[one.day] = one
                on_done(len(found))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return in_order(days, found, "its process was killed: free some memory, or use fewer --jobs")


def in_order(days: Sequence[date], found: dict[date, DayVerification], lost: str) -> list[DayVerification]:
    """What was found of each day; `lost`: the failure of those of which nothing was."""
    return [found.get(day) or DayVerification(day, [], f"{day}: {lost}") for day in days]


class _WorkerProcess:
    """A process that verifies a day after the other, and is begun anew when it was killed.

    A pool of one each: a pool of several that loses one while it begins another waits for that one for ever.
    """

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def verify(self, root: Path, day: date, market: str) -> DayVerification | None:
        """The day; None if the process was killed MAX_KILLED times over it."""
        for _ in range(MAX_KILLED):
            self._pool = self._pool or ProcessPoolExecutor(1, get_context("spawn"))
            try:
                return self._pool.submit(_verify_in_process, root, day, market).result()
            except BrokenProcessPool:
                self.close()
        return None

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _verify_in_process(root: Path, day: date, market: str) -> DayVerification:
    return verify_day(Home(root), day, MARKETS[market])
