"""What first-wins misses and doubles on two lines that lose, conflate and break: `python -m benchmarks.merge`.

One true sequence of books. Each line sees it with its own latency, jitter, loss and conflation; kiwoom is away for 60 s.
Missed: books that reached a line and are not stored. Doubled: books stored more often than they reached one.
Compared with three rules that look simpler.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import numpy as np

from ringbuf.records import ORDERBOOK, FeedId, Venue, empty_records
from writer import schema
from writer.ingest.arbitration_result import NEW
from writer.ingest.book_arbiter import BookArbiter

SECOND_NS = 1_000_000_000
NINE_NS = 1_795_132_800_000_000_000
OUTAGE_NS = (300 * SECOND_NS, 360 * SECOND_NS)
FEEDS = (FeedId.KIS, FeedId.KIWOOM)


def generate_books(seconds: int, symbols: int, rate: float, flicker: float, random: np.random.Generator) -> np.ndarray:
    """Books of `symbols` symbols, `rate` a second each; with probability `flicker` a book returns to the one before the last."""
    parts = []
    for symbol in range(symbols):
        at_ns = np.sort(random.integers(0, seconds * SECOND_NS, int(seconds * rate)))
        count = len(at_ns)
        found = empty_records(ORDERBOOK, count)
        trades = random.random(count) < 0.3
        found["cum_volume"] = np.cumsum(trades * random.integers(1, 100, count))
        state = np.arange(count)
        back = (random.random(count) < flicker) & ~trades
        for n in np.flatnonzero(back):
            if n > 1 and not trades[n - 1]:
                state[n] = state[n - 2]
        found["ask_size"][:, 0] = state
        found["symbol"] = b"%06d" % symbol
        found["venue"] = Venue.KRX
        found["mono_ns"] = at_ns
        found["exch_ns"] = NINE_NS + at_ns // SECOND_NS * SECOND_NS
        parts.append(found)
    found = np.concatenate(parts)
    found = found[np.argsort(found["mono_ns"], kind="stable")]
    found["seq"] = np.arange(len(found))
    return found


def simulate_feed(
    feed: FeedId, books: np.ndarray, loss: float, conflate_ns: int, latency_ns: float, random: np.random.Generator
) -> np.ndarray:
    """The books that reach a line, as received there."""
    keep = random.random(len(books)) >= loss
    if conflate_ns:  # of the books of a symbol within one interval only the last is sent
        order = np.lexsort((books["mono_ns"], books["symbol"]))
        bucket = books["mono_ns"] // conflate_ns
        last = np.ones(len(books), bool)
        same = (books["symbol"][order][:-1] == books["symbol"][order][1:]) & (bucket[order][:-1] == bucket[order][1:])
        last[order[:-1][same]] = False
        keep &= last
    if feed is FeedId.KIWOOM:
        keep &= (books["mono_ns"] < OUTAGE_NS[0]) | (books["mono_ns"] >= OUTAGE_NS[1])
    found = books[keep].copy()
    found["line"] = feed
    delay = random.lognormal(np.log(latency_ns), 0.6, len(found)).astype(np.int64)
    found["mono_ns"] += delay
    for symbol in np.unique(found["symbol"]):  # one connection delivers in order
        mine = found["symbol"] == symbol
        found["mono_ns"][mine] = np.maximum.accumulate(found["mono_ns"][mine])
    found["recv_ns"] = NINE_NS + found["mono_ns"]
    return found[np.argsort(found["mono_ns"], kind="stable")]


def run_arbiter(books: np.ndarray) -> np.ndarray:
    """Which books the writer stores."""
    arbiter = BookArbiter(5 * SECOND_NS, ["KRX"])
    stored = np.zeros(len(books), bool)
    for begin in range(0, len(books), 1000):
        batch = books[begin : begin + 1000]
        stored[begin : begin + 1000] = arbiter.arbitrate(batch, schema.compute_hours(batch), begin + 1).twin_of == NEW
        settled = np.searchsorted(books["mono_ns"], batch["mono_ns"][-1] - 6 * SECOND_NS)
        arbiter.expire(int(settled))
    return stored


def run_simple_rule(books: np.ndarray, rule: str) -> np.ndarray:
    """Which books a simpler rule stores."""
    last: dict[bytes, bytes] = {}
    newest: dict[bytes, int] = {}
    when: dict[bytes, int] = {}
    stored = np.zeros(len(books), bool)
    for at, book in enumerate(book_keys(books)):
        symbol, mono_ns, exch_ns = bytes(books["symbol"][at]), int(books["mono_ns"][at]), int(books["exch_ns"][at])
        if rule == "differs from the last one":
            stored[at] = last.get(symbol) != book
            last[symbol] = book
        elif rule == "not seen in the last 2 s":
            stored[at] = mono_ns - when.get(book, -(2**62)) > 2 * SECOND_NS
            when[book] = mono_ns
        else:
            stored[at] = exch_ns > newest.get(symbol, 0)
            newest[symbol] = max(exch_ns, newest.get(symbol, 0))
    return stored


def book_keys(books: np.ndarray) -> list[bytes]:
    """What tells one book from another."""
    return [
        b"%s %d %d" % (symbol, volume, size)
        for symbol, volume, size in zip(
            books["symbol"].tolist(), books["cum_volume"].tolist(), books["ask_size"][:, 0].tolist(), strict=True
        )
    ]


def count_errors(available: Counter, stored: Counter) -> tuple[int, int]:
    """How many available books are missing, and how many are stored more often than they came."""
    return (available - stored).total(), (stored - available).total()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--symbols", type=int, default=20)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{'lines':<37}{'rule':<27}{'available':>10}{'missed':>16}{'doubled':>16}{'books/s':>10}")
    for title, loss, conflate_ns in (
        ("no loss, no conflation", 0.0, 0),
        ("0.5 % loss each", 0.005, 0),
        ("0.5 % loss, kiwoom conflates 100 ms", 0.005, SECOND_NS // 10),
    ):
        random = np.random.default_rng(arguments.seed)
        books = generate_books(arguments.seconds, arguments.symbols, arguments.rate, 0.3, random)
        kis = simulate_feed(FeedId.KIS, books, loss, 0, 15e6, random)
        kiwoom = simulate_feed(FeedId.KIWOOM, books, loss, conflate_ns, 25e6, random)
        found = np.concatenate([kis, kiwoom])
        found = found[np.argsort(found["mono_ns"], kind="stable")]
        available = Counter(book_keys(books[np.union1d(kis["seq"], kiwoom["seq"])]))
        for rule in ("first wins", "differs from the last one", "not seen in the last 2 s", "newer second only"):
            begin = time.perf_counter()
            stored = run_arbiter(found) if rule == "first wins" else run_simple_rule(found, rule)
            took = time.perf_counter() - begin
            missed, doubled = count_errors(available, Counter(book_keys(found[stored])))
            total = available.total()
            print(
                f"{title:<37}{rule:<27}{total:>10}{missed:>8}{missed / total:>8.2%}{doubled:>8}{doubled / total:>8.2%}"
                f"{len(found) / took:>10.0f}"
            )


if __name__ == "__main__":
    main()
