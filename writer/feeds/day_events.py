"""Incidents of the last day, folded from events: losses, outages, restarts, pauses (pure).

    event rows (stored ones at the start, then new ones) ──> DayEvents ──> incidents, blind spans ──> HOME/run/day.json

An incident has a beginning and an end; one without an end goes on. A book is blind while no feed is subscribed to it on a living
connection, after one was.

Guarantees:
    * Stored events and new ones give the same incidents as all of them at once.
    * An incident stays for KEEP_NS, also across restarts of every process.
    * Memory is bounded: beyond MAX_INCIDENTS an incident is joined with the last one of its kind and feed, and counted; reports
      of quarantined frames always are.

Not handled here:
    * A subscription that was acknowledged before the events that are given: its first outage is not known.
    * A frame that the vendor never sent is no event: see gaps and the dataset feed_health.
    * Sessions: a span outside them is a span.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import reduce
from typing import TYPE_CHECKING, Any

import msgspec

from conf.clock import HOUR_NS
from ringbuf.fields import MAX_INT64, STREAM_NAMES, UNDEFINED, EventType, FeedId, Venue

if TYPE_CHECKING:
    import numpy as np

KEEP_NS = 36 * HOUR_NS
"""How long an incident is kept: a trading day, wherever its midnight is."""

MAX_INCIDENTS = 400
MAX_RECENT = 20
MAX_SPANS = 500
"""Outages kept of one instrument on one feed."""

BEFORE = -1
"""The beginning of an outage that lasted until the first subscription that is known."""

Span = tuple[int, int]
"""Begin and end, ns since 1970 UTC; MAX_INT64: it goes on."""

COLUMNS = ("time", "line", "kind", "symbol", "venue", "stream", "connection", "value", "since", "message")
"""Columns of a stored event that are used."""

_CLOSED = frozenset({"ring_loss", "journal_damaged", "quarantined", "refused", "clock_step"})
"""Kinds that are over when they are emitted."""

_LOST_SUBSCRIPTION = frozenset({"resubscribed", "refused", "released"})

Instrument = tuple[str, str]


class Incident(msgspec.Struct):
    """Something that went wrong: `kind` as in docs/events.md, or "restart", "disconnect".

    `begin_ns`, `end_ns` (None: it goes on): ns since 1970 UTC; `value`: records, frames or shares, as the kind has it, None if
    unknown; `count`: how many were joined.
    """

    kind: str
    feed: str
    begin_ns: int
    end_ns: int | None
    message: str = ""
    stream: str = ""
    symbol: str = ""
    venue: str = ""
    connection: int = 0
    value: int | None = None
    count: int = 1


class BlindSpan(msgspec.Struct):
    """Instruments whose books no feed was subscribed to from `begin_ns` to `end_ns` (None: it goes on); "005930 KRX"."""

    begin_ns: int
    end_ns: int | None
    instruments: list[str]


class DayEvents:
    """The fold over the events of one market."""

    def __init__(self) -> None:
        self.revision = 1
        """Another one whenever incidents, recent events or blind spans may have changed."""
        self.incidents: list[Incident] = []
        self.recent: deque[Incident] = deque(maxlen=MAX_RECENT)
        """The newest events but acknowledgements, whatever they mean; `end_ns`: when."""
        self._connections: dict[str, dict[Instrument, int]] = {}
        self._outages: dict[Instrument, dict[str, list[Span]]] = {}

    def add_records(self, events: np.ndarray) -> None:
        """Add events (EVENT), in order."""
        for event in events:
            value, since_ns = int(event["value"]), int(event["since_ns"])
            self._add(
                int(event["recv_ns"]),
                FeedId(event["line"]).name.lower(),
                EventType(event["kind"]).name.lower(),
                (
                    event["symbol"].decode(errors="backslashreplace"),
                    Venue(event["venue"]).name if event["venue"] else "",
                ),
                STREAM_NAMES[event["stream"]],
                int(event["connection"]),
                None if value == UNDEFINED else value,
                None if since_ns == UNDEFINED else since_ns,
                event["message"].decode(errors="backslashreplace"),
            )

    def add_rows(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add stored events, in order: COLUMNS, times as ns since 1970 UTC."""
        for row in rows:
            self._add(
                row["time"],
                row["line"],
                row["kind"],
                (row["symbol"] or "", row["venue"] or ""),
                row["stream"] or "",
                row["connection"],
                row["value"],
                row["since"],
                row["message"] or "",
            )

    def blind_spans(self) -> list[BlindSpan]:
        """The spans in which books were blind, with the instruments of each, in order of their beginning."""
        spans: dict[Span, list[str]] = {}
        for name, outages in self._outages.items():
            blind = reduce(_intersect, outages.values())
            for begin_ns, end_ns in blind:
                if begin_ns > BEFORE:  # else no feed had been subscribed to it yet
                    spans.setdefault((begin_ns, end_ns), []).append(" ".join(name))
        found = [
            BlindSpan(begin_ns, None if end_ns == MAX_INT64 else end_ns, sorted(names))
            for (begin_ns, end_ns), names in spans.items()
        ]
        return sorted(found, key=lambda span: (span.begin_ns, span.end_ns or MAX_INT64))

    def expire(self, now_ns: int) -> None:
        """Forget what ended more than KEEP_NS ago."""
        self.revision += 1
        oldest_ns = now_ns - KEEP_NS
        self.incidents = [one for one in self.incidents if one.end_ns is None or one.end_ns >= oldest_ns]
        for outages in self._outages.values():
            for feed, spans in outages.items():
                outages[feed] = [span for span in spans if span[1] >= oldest_ns]

    def _add(
        self,
        time_ns: int,
        feed: str,
        kind: str,
        name: Instrument,
        stream: str,
        connection: int,
        value: int | None,
        since_ns: int | None,
        message: str,
    ) -> None:
        self.revision += 1
        begin_ns = time_ns if since_ns is None else since_ns
        incident = Incident(kind, feed, begin_ns, None, message, stream, *name, connection, value)
        if kind != "acknowledged":
            self.recent.append(msgspec.structs.replace(incident, end_ns=time_ns))
        if kind == "acknowledged":
            self._end(time_ns, "disconnect", feed, connection=connection)
            if stream == "orderbook":
                self._see(feed, name, connection, time_ns)
        elif kind in _LOST_SUBSCRIPTION and stream == "orderbook":
            self._lose_sight(feed, [name], time_ns)
        elif kind == "disconnected":
            incident.kind = "disconnect"
            self._append(incident)
            visible = self._connections.get(feed, {})
            self._lose_sight(feed, [each for each, number in visible.items() if number == connection], begin_ns)
        elif kind in ("started", "stopped"):
            if kind == "stopped":  # its connections were closed on purpose
                self.incidents = [
                    one for one in self.incidents if (one.kind, one.feed, one.end_ns) != ("disconnect", feed, None)
                ]
            self._end(time_ns, "disconnect", feed)
            if kind == "started" and since_ns is not None:
                incident.kind, incident.end_ns = "restart", time_ns
                self._append(incident)
            self._lose_sight(feed, list(self._connections.get(feed, {})), begin_ns)
        if kind in _CLOSED:
            incident.end_ns = time_ns
            self._append(incident)
        elif kind in ("paused", "resumed"):
            incident.stream = message.partition(":")[0]  # the dataset
            self._end(time_ns, "paused", feed, stream=incident.stream)
        elif kind in ("degraded", "restored"):
            self._end(time_ns, "degraded", feed, symbol=name[0], venue=name[1])
        if kind in ("paused", "degraded"):
            self._append(incident)

    def _end(self, end_ns: int, kind: str, feed: str, **fields: object) -> None:
        for one in self.incidents:
            is_same = one.end_ns is None and (one.kind, one.feed) == (kind, feed)
            if is_same and all(getattr(one, name) == value for name, value in fields.items()):
                one.end_ns = end_ns

    def _append(self, incident: Incident) -> None:
        key = incident.kind, incident.feed, incident.stream
        last = next((one for one in reversed(self.incidents) if (one.kind, one.feed, one.stream) == key), None)
        if last is None or (len(self.incidents) < MAX_INCIDENTS and incident.kind != "quarantined"):
            self.incidents.append(incident)
            return
        last.count += 1
        last.end_ns = None if incident.end_ns is None else max(incident.end_ns, last.end_ns or 0)
        last.value = None if last.value is None or incident.value is None else last.value + incident.value
        last.message = incident.message

    def _see(self, feed: str, name: Instrument, connection: int, time_ns: int) -> None:
        self._connections.setdefault(feed, {})[name] = connection
        spans = self._outages.setdefault(name, {}).setdefault(feed, [(BEFORE, MAX_INT64)])
        if spans and spans[-1][1] == MAX_INT64:
            spans[-1] = spans[-1][0], time_ns

    def _lose_sight(self, feed: str, names: list[Instrument], begin_ns: int) -> None:
        for name in names:
            if self._connections.get(feed, {}).pop(name, None) is not None:
                spans = self._outages[name][feed]
                spans.append((max(begin_ns, spans[-1][1]) if spans else begin_ns, MAX_INT64))
                if len(spans) > MAX_SPANS:  # the two oldest as one: a flapping connection is out as good as always
                    spans[:2] = [(spans[0][0], spans[1][1])]


def _intersect(one: list[Span], other: list[Span]) -> list[Span]:
    """Where both are; each ascending and without overlap."""
    found, at = [], 0
    for begin_ns, end_ns in one:
        while at < len(other) and other[at][1] <= begin_ns:
            at += 1
        for other_begin_ns, other_end_ns in other[at:]:
            if other_begin_ns >= end_ns:
                break
            found.append((max(begin_ns, other_begin_ns), min(end_ns, other_end_ns)))
    return found
