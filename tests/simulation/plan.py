"""What happens in a simulated run, drawn from its seed (pure).

    seed ─> segments of three dates: seconds around the edge of an hour, or around midnight
         ─> what each feed does to its frames: loss, repetition, lateness
         ─> faults of processes, disk and clock, each at its instant

Guarantees:
    * Equal seeds and switches give equal plans; each concern draws from a sequence of its own.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple

SECOND_NS = 1_000_000_000
TWIN_WINDOW_S = 1.0
FIRST_DATE = datetime(2026, 11, 23, tzinfo=UTC)
"""A Monday; the two days behind it are trading days too."""
BEFORE_EDGE_S, AFTER_EDGE_S = 4.0, 4.0

HOUR_EDGE_SKEW = "hour-edge-skew"
"""Feeds may stamp one trade in two different hours."""
LONG_STALL = "long-stall"
"""Collectors are paused for up to three twin windows, not only within one."""
JOURNAL_BITS = "journal-bits"
"""A bit of the journal flips while no writer runs."""
RING_DIRECTORY = "ring-directory"
"""The names of all rings disappear while their processes run."""
US_REPEATS = "us-repeats"
"""The US feed sends some frames twice. Publication compares no ticks of a market with one feed: both would be rows."""
SWITCHES = (HOUR_EDGE_SKEW, LONG_STALL, JOURNAL_BITS, RING_DIRECTORY, US_REPEATS)
ENABLED = frozenset(SWITCHES) - {US_REPEATS}
"""The switches of the suite's runs: a known fault stays out until its fix is in."""

SYMBOLS = ("005930", "000660")
FEEDS = ("kis", "kiwoom")
US_FEED = "us"
PROCESSES = (*FEEDS, "writer", "gapfill")


class Segment(NamedTuple):
    """Trading around `edge_ns` (calendar): an hour's or a day's end."""

    edge_ns: int
    is_midnight: bool

    @property
    def begin_ns(self) -> int:
        return self.edge_ns - round(BEFORE_EDGE_S * SECOND_NS)

    @property
    def end_ns(self) -> int:
        return self.edge_ns + round(AFTER_EDGE_S * SECOND_NS)


class FeedBehaviour(NamedTuple):
    """Shares of frames that are lost, repeated, late; the latency of all, and how often a stamp is a second ahead."""

    lost: float
    repeated: float
    late: float
    garbled: float
    latency_s: float
    skewed: float
    merged: float


class Fault(NamedTuple):
    """What happens to `target` at `at_ns` (calendar); `amount`: seconds, or the number of effects skipped first."""

    at_ns: int
    kind: str
    target: str
    amount: float


class Limits(NamedTuple):
    """Sizes at which the writer begins another file, part, row group or read: small ones, so that short days reach them."""

    segment_max_bytes: int
    max_part_rows: int
    row_group_rows: int
    max_records_per_read: int


ROOMY_RING = 4096
ROOMY = Limits(1 << 20, 1_000_000, 65_536, 8192)


class Plan(NamedTuple):
    """A run."""

    seed: int
    segments: tuple[Segment, ...]
    feeds: dict[str, FeedBehaviour]
    faults: tuple[Fault, ...]
    switches: frozenset[str]
    ring_capacity: int
    events_per_s: float
    tick_feeds: dict[str, tuple[str, ...]]
    """Symbol -> the feeds that its trades are subscribed on: one as the allocation has it, both as during a takeover."""
    limits: Limits
    us: FeedBehaviour | None
    """The US feed beside Korea, on a market of its own; None: it is not collected."""
    stop_kill: int | None
    """Effects on the disk after which the writer is killed in its last stop; None: it is not."""

    @property
    def all_feeds(self) -> tuple[str, ...]:
        """Those that are collected."""
        return FEEDS if self.us is None else (*FEEDS, US_FEED)

    @property
    def dates(self) -> int:
        """How many trading dates it plays."""
        kst = timedelta(hours=9)
        return len(
            {
                (datetime.fromtimestamp(ns // SECOND_NS, UTC) + kst).date()
                for segment in self.segments
                for ns in (segment.begin_ns, segment.end_ns)
            }
        )


def draw_plan(seed: int, switches: frozenset[str] = ENABLED) -> Plan:
    """The run of `seed`."""
    shape = Random(f"{seed} shape")
    segments = _draw_segments(shape)
    faults = _draw_faults(Random(f"{seed} faults"), segments, switches)
    us, us_faults = _draw_us(Random(f"{seed} us"), segments, switches)
    ring_capacity = shape.choice((24, 96, ROOMY_RING, ROOMY_RING))
    # where rings begin anew, a lost record's number alone does not say which record it was: then none is lapped
    is_renumbered = any(fault.kind in ("power", "unlink") for fault in faults)
    return Plan(
        seed,
        segments,
        _draw_feeds(Random(f"{seed} feeds")),
        tuple(sorted((*faults, *us_faults))),
        switches,
        ROOMY_RING if is_renumbered else ring_capacity,
        shape.choice((6.0, 15.0, 30.0)),
        {symbol: shape.choice((FEEDS, ("kis",), ("kiwoom",))) for symbol in SYMBOLS},
        Limits(shape.choice((20_000, 200_000)), shape.choice((40, 1_000_000)), shape.choice((16, 65_536)), 7)
        if shape.random() < 0.25
        else ROOMY,
        us,
        shape.randrange(40) if shape.random() < 0.2 else None,
    )


def _draw_segments(random: Random) -> tuple[Segment, ...]:
    edges: list[Segment] = []
    for day in range(3):
        midnight = FIRST_DATE + timedelta(days=day, hours=-9)
        if random.random() < 0.5:
            at = midnight + timedelta(hours=random.randrange(10, 16))
            edges.append(Segment(round(at.timestamp()) * SECOND_NS, False))
        if day < 2 and random.random() < 0.7:
            at = midnight + timedelta(days=1)
            edges.append(Segment(round(at.timestamp()) * SECOND_NS, True))
    if not edges:
        return _draw_segments(random)
    return tuple(edges)


def _draw_feeds(random: Random) -> dict[str, FeedBehaviour]:
    worse = random.choice(FEEDS)
    return {
        feed: FeedBehaviour(
            lost=random.choice((0.0, 0.02, 0.2)) if feed == worse else 0.0,
            repeated=random.choice((0.0, 0.05)) if feed == worse else 0.0,
            late=random.choice((0.0, 0.05)) if feed == worse else 0.0,
            garbled=random.choice((0.0, 0.0, 0.03)) if feed == worse else 0.0,
            latency_s=random.choice((0.002, 0.06, 0.2)),
            skewed=random.choice((0.0, 0.3)) if feed == "kiwoom" else 0.0,
            merged=random.choice((0.0, 0.5)) if feed == "kiwoom" else 0.0,
        )
        for feed in FEEDS
    }


def _draw_us(
    random: Random, segments: tuple[Segment, ...], switches: frozenset[str]
) -> tuple[FeedBehaviour | None, list[Fault]]:
    """The US feed of every fourth run, and what happens to its collector."""
    if random.random() >= 0.25:
        return None, []
    behaviour = FeedBehaviour(
        lost=random.choice((0.0, 0.1)),
        repeated=random.choice((0.0, 0.05)) * (US_REPEATS in switches),
        late=0.0,
        garbled=random.choice((0.0, 0.03)),
        latency_s=random.choice((0.002, 0.2)),
        skewed=0.0,
        merged=0.0,
    )
    faults = []
    for _ in range(random.choice((0, 1, 3))):
        segment = random.choice(segments)
        at_ns = random.randrange(segment.begin_ns, segment.end_ns)
        kind = random.choice(("kill", "kill unpublished", "kill torn", "pause"))
        faults.append(Fault(at_ns, kind, US_FEED, random.uniform(0.1, 2.0)))
    return behaviour, faults


def _draw_faults(random: Random, segments: tuple[Segment, ...], switches: frozenset[str]) -> tuple[Fault, ...]:
    kinds = {
        "kill": PROCESSES,
        "kill unpublished": FEEDS,
        "kill torn": FEEDS,
        "kill before": ("writer",),
        "kill half": ("writer",),
        "kill after": ("writer",),
        "pause": ("kis", "kiwoom", "writer"),
        "full": ("disk",),
        "error": ("disk",),
        "clock": ("wall",),
        "terminate": ("writer",),
        "refuse": ("disk",),
        "power": ("machine",),
    }
    weights = [4, 1, 1, 3, 3, 3, 4, 2, 2, 2, 1, 1, 1]
    for switch, kind in ((JOURNAL_BITS, "bit"), (RING_DIRECTORY, "unlink")):
        if switch in switches:
            kinds[kind] = ("machine",)
            weights.append(3)
    faults = []
    for _ in range(random.choice((0, 2, 4, 8, 12))):
        segment = random.choice(segments)
        (kind,) = random.choices(list(kinds), weights)
        target = random.choice(kinds[kind])
        at_ns = random.randrange(segment.begin_ns, segment.end_ns + 4 * SECOND_NS)
        faults.append(Fault(at_ns, kind, target, _draw_amount(random, kind, target, switches)))
    return tuple(sorted(faults))


def _draw_amount(random: Random, kind: str, target: str, switches: frozenset[str]) -> float:
    if kind == "pause":
        is_bounded = target in FEEDS and LONG_STALL not in switches
        return random.uniform(0.05, (0.6 if is_bounded else 3.0) * TWIN_WINDOW_S)
    if kind in ("full", "refuse"):
        return random.uniform(0.1, 3.0)
    if kind == "power":
        return random.uniform(1.5, 4.0)
    if kind == "clock":
        return random.choice((-3600.0, -2.0, 2.0, 3600.0))
    if kind in ("error", "kill before", "kill half", "kill after"):
        return float(random.randrange(0, 25))
    return random.uniform(0.1, 2.0)
