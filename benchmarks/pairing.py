"""Which books of two feeds are paired, missed and doubled, judged by the truth: `python -m benchmarks.pairing`.

    simulated market, speed 1 ──book ids──> two feeds of each kind of lines ──> BookArbiter ──> pairs with two ids

One in twenty books is followed by one that differs in the midpoint's size alone, one in a hundred is A, B, A. Lags are those of the
simulator. Missed and doubled: contents stored less or more often than at least one feed delivered them; wrong: rows with the
arrivals of two different books. All are shares of the available books. CPU is that of the arbiter alone.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import NamedTuple

import numpy as np

from brokers.simulator.exchange.market import SimulatedMarket
from brokers.simulator.exchange.models import MarketUpdate
from conf.clock import SECOND_NS
from conf.instrument import parse_instrument
from ringbuf.records import ORDERBOOK, UNDEFINED, FeedId, Venue, empty_records
from writer import schema
from writer.ingest.arbitration_result import NEW
from writer.ingest.book_arbiter import BookArbiter

NINE_NS = 1_795_132_800_000_000_000
FEEDS = (FeedId.KIS, FeedId.KIWOOM)
BATCH_NS = SECOND_NS // 20
BOOT_NS = 1_000 * SECOND_NS


class Line(NamedTuple):
    """One feed: seconds, shares, and what its vendor does to `mid_size`: absent, rounded, late (a book behind), "" for nothing."""

    latency_s: float = 0.015
    jitter_s: float = 0.010
    loss: float = 0.0
    flush_s: float = 0.0
    books_per_s: float = 0.0
    midpoint: str = ""
    midpoint_from: float = 0.0
    stalls: tuple[tuple[float, float], ...] = ()
    stalled_share: float = 1.0
    stamps_ahead: float = 0.0


KIS = Line()
KIWOOM = Line(0.040, 0.015, flush_s=0.1)
HICCUPS = tuple((20.0 + 7.0 * n, 0.3 + 0.17 * (n % 11)) for n in range(200))

LINES: dict[str, tuple[Line, Line]] = {
    "as in the demo": (KIS._replace(loss=0.001), KIWOOM._replace(loss=0.001, books_per_s=4.0)),
    "clean": (KIS, KIWOOM),
    "one loses 10 %": (KIS, KIWOOM._replace(loss=0.1)),
    "both conflate": (KIS._replace(books_per_s=4.0), KIWOOM._replace(books_per_s=4.0)),
    "one is 0.9 s behind": (KIS, KIWOOM._replace(latency_s=0.94)),
    "one lacks the midpoint": (KIS, KIWOOM._replace(midpoint="absent")),
    "one rounds the midpoint": (KIS, KIWOOM._replace(midpoint="rounded")),
    "one stamps the midpoint late": (KIS, KIWOOM._replace(midpoint="late")),
    "one begins to stamp it late": (KIS, KIWOOM._replace(midpoint="late", midpoint_from=0.5)),
    "mixed faults": (
        KIS._replace(loss=0.02, stamps_ahead=0.3),
        KIWOOM._replace(loss=0.02, books_per_s=4.0, midpoint="late", stalls=HICCUPS[:12]),
    ),
    "a stall of 13 s": (KIS, KIWOOM._replace(stalls=((60.0, 13.0),))),
    "hiccups of 0.3 to 2 s": (KIS, KIWOOM._replace(stalls=HICCUPS)),
    "one connection is 1.5 s late": (KIS, KIWOOM._replace(stalls=((60.0, 1.5), (90.0, 1.5)), stalled_share=0.5)),
}


def play_market(seconds: float, symbols: int, rate: float, seed: int) -> list[MarketUpdate]:
    """What a simulated market does from nine o'clock on, `rate` events a second of each symbol, in order."""
    random, instruments = Random(seed), [parse_instrument(f"{100_000 + 10 * n}") for n in range(symbols)]
    market = SimulatedMarket(instruments, seed)
    due = sorted(
        (at_ns, instrument)
        for instrument in instruments
        for at_ns in _draw_instants(random, round(seconds * SECOND_NS), SECOND_NS / rate)
    )
    updates = (market.advance(one, "regular", (NINE_NS + at_ns) // SECOND_NS, BOOT_NS + at_ns) for at_ns, one in due)
    return [update for update in updates if update is not None]


def generate_books(seconds: float, symbols: int, rate: float, seed: int) -> np.ndarray:
    """Books (ORDERBOOK) of a simulated market, `seq` their ids, `mono_ns` when they were made."""
    return to_book_records(play_market(seconds, symbols, rate, seed))


def to_book_records(updates: Iterable[MarketUpdate]) -> np.ndarray:
    """The books of these updates, as `generate_books` returns them."""
    books = [update.book for update in updates if update.book is not None]
    found = empty_records(ORDERBOOK, len(books))
    found["seq"] = np.arange(len(books))
    found["symbol"], found["venue"] = [book.instrument.symbol.encode() for book in books], Venue.KRX
    found["mono_ns"] = [book.mono_ns for book in books]
    found["exch_ns"] = np.array([book.exch_s for book in books]) * SECOND_NS
    for name in ("ask", "bid"):
        found[f"{name}_price_e4"] = np.array([getattr(book, f"{name}_price") for book in books]) * 10_000
        found[f"{name}_size"] = [getattr(book, f"{name}_size") for book in books]
        found[f"total_{name}_size"] = [getattr(book, f"total_{name}") for book in books]
    for name in ("expected", "mid"):
        found[f"{name}_price_e4"] = np.array([getattr(book, f"{name}_price") for book in books]) * 10_000
        found[f"{name}_size"] = [getattr(book, f"{name}_size") for book in books]
    found["cum_volume"] = [book.cum_volume for book in books]
    return found


def _draw_instants(random: Random, until_ns: int, interval_ns: float) -> Iterator[int]:
    at_ns = random.random() * interval_ns
    while at_ns < until_ns:
        yield int(at_ns)
        at_ns += random.uniform(0.5, 1.5) * interval_ns


def deliver(books: np.ndarray, feed: FeedId, line: Line, random: np.random.Generator) -> np.ndarray:
    """The books that one feed delivers, in order of receipt."""
    found = books[random.random(len(books)) >= line.loss].copy()
    found["line"] = feed
    delay_ns = line.latency_s + line.jitter_s * random.uniform(-1, 1, len(found))
    due_ns = np.maximum.accumulate(found["mono_ns"] + (delay_ns * SECOND_NS).astype(np.int64))
    if line.flush_s:
        flush_ns = round(line.flush_s * SECOND_NS)
        due_ns = -(-due_ns // flush_ns) * flush_ns + random.integers(0, 1_000_000)
    if line.books_per_s:
        found, due_ns = _conflate(found, due_ns, SECOND_NS / line.books_per_s)
    is_stalled = found["symbol"].astype("i8") // 10 % 100 < 100 * line.stalled_share * len(set(found["symbol"])) / 100
    for begin_s, length_s in line.stalls:
        begin_ns = BOOT_NS + round(begin_s * SECOND_NS)
        end_ns = begin_ns + round(length_s * SECOND_NS)
        due_ns[is_stalled & (due_ns >= begin_ns) & (due_ns < end_ns)] = end_ns
    found["exch_ns"] += SECOND_NS * (random.random(len(found)) < line.stamps_ahead)
    order, place = np.argsort(due_ns, kind="stable"), np.arange(len(found))
    found = found[order]
    found["mono_ns"] = np.maximum.accumulate(due_ns[order] - place) + place  # read one after the other
    found["recv_ns"] = NINE_NS - BOOT_NS + found["mono_ns"]
    _change_midpoint(found, line)
    return found


def _conflate(books: np.ndarray, due_ns: np.ndarray, interval_ns: float) -> tuple[np.ndarray, np.ndarray]:
    """Of the books of a symbol that come within an interval only the last is sent, at its end."""
    next_ns: dict[bytes, int] = defaultdict(int)
    pending: dict[bytes, tuple[int, int]] = {}
    sent: list[tuple[int, int]] = []
    for at, (symbol, due) in enumerate(zip(books["symbol"].tolist(), due_ns.tolist(), strict=True)):
        waiting = pending.get(symbol)
        if waiting is not None and waiting[0] <= due:
            sent.append(pending.pop(symbol))
            next_ns[symbol] = waiting[0] + round(interval_ns)
        if due >= next_ns[symbol]:
            sent.append((due, at))
            next_ns[symbol] = due + round(interval_ns)
        else:
            pending[symbol] = next_ns[symbol], at
    sent = sorted([*sent, *pending.values()])
    return books[[at for _, at in sent]], np.array([due for due, _ in sent])


def _change_midpoint(found: np.ndarray, line: Line) -> None:
    changed = np.arange(len(found)) >= line.midpoint_from * len(found)
    if line.midpoint == "absent":
        found["mid_price_e4"][changed] = found["mid_size"][changed] = UNDEFINED
    elif line.midpoint == "rounded":
        found["mid_size"][changed] = found["mid_size"][changed] // 10 * 10
    elif line.midpoint == "late":
        for symbol in np.unique(found["symbol"]):
            mine = np.flatnonzero(found["symbol"] == symbol)
            late = np.concatenate([found["mid_size"][mine[:1]], found["mid_size"][mine[:-1]]])
            found["mid_size"][mine] = np.where(changed[mine], late, found["mid_size"][mine])


class Account(NamedTuple):
    """What an arbiter made of two feeds; counts of books, CPU in seconds."""

    available: int
    delivered: int
    pairs: int
    missed: int
    doubled: int
    wrong: int
    waiting: int
    cpu_s: float


def judge(
    books: np.ndarray,
    lines: tuple[Line, Line],
    seed: int,
    arbiter: BookArbiter | None = None,
    ignored: Sequence[str] = (),
) -> Account:
    """Let both feeds deliver `books`, arbitrate, compare; contents that differ in `ignored` fields alone are equal."""
    random = np.random.default_rng(seed)
    found = np.concatenate([deliver(books, *line, random) for line in zip(FEEDS, lines, strict=True)])
    found = found[np.argsort(found["mono_ns"], kind="stable")]
    arbiter = arbiter or BookArbiter(5 * SECOND_NS, ["KRX", "NXT", "UN"])
    twin_of, cpu_s, waiting = np.full(len(found), NEW), 0.0, 0
    edges = np.searchsorted(found["mono_ns"], np.arange(BOOT_NS, found["mono_ns"][-1] + BATCH_NS, BATCH_NS)).tolist()
    for begin, end in zip([0, *edges], [*edges, len(found)], strict=True):
        if begin == end:
            continue
        batch = found[begin:end]
        hours = schema.compute_hours(batch)
        start = time.process_time()
        twin_of[begin:end] = arbiter.arbitrate(batch, hours, begin + 1).twin_of
        arbiter.expire(int(np.searchsorted(found["mono_ns"], batch["mono_ns"][-1] - arbiter.stall_ns)))
        cpu_s += time.process_time() - start
        waiting = max(waiting, arbiter.unmatched_count)
    later = np.flatnonzero(twin_of != NEW)
    twin_of[later] -= 1
    ids = found["seq"]
    contents = _number_contents(books, ignored)
    available = Counter(contents[np.unique(ids)].tolist())
    stored = Counter(contents[ids[twin_of == NEW]].tolist())
    return Account(
        available.total(),
        len(found),
        len(later),
        (available - stored).total(),
        (stored - available).total(),
        int(np.count_nonzero(ids[later] != ids[twin_of[later]])),
        waiting,
        cpu_s,
    )


def _number_contents(books: np.ndarray, ignored: Sequence[str]) -> np.ndarray:
    """Equal numbers for equal contents."""
    content = books.copy()
    for name in ("seq", "mono_ns", "recv_ns", "exch_ns", *ignored):
        content[name] = 0
    return np.unique(content.view(f"V{content.itemsize}"), return_inverse=True)[1]


def main(make_arbiter: Callable[[], BookArbiter | None] = lambda: None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--symbols", type=int, default=20)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    arguments = parser.parse_args()
    print(f"{'lines':<30}{'available':>10}{'missed':>10}{'doubled':>10}{'wrong':>10}{'waiting':>9}{'us/book':>9}")
    truths = {
        seed: generate_books(arguments.seconds, arguments.symbols, arguments.rate, seed) for seed in arguments.seeds
    }
    for title, lines in LINES.items():
        found = [judge(books, lines, seed, make_arbiter()) for seed, books in truths.items()]
        total = Account(*map(sum, zip(*found, strict=True)))
        shares = "".join(f"{count / total.available:>10.4%}" for count in (total.missed, total.doubled, total.wrong))
        cpu_us = total.cpu_s / total.delivered * 1e6
        print(f"{title:<30}{total.available:>10}{shares}{total.waiting // len(found):>9}{cpu_us:>9.2f}")


if __name__ == "__main__":
    main()
