"""The whole live check, and its report.

    machine; per feed: home runs? -> vitals and newest records, else one short session per key; REST: server time, one call a kind
    -> log/check-live.json

Guarantees:
    * A feed of a running home is not disturbed: no second session with its key, no approval key; its cached token is used, and kept
      even if it is refused.
    * No key, secret or token is in a probe or in the report.
    * A step that fails ends no other.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from brokers.allocation.credentials import key_counts
from brokers.errors import RateLimited, RestError, to_safe_text
from brokers.history import HistoricalData, PageRequest, open_history
from brokers.registry import BROKERS
from brokers.subscription import Subscription
from brokers.transport.rest import read_server_time
from brokers.transport.token_cache import keep_tokens
from collectorctl.live_check.machine import check_machine
from collectorctl.live_check.probe import (
    FAILED,
    ODD,
    OK,
    Probe,
    judge_records,
    judge_skew,
    judge_subscriptions,
    judge_vitals,
)
from collectorctl.live_check.session import check_session
from collectorctl.supervision.status import ProcessStatus, collect_status
from conf.clock import SECOND_NS, to_kst
from conf.files.replacement import replace_file
from conf.home import Home
from conf.instrument import Instrument
from conf.market import MARKETS
from ringbuf.records import STREAMS
from ringbuf.ring import Consumer, RingError

LISTEN_S = 10.0
CALL_SPACING_S = 1.0
NEWEST_RECORDS = 200
REPORT = "check-live.json"


def check_live(home: Home, listen_s: float = LISTEN_S) -> Iterator[Probe]:
    """Everything, as it is found."""
    yield from check_machine(home)
    processes = {process.name: process for process in collect_status(home).processes if process.pid}
    for name, keys in key_counts(home).items():
        market = MARKETS[BROKERS[name].market]
        instruments = home.settings.instruments(market.name)
        if not instruments:
            continue
        if name in processes:
            yield from _check_running(home, name, processes[name])
        else:
            for key in range(1, keys + 1):
                yield from _check_key(home, name, key, instruments, listen_s)
        with keep_tokens():
            yield from _check_rest(home, name, instruments[0])


def _check_running(home: Home, name: str, process: ProcessStatus) -> Iterator[Probe]:
    yield judge_vitals(name, process.healthy, process.verdict, process.counters)
    skews_s: list[float] = []
    for stream in STREAMS:
        try:
            ring = Consumer.open(home.ring_path(name, stream), STREAMS[stream])
        except (FileNotFoundError, RingError):
            continue
        try:
            records = ring.read(max(1, ring.head - NEWEST_RECORDS + 1), NEWEST_RECORDS).records
            skews_s += ((records["recv_ns"] - records["exch_ns"]) / SECOND_NS).tolist()
        finally:
            ring.close()
    yield judge_skew(name, skews_s, "the newest records")


def _check_key(home: Home, name: str, key: int, instruments: list[Instrument], listen_s: float) -> Iterator[Probe]:
    subscriptions = [Subscription(instruments[0], stream) for stream in STREAMS]
    found, sample = check_session(home, name, key, subscriptions, listen_s)
    yield from found
    if sample is None:
        return
    subject, calendar, now_ns = f"{name} key {key}", home.load_calendar(), home.load_clock().now_ns()
    venues = {instruments[0].venue}
    yield from judge_subscriptions(subject, sample)
    yield judge_records(
        subject, sample, calendar.describe(venues, now_ns), calendar.is_open(venues, now_ns, now_ns + SECOND_NS)
    )
    yield judge_skew(subject, sample.skews_s, "the stamps of records")


def _check_rest(home: Home, name: str, instrument: Instrument) -> Iterator[Probe]:
    url = getattr(home.settings, name).rest_url
    try:
        server_s = read_server_time(url)
    except RestError as error:
        yield Probe(name, "REST", FAILED, str(error), f"look whether {name}.rest_url and the network are right")
        return
    # a header of whole seconds
    yield judge_skew(name, [] if server_s is None else [time.time() - server_s - 0.5], "the REST server's clock")
    history = open_history(home, name)
    try:
        for number, kind in enumerate(history.PAGE_ROWS):
            time.sleep(CALL_SPACING_S * bool(number))
            yield _check_call(home, name, history, kind, instrument)
    finally:
        history.close()


def _check_call(home: Home, name: str, history: HistoricalData, kind: str, instrument: Instrument) -> Probe:
    now_ns = home.load_clock().now_ns()
    day = instrument.market.to_local(now_ns).date()
    until = f"{to_kst(now_ns):%H%M%S}" if name == "kis" else ""
    begin_s = time.monotonic()
    try:
        content = history.fetch_page(PageRequest(kind, instrument, day, until=until)).content
        parse: Any = getattr(history, f"parse_{kind}")
        page = parse(content, day) if kind == "trades" else parse(content)
    except RateLimited as error:
        remedy = (
            "another program uses this key at the same time, or the key is new: lower [gapfill] and [recover] rates"
        )
        return Probe(name, f"REST {kind}", ODD, str(error), remedy)
    except RestError as error:
        remedy = (
            "compare key and secret in .env with the vendor's pages, and its registered addresses with this host's; a token that "
            "was refused is replaced by the next process that needs it"
        )
        return Probe(name, f"REST {kind}", FAILED, str(error), remedy)
    took = f"{len(page.rows)} rows in {(time.monotonic() - begin_s) * 1000:.0f} ms"
    if page.rejects:
        message = f"{took}, {len(page.rejects)} of them cannot be read: {to_safe_text(page.rejects[0])}"
        return Probe(name, f"REST {kind}", ODD, message, "send the report to somebody who can mend the reader")
    return Probe(name, f"REST {kind}", OK, took)


def write_report(home: Home, probes: list[Probe]) -> Path:
    """The probes as a file for a bug report. OSError."""
    path = home.log / REPORT
    content = {
        "time": f"{to_kst(home.load_clock().now_ns()):%Y-%m-%dT%H:%M:%S%z}",
        "version": version("collectorctl"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "instruments": {market: len(home.settings.instruments(market)) for market in MARKETS},
        "probes": probes,
    }
    text = to_safe_text_lines(msgspec.json.format(msgspec.json.encode(content), indent=2).decode())
    replace_file(path, f"{text}\n".encode(), 0o600)
    return path


def to_safe_text_lines(text: str) -> str:
    """Lines without a secret of this process."""
    return "\n".join(to_safe_text(line) for line in text.split("\n"))


def format_probe(probe: Probe) -> str:
    """A probe in one line."""
    remedy = f": {probe.remedy}" if probe.remedy else ""
    return to_safe_text(f"{probe.outcome:<7}{probe.subject:<13}{probe.check:<14}{probe.message}{remedy}")
