"""The judge of a simulated run: what is on disk against what was delivered, by date, symbol and venue.

    deliveries, truth ──┐
                        ├─> judge ─> findings in words, none for a run that kept every promise
    Parquet, events ────┘

Guarantees:
    * It knows nothing of journal, arbitration and publication: it reads the files with pandas, and the trades and books of
      the exchange by their numbers.
    * Every delivery and every stored row is accounted for, Korea's and New York's, each by its own dates and hours.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from simulation.network import Truth
from simulation.plan import FEEDS, ROOMY_RING, TWIN_WINDOW_S, US_FEED
from simulation.processes import to_trade_rows, trades_of
from simulation.world import Delivery, Evidence

from brokers.simulator.exchange.models import Book
from collectorctl.recover.matching.day_coverage import DayCoverage
from collectorctl.recover.matching.gap_filling import TradeList, fill_by_chart, fill_by_trades
from collectorctl.recover.store.day_ticks import load_ticks
from conf.clock import SECOND_NS
from conf.market import KR, US, Market
from ringbuf.records import LEVELS, MAX_INT64, PRICE_SCALE, UNDEFINED, Flag
from writer.journal.reader import read_rows
from writer.volume.gaps import decode_gap_report

WINDOW_NS = round(TWIN_WINDOW_S * SECOND_NS)
LATE_NS = WINDOW_NS - SECOND_NS // 4, 3 * SECOND_NS
"""A feed that is this late may not be known to be: stamps are whole seconds, and the window here is shorter."""
SIDES = ("ask_price", "ask_size", "bid_price", "bid_size")
LEVEL_COLUMNS = [f"{side}_{level}" for side in SIDES for level in range(1, LEVELS + 1)]
REST_COLUMNS = ["total_ask_size", "total_bid_size", "expected_price", "expected_size", "mid_price", "mid_size"]
MAX_SHOWN = 5

Name = tuple[str, str, str]
"""Date, symbol, venue."""
_LOSS = re.compile(r"records (\d+) to (\d+) \((\d+)\)")
_GONE = re.compile(r"the ring is gone with what was unread, from record (\d+) on")


Arrival = tuple[int, str, tuple, int]
"""Of a book: instant, feed, what it says beyond its identity, and how long it waited to be read."""


class Interval(NamedTuple):
    """Shares (low, high] of a day, and what is said of them."""

    low: int
    high: int
    price: int
    side: int
    exch_s: int


def judge(evidence: Evidence) -> list[str]:
    """What is wrong, the kinds that cost data first; empty if nothing is."""
    findings = list(evidence.faults)
    tables = {stream: _read_files(evidence, stream, findings) for stream in ("orderbook", "tick", "event")}
    findings += _find_leftovers(evidence)
    lost, gone = _read_losses(evidence, tables["event"], findings)
    deliveries = [one for one in evidence.deliveries if one.seq not in lost[one.feed, one.record.stream]]
    required = {one for one in deliveries if _is_required(evidence, gone, one)}
    _judge_quarantine(evidence, findings)
    korean = [one for one in deliveries if one.feed != US_FEED]
    books = [one for one in korean if one.record.stream == "orderbook"]
    ticks = [one for one in korean if one.record.stream == "tick"]
    _judge_books(evidence, books, required, tables["orderbook"], findings)
    stored = _judge_ticks(evidence.truth, KR, ticks, required, tables["tick"], findings)
    _judge_us(evidence, [one for one in deliveries if one.feed == US_FEED], required, findings)
    _judge_gap_report(evidence, stored, findings)
    if not any("unreadable" in finding for finding in findings):
        _judge_placement(evidence, findings)
    return findings


def _judge_us(evidence: Evidence, deliveries: list[Delivery], required: set[Delivery], findings: list[str]) -> None:
    """Each book of the one feed in one row, each share in one; by New York's dates and hours."""
    truth = evidence.us_truth
    rows, ticks = (_read_files(evidence, stream, findings, US) for stream in ("orderbook", "tick"))
    certain: Counter[tuple] = Counter()
    possible: Counter[tuple] = Counter()
    stored: Counter[tuple] = Counter()
    for one in deliveries:
        if one.record.stream == "orderbook":
            book = truth.books[one.record.first]
            _, symbol, venue, _, levels = _identity_of(book, one.record.exch_s)
            exch_s, totals = one.record.exch_s, (book.total_ask, book.total_bid)
            key = (_place_of(exch_s, US), symbol, venue, exch_s, levels, totals), one.feed, one.recv_ns
            possible[key] += 1
            certain[key] += one in required
    if len(rows):
        scales = [PRICE_SCALE if "price" in name else 1 for name in LEVEL_COLUMNS]
        levels = (rows[LEVEL_COLUMNS].fillna(0) * scales).round().astype("int64").to_numpy().tolist()
        columns = ["date", "hour", "symbol", "venue", "exch_time", "recv_time", "total_ask_size", "total_bid_size"]
        heads = rows[columns].itertuples(index=False)
        for at, (date, hour, symbol, venue, stamp, received, *totals) in enumerate(heads):
            identity = ((date, hour), symbol, venue, stamp.value // SECOND_NS, tuple(levels[at]), tuple(totals))
            stored[identity, US_FEED, received.value] += 1
    _compare_counters("us book arrivals", certain, possible, stored, findings)
    of_ticks = [one for one in deliveries if one.record.stream == "tick"]
    if len(ticks):
        ticks = ticks.assign(price=(ticks["price"] * PRICE_SCALE).round().astype("int64"))
    _judge_ticks(truth, US, of_ticks, required, ticks, findings)


def _place_of(exch_s: int, market: Market = KR) -> tuple[str, int]:
    """Date and hour of the directory that an exchange second belongs into."""
    at = market.to_local(exch_s * SECOND_NS)
    return f"{at:%Y-%m-%d}", at.hour


def _read_files(evidence: Evidence, stream: str, findings: list[str], market: Market = KR) -> pd.DataFrame:
    """All files of a dataset, as a user reads them, with date and hour of the directory."""
    frames = []
    for path in sorted((evidence.home.data / market.name / stream).rglob("*")):
        if not path.is_file():
            continue
        if path.suffix != ".parquet":
            findings.append(f"{path} was left")
            continue
        try:
            frame = pd.read_parquet(path, partitioning=None)
        except (OSError, ValueError) as error:
            findings.append(f"{path}: unreadable: {error}")
            continue
        frame["date"] = path.parent.parent.name.removeprefix("date=")
        frame["hour"] = int(path.parent.name.removeprefix("hour="))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _find_leftovers(evidence: Evidence) -> list[str]:
    journals = sorted((evidence.home.data / "journal").iterdir())
    found = [
        f"{path.name}: {sum(batch.num_rows for batch in read_rows(path))} rows left in the journal" for path in journals
    ]
    return [line for line in found if ": 0 rows" not in line]


def _read_losses(
    evidence: Evidence, events: pd.DataFrame, findings: list[str]
) -> tuple[defaultdict[tuple[str, str], set[int]], dict[tuple[str, str], int]]:
    """What the writer says it lost: (feed, stream) -> the records; and the first of those that a ring had when it went."""
    lost: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    gone: dict[tuple[str, str], int] = {}
    if not len(events):
        findings.append("no event was stored")
        return lost, gone
    losses = events[events["kind"] == "ring_loss"]
    for feed, stream, value, message in losses[["line", "stream", "value", "message"]].itertuples(index=False):
        if not isinstance(stream, str):
            continue  # events
        if match := _GONE.match(message):
            gone[feed, stream] = min(int(match[1]), gone.get((feed, stream), MAX_INT64))
            continue
        match = _LOSS.match(message)
        if match is None:
            findings.append(f"a loss that names no records: {feed} {stream} {message}")
            continue
        first, last, count = map(int, match.groups())
        if not count == value == last - first + 1:
            findings.append(f"a loss with two numbers: {message}, value {value}")
        limit = evidence.claims[feed, stream] - evidence.plan.ring_capacity
        if last > limit and evidence.plan.ring_capacity < ROOMY_RING:
            findings.append(f"{feed}.{stream}: {message}: only records up to {limit} can have been")
        lost[feed, stream].update(range(first, last + 1))
    return lost, gone


def _is_required(evidence: Evidence, gone: dict[tuple[str, str], int], delivery: Delivery) -> bool:
    """Whether it must be stored.

    A power cut takes what was not durable yet, a flipped bit its batch; a ring that is gone takes what the writer says it had.
    """
    name = delivery.feed, delivery.record.stream
    is_durable = delivery.seq <= evidence.durable.get((*name, delivery.ring_id), delivery.seq)
    is_gone = delivery.ring_id != evidence.rings[name] and delivery.seq >= gone.get(name, MAX_INT64)
    return (
        is_durable and not is_gone and f"{US.name if name[0] == US_FEED else KR.name}.{name[1]}" not in evidence.flipped
    )


def _judge_quarantine(evidence: Evidence, findings: list[str]) -> None:
    """Every frame that nobody can decode is kept."""
    for feed, count in evidence.garbled.items():
        paths = sorted((evidence.home.data / "quarantine").rglob(f"{feed}.jsonl"))
        kept = sum(len(path.read_bytes().splitlines()) for path in paths)
        if kept != count:
            findings.append(f"{count} frames of {feed} could not be decoded, {kept} are in quarantine")


def _judge_books(
    evidence: Evidence,
    deliveries: list[Delivery],
    required: set[Delivery],
    rows: pd.DataFrame,
    findings: list[str],
) -> None:
    """Each arrival of each feed in one row; equal contents within the window in one; every row a book that was delivered."""
    possible: Counter[tuple] = Counter()
    certain: Counter[tuple] = Counter()
    certain_of: defaultdict[tuple, Counter[str]] = defaultdict(Counter)
    contents: set[tuple] = set()
    when: defaultdict[tuple, list[Arrival]] = defaultdict(list)
    for one in deliveries:
        book = evidence.truth.books[one.record.first]
        identity = _identity_of(book, one.record.exch_s)
        possible[identity, one.feed, one.recv_ns] += 1
        if one in required:
            certain[identity, one.feed, one.recv_ns] += 1
            certain_of[identity][one.feed] += 1
        contents.add((identity, _rest_of(book), one.record.exch_s))
        when[identity].append((one.arrived_ns, one.feed, _rest_of(book), one.waited_ns))
    stored: Counter[tuple] = Counter()
    counts: Counter[tuple] = Counter()
    if len(rows):
        received = {feed: rows[f"recv_time_{feed}"] for feed in FEEDS}
        present = {feed: column.notna().to_numpy() for feed, column in received.items()}
        instants = {feed: column.astype("int64").to_numpy() for feed, column in received.items()}
        levels = rows[LEVEL_COLUMNS].fillna(0).astype("int64").to_numpy().tolist()
        rests = rows[REST_COLUMNS].fillna(0).astype("int64").to_numpy().tolist()
        heads = rows[["date", "hour", "symbol", "venue", "cum_volume", "exch_time"]].itertuples(index=False)
        for at, (date, hour, symbol, venue, volume, stamp) in enumerate(heads):
            exch_s = stamp.value // SECOND_NS
            identity = (date, symbol, venue, volume, tuple(levels[at]))
            if _place_of(exch_s) != (date, hour):
                findings.append(f"a book of {stamp} in {date} hour {hour}")
            if (identity, tuple(rests[at]), exch_s) not in contents:
                findings.append(f"a book that nobody delivered: {date} {symbol} {venue} {volume} {stamp}")
            counts[identity] += 1
            for feed in FEEDS:
                if present[feed][at]:
                    stored[identity, feed, int(instants[feed][at])] += 1
    _compare_counters("book arrivals", certain, possible, stored, findings)
    for identity in sorted(set(when) | set(counts)):
        low, high = max(certain_of[identity].values(), default=0), _max_rows(when[identity])
        if not low <= counts[identity] <= high:
            kind, arrivals = "missing" if counts[identity] < low else "doubled", sorted(when[identity])
            findings.append(
                f"book {kind}: {identity[:4]}: {counts[identity]} rows, {low} to {high} were expected; arrivals {arrivals}"
            )


def _max_rows(arrivals: list[Arrival]) -> int:
    """The most rows that first-wins may make of one content that arrived at these instants.

    Books that differ in the rest are two; one feed may have left out one of them, and repeated the other.
    """
    high = 0
    cluster: list[Arrival] = []
    for one in [*sorted(arrivals), None]:
        # a poll or two pass between arrival and receipt
        if one is None or (cluster and one[0] - cluster[-1][0] > WINDOW_NS - SECOND_NS // 4):
            of_feed = Counter((rest, feed) for _, feed, rest, _ in cluster)
            is_short = not cluster or cluster[-1][0] - cluster[0][0] <= WINDOW_NS - SECOND_NS // 4
            if max(of_feed.values(), default=0) > 1 and any(
                LATE_NS[0] < waited_ns < LATE_NS[1] for *_, waited_ns in cluster
            ):
                is_short = (
                    False  # it came back while a feed was beyond the window and not known to be late (docs/delivery.md)
                )
            rests = {rest for rest, _ in of_feed}
            each = (max(of_feed[rest, feed] for feed in FEEDS) for rest in rests)
            high += sum(each) if is_short else of_feed.total()
            cluster = []
        if one is not None:
            cluster.append(one)
    return high


def _identity_of(book: Book, exch_s: int) -> tuple:
    levels = (*book.ask_price, *book.ask_size, *book.bid_price, *book.bid_size)
    return (_place_of(exch_s)[0], *book.instrument, book.cum_volume, levels)


def _rest_of(book: Book) -> tuple:
    return (
        book.total_ask,
        book.total_bid,
        book.expected_price,
        book.expected_size,
        book.mid_price,
        book.mid_size,
    )


def _judge_ticks(
    truth: Truth,
    market: Market,
    deliveries: list[Delivery],
    required: set[Delivery],
    rows: pd.DataFrame,
    findings: list[str],
) -> dict[Name, list[Interval]]:
    """Every share that was delivered in exactly one row, and no row that is neither a delivery nor a trade that was fetched."""
    trades = truth.trades
    delivered: defaultdict[tuple[str, int], list[tuple[Name, Interval]]] = defaultdict(list)
    wanted: defaultdict[Name, list[Interval]] = defaultdict(list)
    for one in deliveries:
        first, last = trades[one.record.first], trades[one.record.last]
        name = (_place_of(one.record.exch_s, market)[0], *last.instrument)
        high = last.day.cum_volume
        interval = Interval(
            first.day.cum_volume - first.size, high, last.price, last.side if market is KR else 0, one.record.exch_s
        )
        delivered[one.feed, one.seq].append((name, interval))
        if one in required:
            wanted[name].append(interval)
    real = {
        (
            (_place_of(trade.exch_s, market)[0], *trade.instrument),
            Interval(trade.day.cum_volume - trade.size, trade.day.cum_volume, trade.price, trade.side, trade.exch_s),
        )
        for trade in trades.values()
    }
    stored: defaultdict[Name, list[Interval]] = defaultdict(list)
    columns = [
        "date",
        "hour",
        "symbol",
        "venue",
        "cum_volume",
        "size",
        "price",
        "side",
        "exch_time",
        "source",
        "broker",
        "seq",
        "flags",
    ]
    for date, hour, symbol, venue, volume, size, price, side, stamp, source, broker, seq, flags in (
        rows[columns].itertuples(index=False) if len(rows) else ()
    ):
        exch_s = stamp.value // SECOND_NS
        name = (date, symbol, venue)
        interval = Interval(volume - size, volume, price, side if market is KR else 0, exch_s)
        stored[name].append(interval)
        if _place_of(exch_s, market) != (date, hour):
            findings.append(f"a tick of {stamp} in {date} hour {hour}")
        if source == "recovered":
            if (name, interval) not in real:
                findings.append(f"a fetched tick that was no trade: {name} {interval}")
        elif not any(
            (name, interval) == one or (flags & Flag.SPLIT and one[0] == name and _is_piece(interval, one[1]))
            for one in delivered[broker, int(seq)]
        ):
            findings.append(f"a tick that nobody delivered: {name} {interval} of {broker} {seq}")
        if flags & Flag.CONFLICT:
            findings.append(f"a tick is flagged CONFLICT: {name} {interval}")
    for name in sorted(set(wanted) | set(stored)):
        mine = sorted(stored[name])
        for one, other in pairwise(mine):
            if other.low < one.high:
                findings.append(f"shares in two rows: {name} {one} and {other}")
        for interval in sorted(set(wanted[name])):
            if missing := _uncovered(mine, interval.low, interval.high):
                findings.append(f"delivered shares in no row: {name} {interval} lacks {missing}")
    return stored


def _is_piece(piece: Interval, whole: Interval) -> bool:
    """Whether it is some of the shares of a delivery, and says the same of them."""
    return whole.low <= piece.low < piece.high <= whole.high and piece == whole._replace(low=piece.low, high=piece.high)


def _judge_placement(evidence: Evidence, findings: list[str]) -> None:
    """After the close: the broker's list of trades fills each day of each instrument, with nothing but what is missing."""
    days = {(one.instrument, KR.to_local(one.exch_s * SECOND_NS).date()) for one in evidence.truth.trades.values()}
    for instrument, day in sorted(days):
        trades = trades_of(evidence.truth, instrument, day)
        total = trades[-1].day.cum_volume
        ticks = load_ticks(evidence.home.data / "kr" / "tick", day, instrument)
        stored = DayCoverage.of(ticks, total)
        listed = to_trade_rows(trades)
        filled = fill_by_trades(stored, [TradeList(listed, True, True)], instrument.venue)
        missing = int(stored.gaps["shares"].sum())
        if int(filled.trades["size"].sum()) != missing or len(filled.day.gaps) or filled.findings:
            findings.append(
                f"{instrument} {day}: {missing} of {total} shares are missing, recovery places "
                f"{int(filled.trades['size'].sum())}: {filled.findings[:2]}"
            )
        charted = listed.copy()
        charted["cum_volume"] = UNDEFINED
        known = set(map(tuple, listed[["exch_ns", "price", "size", "cum_volume"]].tolist()))
        aligned = fill_by_chart(stored, charted, [], True, instrument.venue).trades
        if not known.issuperset(map(tuple, aligned[["exch_ns", "price", "size", "cum_volume"]].tolist())):
            findings.append(f"{instrument} {day}: a trade of the tick chart was put where it did not happen")


def _uncovered(intervals: Iterable[Interval], low: int, high: int) -> int:
    """Shares of (low, high] that no interval covers; they are ascending and do not overlap much."""
    mine = list(intervals)
    at = max(0, bisect_left([one.low for one in mine], low) - 1)
    reached, missing = low, 0
    for one in mine[at:]:
        if one.low >= high:
            break
        missing += max(0, min(one.low, high) - reached)
        reached = max(reached, min(one.high, high))
    return missing + max(0, high - reached)


def _judge_gap_report(evidence: Evidence, stored: dict[Name, list[Interval]], findings: list[str]) -> None:
    """The writer's own account of the newest day says exactly what its rows lack."""
    has_failed_sync = any("disk sync fails" in line for line in evidence.history)
    if evidence.durable or evidence.flipped or has_failed_sync:
        return  # journal and report may not meet: it begins empty, and says since when
    path: Path = evidence.home.gap_report_path("kr")
    report = decode_gap_report(path.read_bytes()) if path.exists() else None
    if report is None:
        findings.append("no gap report")
        return
    for symbol in report.newest_day():
        mine = sorted(stored[symbol.day, symbol.symbol, symbol.venue])
        top = max((one.high for one in mine), default=0)
        lacks = _uncovered(mine, 0, top)
        if (symbol.volume, symbol.gap_shares + symbol.before_start) != (top, lacks):
            findings.append(
                f"the gap report of {symbol.symbol} {symbol.venue} says {symbol.gap_shares} + {symbol.before_start} shares up to "
                f"{symbol.volume} are missing, the rows lack {lacks} up to {top}"
            )


def _compare_counters(
    what: str, certain: Counter[tuple], possible: Counter[tuple], found: Counter[tuple], findings: list[str]
) -> None:
    for word, difference in (("not stored", certain - found), ("stored and never delivered", found - possible)):
        if difference:
            shown = [(*identity[:4], *rest) for identity, *rest in sorted(difference)[:MAX_SHOWN]]
            findings.append(f"{difference.total()} {what} {word}: {shown}")
