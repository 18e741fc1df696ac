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
    * A frame that the vendor never sent is no event: see gaps and the dataset feed_health.
    * Sessions: a span outside them is a span.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from conf.clock import HOUR_NS
from ringbuf.records import STREAM_NAMES, UNDEFINED, EventType, FeedId, Venue

KEEP_NS = 36 * HOUR_NS
"""How long an incident is kept: a trading day, wherever its midnight is."""

MAX_INCIDENTS = 400
MAX_RECENT = 20

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
        self.incidents: list[Incident] = []
        self.recent: deque[Incident] = deque(maxlen=MAX_RECENT)
        """The newest events but acknowledgements, whatever they mean; `end_ns`: when."""
        self._visible: dict[str, dict[Instrument, int]] = {}
        self._blind_since: dict[Instrument, int] = {}
        self._blind: list[tuple[int, int, Instrument]] = []

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
        spans: dict[tuple[int, int | None], list[str]] = {}
        open_spans = [(begin_ns, None, name) for name, begin_ns in self._blind_since.items()]
        for begin_ns, end_ns, name in (*self._blind, *open_spans):
            spans.setdefault((begin_ns, end_ns), []).append(" ".join(name))
        return [BlindSpan(*key, sorted(names)) for key, names in sorted(spans.items(), key=lambda item: item[0][0])]

    def expire(self, now_ns: int) -> None:
        """Forget what ended more than KEEP_NS ago."""
        oldest_ns = now_ns - KEEP_NS
        self.incidents = [one for one in self.incidents if one.end_ns is None or one.end_ns >= oldest_ns]
        self._blind = [span for span in self._blind if span[1] >= oldest_ns]

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
            visible = self._visible.get(feed, {})
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
            self._lose_sight(feed, list(self._visible.get(feed, {})), begin_ns)
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
        self._visible.setdefault(feed, {})[name] = connection
        begin_ns = self._blind_since.pop(name, None)
        if begin_ns is not None:
            self._blind.append((begin_ns, time_ns, name))

    def _lose_sight(self, feed: str, names: list[Instrument], begin_ns: int) -> None:
        visible = self._visible.get(feed, {})
        for name in names:
            was_visible = visible.pop(name, None) is not None
            if was_visible and not any(name in other for other in self._visible.values()):
                self._blind_since[name] = begin_ns
