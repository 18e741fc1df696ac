"""Probes of a live check: one line for each thing that was looked at, and the limits between ok, odd and failed (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

OK: Literal["ok"] = "ok"
ODD: Literal["odd"] = "odd"
FAILED: Literal["failed"] = "failed"

MAX_AHEAD_S, MAX_LATE_S, MAX_SKEW_S = 0.5, 3.0, 60.0
"""A record may seem received so long before its stamp, or after it (stamps are whole seconds); beyond the last dates go wrong."""
SLOW_FSYNC_S, HUNG_FSYNC_S = 0.2, 5.0
FEW_DAYS, TOO_FEW_DAYS = 30.0, 2.0


class Probe(msgspec.Struct, frozen=True):
    """One line: what of whom was looked at, what was found, and what to do about it."""

    subject: str
    check: str
    outcome: Literal["ok", "odd", "failed"]
    message: str
    remedy: str = ""


class SessionSample(NamedTuple):
    """What one session with few subscriptions brought: their answers, and the records that came."""

    answers: Mapping[str, str]
    """Subscription -> "" if acknowledged, else the refusal or "no answer"."""
    records: int
    wide: Counter[tuple[str, int]]
    rejects: Sequence[str]
    skews_s: Sequence[float]
    """Receive time less stamp of each record."""
    listened_s: float


def judge_subscriptions(subject: str, sample: SessionSample) -> list[Probe]:
    """A line for each subscription."""
    found = []
    for name, refusal in sample.answers.items():
        outcome, message = (FAILED, f"{name}: {refusal}") if refusal else (OK, f"{name} acknowledged")
        remedy = (
            "look the vendor's code up in docs/wire; a key without the permission gets it in the vendor's account pages"
        )
        found.append(Probe(subject, "registration", outcome, message, remedy * bool(refusal)))
    return found


def judge_records(subject: str, sample: SessionSample, market: str, is_open: bool) -> Probe:
    """Whether the records had the fields that are known. `market`: which sessions there are now."""
    send = "switch `collectorctl capture on`, and send a day to somebody who can mend the decoder"
    if sample.rejects:
        message = f"{len(sample.rejects)} records or frames cannot be read, {sample.records} can: {sample.rejects[0]}"
        return Probe(subject, "fields", FAILED, message, send)
    if sample.wide:
        kinds = ", ".join(f"{kind} has {width} fields" for kind, width in sorted(sample.wide))
        message = f"{kinds}, more than known: the records are read, their surplus is kept"
        return Probe(subject, "fields", ODD, message, send)
    if not sample.records:
        message = f"no record within {sample.listened_s:.0f} s"
        if is_open:
            remedy = "run it again; a quiet instrument may have none: put a busy one first in [universe]"
            return Probe(subject, "fields", ODD, f"{message} though there is a session ({market})", remedy)
        return Probe(subject, "fields", OK, f"{message}: not judged ({market})")
    return Probe(subject, "fields", OK, f"{sample.records} records, each with known fields")


def judge_skew(subject: str, skews_s: Sequence[float], source: str) -> Probe:
    """This clock against a vendor's: `skews_s` are receive times less stamps; the smallest is the least delayed."""
    if not skews_s:
        return Probe(subject, "clock", OK, f"no time in {source}: not judged")
    skew_s = min(skews_s)
    if -MAX_AHEAD_S <= skew_s <= MAX_LATE_S:
        return Probe(subject, "clock", OK, f"{source} and this clock agree ({skew_s:+.1f} s)")
    what = f"{-skew_s:.1f} s behind {source}" if skew_s < 0 else f"{skew_s:.1f} s ahead of {source}, or that is late"
    outcome = FAILED if abs(skew_s) > MAX_SKEW_S else ODD
    return Probe(subject, "clock", outcome, f"this clock is {what}", "let NTP set the clock: timedatectl set-ntp true")


def judge_vitals(subject: str, healthy: bool, description: str, counters: Mapping[str, int]) -> Probe:
    """A feed of a running home, of which no second session is opened."""
    note = "judged by its vitals, no second session was opened"
    if not healthy:
        return Probe(
            subject, "session", FAILED, f"{description} ({note})", f"read `collectorctl logs {subject.split()[0]}`"
        )
    odd = [
        f"{counters[name]} {text}"
        for name, text in (
            ("refused", "subscriptions refused"),
            ("quarantined", "frames in quarantine"),
            ("wide_frames", "frames with more fields than known"),
            ("checksum_failed", "books whose totals are not the sums of their sizes"),
        )
        if counters.get(name)
    ]
    if odd:
        return Probe(
            subject,
            "session",
            ODD,
            f"{description}, {', '.join(odd)} ({note})",
            "read `collectorctl status --counters`",
        )
    acknowledged = f"{counters.get('acknowledged', 0)} of {counters.get('requested', 0)} subscriptions acknowledged"
    return Probe(subject, "session", OK, f"{description}, {acknowledged} ({note})")


def judge_fsync(times_s: Sequence[float], where: str) -> Probe:
    """The slowest of some small durable writes."""
    slowest_s = max(times_s)
    message = f"{where}: the slowest of {len(times_s)} fsyncs took {slowest_s * 1000:.1f} ms"
    if slowest_s <= SLOW_FSYNC_S:
        return Probe("disk", "fsync", OK, message)
    outcome = FAILED if slowest_s > HUNG_FSYNC_S else ODD
    return Probe("disk", "fsync", outcome, message, "put data/ on another disk, or stop what keeps this one busy")


def judge_room(free_bytes: int, day_bytes: float, basis: str) -> Probe:
    """For how many days there is room. `basis`: where the size of a day comes from."""
    days = free_bytes / max(day_bytes, 1.0)
    message = f"room for {days:,.0f} days: {free_bytes / 1e9:,.1f} GB free, {day_bytes / 1e6:,.0f} MB a day ({basis})"
    if days >= FEW_DAYS:
        return Probe("disk", "room", OK, message)
    return Probe(
        "disk", "room", FAILED if days < TOO_FEW_DAYS else ODD, message, "free some, or name another disk in paths.data"
    )
