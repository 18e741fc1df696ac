"""Verification of days by the workers of a Dask cluster: the function of verify.py, and the same bytes.

    client ──versions, marker──> each worker: equal? the same files?       else refused, in words
           ──day, market──> scheduler ──> a worker: verify_day ──DayVerification──> client, in order of the days

Guarantees:
    * Workers read; the client alone writes: a marker in data/, which it removes at the end.
    * A worker with other versions, or that does not see the marker, verifies no day, also one that joins later.
    * A day whose worker is lost is verified again by another one; its result comes as a whole or not at all.

Not handled here:
    * Who may reach the scheduler. Whoever may, runs code on its workers: a network of one's own, or TLS in Dask's configuration.
"""

from __future__ import annotations

import logging
import platform
import secrets
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

import msgspec

from collectorctl.recover.verify import DayVerification, in_order, verify_day
from conf.home import Home
from conf.market import MARKETS, Market
from conf.settings import SettingsError

if TYPE_CHECKING:
    from distributed import Client

CONNECT_TIMEOUT_S = 10.0
"""Longest wait for the scheduler, and for its first worker."""
ANSWER_TIMEOUT_S = 60.0
"""Longest wait for a worker's answer to the check; for another worker when the last one is lost."""
RETRIES = 2
"""How often a day is tried again after an error that is no result; days of lost workers are limited by the scheduler."""
PACKAGES = ("collectorctl", "pyarrow", "numpy", "msgspec")
SOURCES = ("brokers", "collectorctl", "conf", "ringbuf", "writer")


class ClusterRefused(Exception):
    """The cluster cannot be used; the message has reason and remedy."""


class WorkerRefused(Exception):
    """This worker verifies nothing; the message has reason and remedy."""


class Check(msgspec.Struct):
    """What must be the same with client and worker. `marker`: name of a file in data/ of the home; `token`: its content."""

    root: Path
    marker: str
    token: str
    versions: dict[str, str]

    def find_refusal(self) -> str:
        """Why this process may not verify for the client, "" for nothing."""
        own = read_versions()
        if others := [
            f"{name} {own[name]} instead of {one}" for name, one in self.versions.items() if own[name] != one
        ]:
            return f"has {', '.join(others)}: install there what is here, and restart it"
        try:
            path = Home(self.root).data / self.marker
            seen = path.read_text()
        except (OSError, SettingsError, ValueError) as error:
            return f"does not see the files of {self.root}: {error}: mount the home there at the same path"
        return (
            "" if seen == self.token else f"sees other files than these: {path}: mount the home there at the same path"
        )


@cache
def read_versions() -> dict[str, str]:
    """Versions by name; "code": of this program's modules as they are on this disk, since releases are rarer than changes."""
    root, digest = Path(__file__).parents[2], sha256()
    for path in sorted(path for package in SOURCES for path in (root / package).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return {name: version(name) for name in PACKAGES} | {
        "python": platform.python_version(),
        "code": digest.hexdigest()[:12],
    }


def verify_on_cluster(
    home: Home, days: Sequence[date], market: Market, address: str, on_done: Callable[[int], None] = lambda _: None
) -> list[DayVerification]:
    """The days in order, verified by the workers of a scheduler such as tcp://10.0.0.1:8786. ClusterRefused.

    `on_done`: called with how many are done, with 0 before the first is sent.
    """
    with _muted(), _connect(address) as client, _lay_marker(home) as check:
        _check_workers(client, check)
        on_done(0)
        found = _collect(client, check, days, market, on_done)
    return in_order(days, found, "no worker of the cluster returned it: see its log, and verify again")


@contextmanager
def _muted() -> Iterator[None]:
    """Without the library's own log and warnings on stderr: what matters is said in words, and escaped."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _connect(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise ClusterRefused("distributed is not installed: pip install -e '.[cluster]'") from None
    # a server that takes the connection and says nothing holds the constructor for ever, whatever its timeout
    made: Queue[Any] = Queue()

    def make() -> None:
        try:
            made.put(Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False))
        except Exception as error:  # noqa: BLE001 - raised by the thread that waits
            made.put(error)

    Thread(target=make, daemon=True).start()
    try:
        found = made.get(timeout=2 * CONNECT_TIMEOUT_S)
    except Empty:
        found = TimeoutError("something takes the connection and does not answer")
    if isinstance(found, OSError | ValueError | ImportError):
        raise ClusterRefused(
            f"{address}: no scheduler answered within {2 * CONNECT_TIMEOUT_S:g} s: start `dask scheduler` there, and name its "
            f"address, tcp://HOST:8786 ({_first_line(found)})"
        )
    if isinstance(found, Exception):
        raise found
    return found


@contextmanager
def _lay_marker(home: Home) -> Iterator[Check]:
    """A file that only who sees this data/ can read, under a name that no cache of a network file system knows."""
    check = Check(home.root, f".verify-{secrets.token_hex(4)}", secrets.token_hex(16), read_versions())
    path = home.data / check.marker
    try:
        try:
            path.write_text(check.token)
        except OSError as error:
            raise ClusterRefused(f"{error}: the marker for the workers must be written there") from None
        yield check
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


def _check_workers(client: Client, check: Check) -> None:
    """Ask each worker. ClusterRefused."""
    try:
        client.wait_for_workers(1, timeout=CONNECT_TIMEOUT_S)
    except TimeoutError:
        raise ClusterRefused(
            f"the scheduler has no worker after {CONNECT_TIMEOUT_S:g} s: start `dask worker ADDRESS`"
        ) from None
    answers = {
        worker: client.submit(_find_refusal, check, workers=[worker], key=f"check-{worker}-{check.marker}")
        for worker in client.scheduler_info(n_workers=-1)["workers"]
    }
    for worker, answer in answers.items():
        try:
            refusal = answer.result(timeout=ANSWER_TIMEOUT_S)
        except TimeoutError:
            refusal = f"did not answer within {ANSWER_TIMEOUT_S:g} s: end it, or let its other work end"
        except Exception as error:  # noqa: BLE001 - whatever a worker of another version makes of the question
            refusal = f"cannot be asked: {_first_line(error)}: install there what is here, and restart it"
        if refusal:
            raise ClusterRefused(f"worker {worker} {refusal}")


def _collect(
    client: Client, check: Check, days: Sequence[date], market: Market, on_done: Callable[[int], None]
) -> dict[date, DayVerification]:
    """What came back; a day that lost every worker it was given to, or was refused, says so."""
    from distributed import KilledWorker

    arrived: Queue[Any] = Queue()
    futures = {}
    for day in days:
        key = f"verify-{market.name}-{day}-{check.marker}"  # of this run: a scheduler keeps the results of others
        future = client.submit(_verify_on_worker, check, day, market.name, key=key, retries=RETRIES)
        futures[key] = day
        future.add_done_callback(arrived.put)
    found: dict[date, DayVerification] = {}
    while len(found) < len(days):
        try:
            future = arrived.get(timeout=ANSWER_TIMEOUT_S)
        except Empty:
            try:
                client.wait_for_workers(1, timeout=ANSWER_TIMEOUT_S)
            except (TimeoutError, OSError):
                break
            continue
        if future.cancelled():
            break  # the scheduler is gone, and with it all that it had
        day = futures[future.key]
        try:
            found[day] = future.result(timeout=ANSWER_TIMEOUT_S)
        except KilledWorker:
            found[day] = DayVerification(
                day, [], f"{day}: its workers were killed: give them more memory, or fewer threads"
            )
        except WorkerRefused as error:
            found[day] = DayVerification(day, [], f"{day}: {error}")
        on_done(len(found))
    return found


def _find_refusal(check: Check) -> str:
    return check.find_refusal()


def _verify_on_worker(check: Check, day: date, market: str) -> DayVerification:
    if refusal := check.find_refusal():
        raise WorkerRefused(f"a worker on {platform.node()} {refusal}")
    return verify_day(Home(check.root), day, MARKETS[market])


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
