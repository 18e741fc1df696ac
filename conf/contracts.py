"""Contracts between the processes of a home: each shared file with its writer, its readers and the type of its content.

A program has one name for everything: its section in supervisord.conf, its table in the settings, its lock, vitals page and logs.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import NamedTuple


class Contract(NamedTuple):
    """A file by which processes know each other. `content`: module:attribute that is, or reads, what it holds."""

    pattern: str
    """Below the home, or below the directories named in [paths]; {names} stand for a part of a file's name."""
    writer: str
    readers: str
    content: str

    def matches(self, path: PurePath) -> bool:
        """Whether a path relative to the home is such a file."""
        form = re.sub(r"\\\{\w+\\\}", r"[^/]*", re.escape(self.pattern))
        return re.fullmatch(form, path.as_posix()) is not None


CONTRACTS = tuple(
    Contract(*row)
    for row in (
        ("collector.toml", "user", "every process", "conf.loader:load_settings"),
        ("supervisord.conf", "user", "supervisord", "collectorctl.init:create_home"),
        (".env{suffix}", "user", "collectors, gapfill, recover, relay, notify", "conf.loader:load_secrets"),
        (
            "run/supervisor.{kind}",
            "supervisord",
            "collectorctl, watchdog",
            "collectorctl.supervision.supervisor:Program",
        ),
        ("run/{name}.lock", "the program", "a second one of its name, writer", "conf.process:acquire_lock"),
        ("run/publish/{date}.lock", "writer, recover, reprocess", "the same", "conf.files.lock:exclusive_lock"),
        ("run/clock.json", "the first process", "every process", "conf.clock:simulated"),
        ("run/calendar.json", "the first process", "every process", "conf.holidays:load_holidays"),
        ("run/universe.json", "collectorctl start, reload", "every process", "conf.universe.listing:UniverseList"),
        (
            "data/universe/date={date}.json",
            "collectorctl start, reload",
            "recover, report, reprocess",
            "conf.universe.listing:UniverseList",
        ),
        (
            "run/token/{broker}.json",
            "collector, gapfill, recover",
            "the same",
            "brokers.transport.token_cache:TokenFile",
        ),
        (
            "run/token/{broker}.lock",
            "collector, gapfill, recover",
            "the same",
            "brokers.transport.token_cache:TokenFile",
        ),
        ("run/lines.json", "writer", "status", "writer.feeds.feed_report:FeedReport"),
        ("run/day.json", "writer", "status, notify", "writer.feeds.day_report:DayReport"),
        (
            "run/acknowledged.json",
            "collectorctl",
            "status",
            "collectorctl.verdict.acknowledgement:Acknowledgement",
        ),
        ("run/symbol_names.json", "collectorctl", "status", "collectorctl.symbols.names:SymbolNames"),
        ("run/notify.json", "notify", "the next notify", "collectorctl.notify.outbox:Ledger"),
        (
            "run/volume{market}.json",
            "writer",
            "gapfill, status, the next writer",
            "writer.volume.gaps:GapReport",
        ),
        (
            "run/ring/{feed}.{stream}.ring",
            "collector, gapfill, writer",
            "writer, relay, zmq, status",
            "ringbuf.records:RINGS",
        ),
        (
            "run/ring/{name}.vitals",
            "the program",
            "status, metrics, relay, zmq, watchdog, writer, the other feed",
            "ringbuf.vitals:VitalsSnapshot",
        ),
        ("run/ring/owner", "the first process", "check of another home", "collectorctl.ring_directory:find_orphans"),
        ("log/{name}", "the program", "user", "conf.process:configure_logging"),
        ("data/journal/{dataset}/{number}.journal", "writer", "collectorctl", "writer.catalog:Catalog"),
        (
            "data/{market}/{dataset}/date={date}/hour={hour}/part-{number}.parquet",
            "writer, recover, reprocess",
            "user",
            "writer.catalog:Catalog",
        ),
        (
            "data/{market}/{dataset}/date={date}/part-{number}.parquet",
            "recover, collectorctl",
            "user",
            "collectorctl.recover.store.table_file:read",
        ),
        ("data/quarantine/date={date}/{feed}.jsonl", "collector", "reprocess", "brokers.feed.quarantine:Quarantine"),
        ("run/capture/{feed}", "collectorctl", "collector, status", "brokers.feed.capture:FrameCapture"),
        (
            "data/capture/{feed}/{time}.jsonl.gz",
            "collector",
            "simulator, user",
            "brokers.simulator.captured:read_captured",
        ),
        (
            "data/retired/{market}/{date}.json",
            "collectorctl, recover",
            "verify, copy",
            "collectorctl.disk.retired:load",
        ),
        (
            "data/.verify-{token}",
            "collectorctl",
            "workers of a cluster",
            "collectorctl.recover.verify_cluster:Check",
        ),
        ("data/report/{name}.html", "recover, collectorctl", "user", "collectorctl.report.store:write_report"),
        ("data/recover/round.json", "recover", "status, watchdog", "collectorctl.recover.schedule.state:LastRun"),
        (
            "data/recover/round-{hours}.json",
            "recover",
            "status, watchdog",
            "collectorctl.recover.schedule.state:LastRun",
        ),
        ("data/recover/rates.json", "recover", "recover", "collectorctl.recover.job:RecoveryJob"),
        (
            "data/recover/backfilled.json",
            "collectorctl backfill",
            "recover, watchdog",
            "collectorctl.recover.store.evidence:BackfilledDays",
        ),
        (
            "data/recover/date={date}/{instrument}/evidence.json",
            "recover",
            "verify",
            "collectorctl.recover.store.evidence:Evidence",
        ),
    )
)


FAILOVER_COUNTERS = ("up_keys", "last_data_mono_ns")
"""Counters of a collector's vitals page by which the other collector judges it (brokers/allocation/failover_monitor.py)."""
