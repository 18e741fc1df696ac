"""A day in which things happened: its events, each once, when a line was blind, and what became of a row (`explain`)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import msgspec
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from support.process_tree import run_collectorctl, temporary_home, wait_until

from collectorctl.cli import main
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.explain.visibility import find_outages
from collectorctl.supervision.status import collect_status
from conf.contracts import CONTRACTS
from conf.home import Home
from conf.instrument import Instrument

SETTINGS = """
[universe]
kr = ["005930", "000660", "0074K0"]
[clock]
start = "2026-11-20T09:55:00+09:00"
speed = 300.0
[kis]
subscribe_spacing_ms = 20
[feed]
backoff_first_s = 0.2
backoff_max_s = 0.5
[gapfill]
enabled = false
[writer]
grace_s = 5.5
"""


@pytest.fixture(scope="module")
def day() -> Iterator[Path]:
    """A home in which kis, then everybody at once was killed, kiwoom was cut off, and all was stopped."""
    with temporary_home(SETTINGS) as root, SimulatorProcess(root, root / "truth") as simulator:
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        for names in (["kis"], ["kis", "kiwoom", "writer"]):
            time.sleep(1.5)
            for name in names:
                kill(root, name)
            wait_until("all are back", lambda: collect_status(Home(root)).healthy, 60)
        simulator.send_command("kiwoom outage 1.5")
        time.sleep(2)
        wait_until("all are back", lambda: collect_status(Home(root)).healthy, 60)
        time.sleep(1.5)
        newest = msgspec.json.decode(run_collectorctl(root, "tail", "orderbook", "-n", "1", "--json").stdout)
        told = run_collectorctl(
            root, "explain", newest["symbol"], newest["exch_time"], "--json", "--window", "600"
        ).stdout
        (root / "open-hour.json").write_text(msgspec.json.encode([newest, msgspec.json.decode(told)]).decode())
        run_collectorctl(root, "stop")
        yield root


def kill(root: Path, name: str) -> None:
    """SIGKILL, and wait until another process has the name."""
    old = pid(root, name)
    os.kill(old, signal.SIGKILL)
    wait_until(f"a new {name}", lambda: pid(root, name) not in (0, old), 60)


def pid(root: Path, name: str) -> int:
    """A process's id, 0 while there is none."""
    return next(process.pid for process in collect_status(Home(root)).processes if process.name == name)


def events_of(root: Path) -> pd.DataFrame:
    """As a user reads them."""
    return pd.read_parquet(root / "data" / "kr" / "event")


def test_every_file_of_a_home_has_a_contract(day: Path) -> None:
    """What processes share has a named writer, reader and content; files that vanish with their process are not left."""
    found = [path.relative_to(day) for path in day.rglob("*") if path.is_file()]
    found += [Path("run/ring") / path.name for path in (day / "run" / "ring").iterdir()]
    own = {"truth", "simulator.err", "open-hour.json"}

    unknown = [
        path.as_posix()
        for path in found
        if path.parts[0] not in own and not any(contract.matches(path) for contract in CONTRACTS)
    ]

    assert unknown == []
    for contract in CONTRACTS:
        module, _, attribute = contract.content.partition(":")
        assert hasattr(import_module(module), attribute), contract.content


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
    assert list(day.glob("data/journal/kr.event/*.journal")) != []
    assert events[events.line == "writer"].symbol.isna().all()


def test_nothing_was_received_while_the_events_call_a_line_blind(day: Path) -> None:
    """For each line: as many spans as it lost its sight, no arrival inside them, arrivals between them."""
    events = events_of(day)
    books = pd.read_parquet(day / "data" / "kr" / "orderbook")

    for line, spans_expected in (("kis", 3), ("kiwoom", 3)):
        arrivals = books.loc[books.symbol == "005930", f"recv_time_{line}"].dropna().sort_values()
        spans = find_outages(events, line, "005930", "orderbook")
        first, *lost, after = spans
        assert (pd.isna(first.begin), pd.isna(after.end), after.reason) == (True, True, "disconnected: asked to stop")
        assert len(lost) == spans_expected - 1, spans
        for span in lost:
            inside = arrivals[(arrivals > span.begin) & (arrivals < span.end)]
            # a book may come before the vendor's acknowledgement of its registration does
            assert inside.empty or (span.end - inside.min()) < pd.Timedelta(seconds=0.5 * 300), (span, inside)
        for before, span in pairwise(spans):
            assert ((arrivals >= before.end) & (arrivals <= span.begin)).any(), (before, span)


def explained(root: Path, symbol: str, at: pd.Timestamp, window_s: float = 1.0) -> dict:
    """What `explain` says."""
    return msgspec.json.decode(said(root, symbol, at.isoformat(), "--json", "--window", str(window_s)).stdout)


def said(root: Path, *words: str) -> Result:
    """`collectorctl explain`, in this process."""
    return CliRunner().invoke(main, ["--home", str(root), "explain", *words])


def test_a_stored_row_is_explained_by_both_arrivals_and_the_place_it_has(day: Path) -> None:
    """Who won and by how much real time; the file and row named have just this book."""
    books = pd.read_parquet(day / "data" / "kr" / "orderbook")
    both = books[books.recv_time_kis.notna() & books.recv_time_kiwoom.notna() & (books.symbol == "005930")]
    row = both.iloc[len(both) // 2]

    moment = explained(day, "005930", row.exch_time)

    mine = [
        book
        for book in moment["books"]
        if pd.Timestamp(book["arrivals"]["kis"]) == row.recv_time_kis
        and book["content"]["cum_volume"] == row.cum_volume
    ]
    assert len(mine) == 1
    lag_ms = abs((row.recv_time_kiwoom - row.recv_time_kis).total_seconds()) * 1000 / 300
    other = {"kis": "kiwoom", "kiwoom": "kis"}[row.broker]
    assert mine[0]["reason"].startswith(f"{row.broker} was first, {other} ")
    assert abs(float(mine[0]["reason"].split()[4]) - lag_ms) < 0.1
    placed = pq.ParquetFile(day / "data" / mine[0]["file"]).read().slice(mine[0]["row"], 1).to_pylist()[0]
    assert (placed["symbol"], placed["cum_volume"], placed["seq"]) == ("005930", row.cum_volume, row.seq)
    near = books[(books.symbol == "005930") & (abs(books.exch_time - row.exch_time) <= pd.Timedelta(seconds=1))]
    assert len(moment["books"]) >= len(near) > 0
    assert len({(book["file"], book["row"]) for book in moment["books"]}) == len(moment["books"])


def test_why_rows_of_equal_levels_are_one_book_or_two_is_told(day: Path) -> None:
    """Both arrivals of a row; of a row whose levels and volume an earlier one has, that row and what keeps them apart."""
    books = pd.read_parquet(day / "data" / "kr" / "orderbook")
    books = books.assign(first=books[["recv_time_kis", "recv_time_kiwoom"]].min(axis=1)).sort_values("first")
    levels = [name for name in books if name.startswith(("ask_", "bid_"))]
    again = books[books.duplicated(["symbol", "venue", *levels, "cum_volume"])]
    assert len(again)  # of some instrument: of a single one a short day may have none
    row = again.iloc[len(again) // 2]
    symbol = str(Instrument(row.symbol, row.venue))

    moment = explained(day, symbol, row["first"], 60)

    (mine,) = [book for book in moment["books"] if min(map(pd.Timestamp, book["arrivals"].values())) == row["first"]]
    assert any(sentence.startswith("one book: ") for sentence in mine["pairing"]) is (len(mine["arrivals"]) == 2)
    (apart,) = [sentence for sentence in mine["pairing"] if sentence.startswith("not one book with ")]
    assert "equal levels: " in apart
    assert mine["remarks"][-1] == apart
    assert apart.partition(", ")[2] in said(day, symbol, row["first"].isoformat(), "--window", "60").stdout


def test_a_row_that_only_one_line_had_is_explained_by_the_others_sight(day: Path) -> None:
    """While kiwoom was cut off: blind, since when, until when, why; the event that says so is told with it."""
    _, cut, _ = find_outages(events_of(day), "kiwoom", "005930", "orderbook")[-3:]
    assert cut.reason.startswith("disconnected")
    books = pd.read_parquet(day / "data" / "kr" / "orderbook")
    alone = books[(books.symbol == "005930") & (books.recv_time_kis > cut.begin) & (books.recv_time_kis < cut.end)]
    row = alone.iloc[len(alone) // 2]

    moment = explained(day, "005930", row.recv_time_kis)

    whys = {book["reason"] for book in moment["books"]}
    assert f"only kis: kiwoom had an outage ({cut.reason})" in whys
    sight = {(seen["feed"], seen["stream"]): seen for seen in moment["visibility"]}
    assert sight["kis", "orderbook"]["visible"] and not sight["kiwoom", "orderbook"]["visible"]
    assert pd.Timestamp(sight["kiwoom", "orderbook"]["begin"]) == cut.begin
    assert any((event["line"], event["kind"]) == ("kiwoom", "disconnected") for event in moment["events"])
    text = said(day, "005930", row.recv_time_kis.isoformat()).stdout
    assert "kiwoom OUTAGE of orderbooks" in text and f"only kis: kiwoom had an outage ({cut.reason})" in text


def test_a_gap_that_a_death_left_is_told_around_it(day: Path) -> None:
    """Ticks that nobody had while everybody was dead, between the ticks on both sides, whatever the instrument."""
    ticks = pd.read_parquet(day / "data" / "kr" / "tick").sort_values("cum_volume")
    dead = events_of(day).query("kind == 'started' and line == 'kis'").iloc[-1]
    found = 0
    for symbol, own in ticks.groupby("symbol"):
        low, high = own.cum_volume.to_numpy()[:-1], (own.cum_volume - own["size"]).to_numpy()[1:]
        open_ = {(int(a), int(b)) for a, b in zip(low[high > low], high[high > low], strict=True)}

        gaps = explained(day, symbol, dead.since + (dead.time - dead.since) / 2, 60)["gaps"]

        assert {(gap["low"], gap["high"]) for gap in gaps} <= open_
        assert all(gap["shares"] == gap["high"] - gap["low"] for gap in gaps)
        found += len(gaps)
    assert found > 0


def test_the_open_hour_is_explained_out_of_the_journal(day: Path) -> None:
    """Not yet published: the row's number in the journal, both arrivals as soon as they are in."""
    newest, moment = msgspec.json.decode((day / "open-hour.json").read_bytes())

    places = {(book["file"], book["row"]) for book in moment["books"]}
    assert ("journal", newest["row"]) in places
    assert any(len(book["arrivals"]) == 2 for book in moment["books"])


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("5930", "09:31"), "is not an instrument"),
        (("005930", "half past nine"), "is no time: write 09:31:05 or 2026-11-20T09:31:05"),
    ],
)
def test_a_question_that_cannot_be_meant_is_answered_with_the_form(
    day: Path, words: tuple[str, str], answer: str
) -> None:
    """Exit 2."""
    ran = said(day, *words)

    assert ran.exit_code == 2 and answer in ran.output


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
            "message": None,
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

    assert seconds(find_outages(events, "kis", "A", "tick")) == [(None, 1), (4, 7), (8, 10), (12, None)]
    assert seconds(find_outages(events, "kis", "B", "tick")) == [(None, 6), (8, None)]
    assert seconds(find_outages(events, "kiwoom", "A", "tick")) == [(None, None)]


def test_a_loss_in_the_ring_is_a_span_of_its_own() -> None:
    """The line saw it, the writer did not: only that stream."""
    events = rows((0, "acknowledged", 1, "A", None), (9, "ring_loss", 0, "A", 7))

    assert seconds(find_outages(events, "kis", "A", "tick")) == [(None, 0), (7, 9), (0, None)][:2]
    assert seconds(find_outages(events.assign(stream="orderbook"), "kis", "A", "tick")) == [(None, None)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["acknowledged", "disconnected", "stopped", "started"]), st.integers(1, 2))))
def test_spans_follow_each_other(told: list[tuple[str, int]]) -> None:
    """Whatever is told: spans are in order, do not overlap, and only the first begins and only the last ends nowhere."""
    made = [(at, kind, number, "A" if kind == "acknowledged" else None, None) for at, (kind, number) in enumerate(told)]

    spans = seconds(find_outages(rows(*made), "kis", "A", "tick")) if made else []

    flat = [edge for span in spans for edge in span]
    assert None not in flat[1:-1]
    assert flat[1:-1] == sorted(flat[1:-1])
