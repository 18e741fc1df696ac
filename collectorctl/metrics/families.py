"""Metric families of Prometheus from status, verdict and vitals (pure).

Guarantees:
    * No fact is exposed twice: what a vitals page has comes from the page alone.
    * Labels have bounded values: processes, rings, feeds, levels and codes of findings; no symbol, no message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from collectorctl.metrics.counters import EXPORTS, PREFIX, convert_counter
from collectorctl.verdict import Evidence, Verdict
from ringbuf.vitals import VitalsSnapshot

_BUCKETS_PER_DOUBLING = 4
_FIRST_EXPONENT, _LAST_EXPONENT = 14, 34
"""Bounds of the latency histogram: 2**14 ns (16 us) to 2**34 ns (17 s), one per doubling."""


def build_families(
    evidence: Evidence, verdict: Verdict, snapshots: Mapping[str, VitalsSnapshot], now_mono_ns: int
) -> Iterator[Metric]:
    """All families of one instant, also those without a sample yet; `snapshots`: vitals by process, ended ones included."""
    yield _gauge("readable", "Whether the home could be read for this scrape.", 1)
    yield _gauge("verdict_level", "0 safe, 1 repairing, 2 attention, 3 stopped (docs/verdict.md).", verdict.level)
    findings = Counter((one.code, one.level.name.lower()) for one in verdict.findings)
    yield _labelled("findings", "Findings of the verdict.", ("code", "level"), findings)
    yield _gauge("disk_free_bytes", "Free bytes of the data directory's file system.", evidence.disk.free_bytes)
    yield _gauge("disk_day_bytes", "Bytes of the largest of the last days.", evidence.disk.day_bytes)
    yield from _build_process_families(evidence, snapshots, now_mono_ns)
    yield from _build_ring_families(evidence)
    yield from _build_counter_families(snapshots, now_mono_ns)


def build_unreadable() -> Iterator[Metric]:
    """What is exposed of a home that cannot be read."""
    yield _gauge("readable", "Whether the home could be read for this scrape.", 0)


def _build_process_families(
    evidence: Evidence, snapshots: Mapping[str, VitalsSnapshot], now_mono_ns: int
) -> Iterator[Metric]:
    processes = evidence.status.processes
    of_process = ("process",)
    healthy = {(one.name,): float(one.healthy) for one in processes}
    yield _labelled("process_healthy", "Whether the process does what it is there for.", of_process, healthy)
    memory = {(one.name,): one.own_memory_mb * 1e6 for one in processes if one.own_memory_mb is not None}
    yield _labelled("process_own_memory_bytes", "Resident minus shared memory.", of_process, memory)
    starts = {(name,): one.start_ns * 1e-9 for name, one in snapshots.items()}
    yield _labelled("process_start_time_seconds", "Start of the process, seconds since 1970 UTC.", of_process, starts)
    ages = {(name,): (now_mono_ns - one.heartbeat_mono_ns) * 1e-9 for name, one in snapshots.items()}
    yield _labelled("heartbeat_age_seconds", "Seconds since the last heartbeat.", of_process, ages)
    latency = HistogramMetricFamily(
        f"{PREFIX}latency_seconds",
        "Collectors: from receipt of a frame to the ring; writer: from receipt to the journal.",
        labels=of_process,
    )
    for name, one in snapshots.items():
        if one.latency_count:
            latency.add_metric([name], _convert_buckets(one.latency_buckets), None)
    yield latency


def _convert_buckets(counts: Sequence[int]) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound in seconds."""
    below = [0, *accumulate(counts)]
    bounds = range(_FIRST_EXPONENT, _LAST_EXPONENT + 1)
    found = [(f"{2**exponent * 1e-9:.9g}", float(below[exponent * _BUCKETS_PER_DOUBLING])) for exponent in bounds]
    return [*found, ("+Inf", float(below[-1]))]


def _build_ring_families(evidence: Evidence) -> Iterator[Metric]:
    rings = {tuple(ring.name.split(".")): ring for ring in evidence.status.rings if ring.capacity}
    labels = ("feed", "stream")
    capacity = {name: float(ring.capacity) for name, ring in rings.items()}
    yield _labelled("ring_capacity_records", "Records that the ring holds.", labels, capacity)
    backlog = {name: float(ring.backlog) for name, ring in rings.items()}
    help_text = "Records not in the journal yet; beyond the capacity they are overwritten unread."
    yield _labelled("ring_backlog_records", help_text, labels, backlog)


def _build_counter_families(snapshots: Mapping[str, VitalsSnapshot], now_mono_ns: int) -> Iterator[Metric]:
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for counter, export in EXPORTS.items():
        labels = ("process", "feed") if export.feed else ("process",)
        family = families.get(export.metric)
        if family is None:
            kind = GaugeMetricFamily if export.is_level else CounterMetricFamily
            family = families[export.metric] = kind(f"{PREFIX}{export.metric}", export.help, labels=labels)
        for process in export.processes:
            if process in snapshots:
                value = convert_counter(counter, snapshots[process].counters[counter], now_mono_ns)
                if value is not None:
                    family.add_metric([process, export.feed][: len(labels)], value)
    yield from families.values()


def _gauge(name: str, text: str, value: float | None) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}{name}", text, value=value)


def _labelled(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}{name}", text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family
