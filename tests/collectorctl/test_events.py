"""The event dataset of a day in which things happened: what is in it, once, and what can be asked of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tree import a_home, collectorctl, status, until

from collectorctl.demo.stage import Simulator, connect_home
from collectorctl.explain.sight import blind

SETTINGS = """
[universe]
kr = ["005930", "000660", "0074K0"]
[clock]
start = "2026-11-20T09:55:00+09:00"
speed = 300.0
[kis]
register_spacing_ms = 20
[feed]
backoff_first_s = 0.2
backoff_most_s = 0.5
[writer]
grace_s = 5.5
"""


@pytest.fixture(scope="module")
def day() -> Iterator[Path]:
    """A home in which kis, then everybody at once was killed, kiwoom was cut off, and all was stopped."""
    with a_home(SETTINGS) as root, Simulator(root, root / "truth") as simulator:
        connect_home(root, simulator.addresses)
        collectorctl(root, "start")
        for names in (["kis"], ["kis", "kiwoom", "writer"]):
            time.sleep(1.5)
            for name in names:
                kill(root, name)
            until("all are back", lambda: status(root)["healthy"], 60)
        simulator.tell("kiwoom outage 1.5")
        time.sleep(2)
        until("all are back", lambda: status(root)["healthy"], 60)
        time.sleep(1.5)
        collectorctl(root, "stop")
        yield root


def kill(root: Path, name: str) -> None:
    """SIGKILL, and wait until another process has the name."""
    old = status(root)["processes"][name]["pid"]
    os.kill(old, signal.SIGKILL)
    until(f"a new {name}", lambda: status(root)["processes"][name]["pid"] not in (0, old), 60)


def events_of(root: Path) -> pd.DataFrame:
    """As a user reads them."""
    return pd.read_parquet(root / "data" / "kr" / "event")


def test_events_are_stored_once_across_kills_of_everybody(day: Path) -> None:
    """Each line's numbers are 1, 2, 3 ... to its last, and everything that happened to it is there."""
    events = events_of(day)
    kinds = events.groupby(["line", "kind"]).size()

    for line, rows in events.groupby("line"):
        assert sorted(rows.seq) == list(range(1, len(rows) + 1)), line
    for line in ("kis", "kiwoom", "writer"):
        assert (kinds[line, "started"], kinds[line, "stopped"]) == (3 if line == "kis" else 2, 1)
    assert events[events.kind == "started"].since.notna().sum() == 4  # of seven lives three are the first
    cut = events[(events.kind == "disconnected") & (events.line == "kiwoom")]
    assert len(cut) == 2 and (cut.since <= cut.time).all()
    assert {"connected", "acknowledged"} <= set(events[events.line == "kiwoom"].kind)
    assert events.time.dt.tz is not None and events.since.dt.tz is not None
    assert list(day.glob("data/journal/kr.event/*.arrows")) != []
    assert events[events.line == "writer"].symbol.isna().all()


def test_nothing_was_received_while_the_events_call_a_line_blind(day: Path) -> None:
    """For each line: as many spans as it lost its sight, no arrival inside them, arrivals between them."""
    events = events_of(day)
    books = pd.read_parquet(day / "data" / "kr" / "orderbook")

    for line, spans_expected in (("kis", 3), ("kiwoom", 3)):
        arrivals = books.loc[books.symbol == "005930", f"recv_time_{line}"].dropna().sort_values()
        spans = blind(events, line, "005930", "orderbook")
        first, *lost, after = spans
        assert (pd.isna(first.begin), pd.isna(after.end), after.why) == (True, True, "disconnected: asked to stop")
        assert len(lost) == spans_expected - 1, spans
        for span in lost:
            inside = arrivals[(arrivals > span.begin) & (arrivals < span.end)]
            # a book may come before the vendor's acknowledgement of its registration does
            assert inside.empty or (span.end - inside.min()) < pd.Timedelta(seconds=0.5 * 300), (span, inside)
        for before, span in pairwise(spans):
            assert ((arrivals >= before.end) & (arrivals <= span.begin)).any(), (before, span)


TIME = pd.Timestamp("2026-11-20 10:00", tz="Asia/Seoul")


def rows(*events: tuple) -> pd.DataFrame:
    """Events as (seconds, kind, connection, symbol, since seconds)."""
    made = [
        {
            "time": TIME + pd.Timedelta(seconds=at),
            "line": "kis",
            "kind": kind,
            "symbol": symbol,
            "venue": symbol and "KRX",
            "stream": symbol and "tick",
            "connection": connection,
            "since": pd.NaT if since is None else TIME + pd.Timedelta(seconds=since),
            "words": None,
            "seq": seq,
        }
        for seq, (at, kind, connection, symbol, since) in enumerate(events)
    ]
    return pd.DataFrame(made)


def seconds(spans: list) -> list[tuple]:
    """Spans as seconds, None for open ends."""
    return [tuple(None if pd.isna(t) else (t - TIME).total_seconds() for t in span[:2]) for span in spans]


def test_sight_begins_with_an_answer_and_ends_where_its_connection_ended() -> None:
    """Another connection's end is nothing; `since` counts, not when it was noticed; a second answer changes nothing."""
    events = rows(
        (0, "started", 0, None, None),
        (1, "acknowledged", 1, "A", None),
        (2, "acknowledged", 1, "A", None),
        (3, "disconnected", 2, None, 2),
        (5, "disconnected", 1, None, 4),
        (6, "acknowledged", 2, "B", None),
        (7, "acknowledged", 2, "A", None),
        (9, "started", 0, None, 8),
        (10, "acknowledged", 1, "A", None),
        (11, "resubscribed", 1, "B", None),
        (12, "resubscribed", 1, "A", None),
    )

    assert seconds(blind(events, "kis", "A", "tick")) == [(None, 1), (4, 7), (8, 10), (12, None)]
    assert seconds(blind(events, "kis", "B", "tick")) == [(None, 6), (8, None)]
    assert seconds(blind(events, "kiwoom", "A", "tick")) == [(None, None)]


def test_a_loss_in_the_ring_is_a_span_of_its_own() -> None:
    """The line saw it, the writer did not: only that stream."""
    events = rows((0, "acknowledged", 1, "A", None), (9, "ring_loss", 0, "A", 7))

    assert seconds(blind(events, "kis", "A", "tick")) == [(None, 0), (7, 9), (0, None)][:2]
    assert seconds(blind(events.assign(stream="orderbook"), "kis", "A", "tick")) == [(None, None)]


@given(st.lists(st.tuples(st.sampled_from(["acknowledged", "disconnected", "stopped", "started"]), st.integers(1, 2))))
def test_spans_follow_each_other(told: list[tuple[str, int]]) -> None:
    """Whatever is told: spans are in order, do not overlap, and only the first begins and only the last ends nowhere."""
    made = [(at, kind, number, "A" if kind == "acknowledged" else None, None) for at, (kind, number) in enumerate(told)]

    spans = seconds(blind(rows(*made), "kis", "A", "tick")) if made else []

    flat = [edge for span in spans for edge in span]
    assert None not in flat[1:-1]
    assert flat[1:-1] == sorted(flat[1:-1])
