"""How fast rows find their places on the volume line: `python -m benchmarks.place`. Target: a million rows a second.

One busy symbol's day with many equal trades in each second; 2 % of the live ticks are merged trades. It is laid, and the tick chart
of the whole day placed, with values and minute bars as checks; best of three.
Every placed row is compared with the ground truth. And the
live side: ticks of 500 symbols through the line that the writer follows, in batches as it takes them.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from brokers.history import TRADE_ROW
from collectorctl.recover.matching.anchors import MINUTE
from collectorctl.recover.matching.placement import (
    Placement,
    place_by_alignment,
    place_by_volume,
)
from conf.clock import MINUTE_NS
from ringbuf.records import ORDERBOOK, TICK, UNDEFINED, FeedId, Venue, empty_records
from writer.volume.coverage import compute_coverage, compute_gap_values
from writer.volume.gap_tracker import GapTracker

SECOND_NS = 1_000_000_000
NINE_NS = 1_795_132_800_000_000_000
TRADE = np.dtype([*TRADE_ROW.descr, ("cum_value", "<i8")])


def generate_trades(count: int, jumps: int, random: np.random.Generator) -> np.ndarray:
    """A day's trades; before `jumps` of them volume passes without a trade."""
    trades = np.zeros(count, TRADE)
    trades["size"] = random.choice([1, 1, 1, 2, 5, 10, 33, 100], count)
    trades["price"] = 70_000 + 100 * np.cumsum(random.choice([-1, 1], count) * (random.random(count) < 0.05))
    trades["exch_ns"] = NINE_NS + np.sort(random.integers(0, 23_400, count)) * SECOND_NS
    passed = np.zeros(count, np.int64)
    passed[random.choice(count, jumps, replace=False)] = 10_007
    trades["cum_volume"] = np.cumsum(trades["size"] + passed)
    trades["cum_value"] = np.cumsum(trades["size"] * trades["price"])
    return trades


def merge_neighbours(trades: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Some neighbours of one price and second as one tick."""
    ends = np.ones(len(trades), bool)
    follows = trades["cum_volume"][1:] - trades["size"][1:] == trades["cum_volume"][:-1]
    follows &= trades["price"][1:] == trades["price"][:-1]
    follows &= trades["exch_ns"][1:] == trades["exch_ns"][:-1]
    ends[:-1] = ~follows | (random.random(len(trades) - 1) > 0.02)
    begins = np.concatenate([[0], np.flatnonzero(ends)[:-1] + 1])
    found = trades[ends].copy()
    found["size"] = np.add.reduceat(trades["size"], begins)
    return found


def build_minute_bars(trades: np.ndarray) -> np.ndarray:
    """Its minute bars."""
    minutes, which = np.unique(trades["exch_ns"] // MINUTE_NS * MINUTE_NS, return_inverse=True)
    found = np.zeros(len(minutes), MINUTE)
    found["minute_ns"], found["shares"] = minutes, np.bincount(which, trades["size"])
    return found


def count_wrong(placed: Placement, trades: np.ndarray) -> int:
    """Rows called exact that are not the trade of their interval."""
    rows = placed.rows[placed.rows["exact"]]
    return int((trades["cum_volume"][rows["row"]] != rows["cum_volume"]).sum())


def measure_placement(count: int, random: np.random.Generator) -> None:
    """Lay and place, in four ways to lose ticks."""
    title = f"tick chart, {count:,} rows"
    print(f"{title:<42}{'lay ticks/s':>14}{'rows/s':>12}{'gaps':>9}{'placed':>9}{'residuals':>11}{'wrong':>7}")
    outage = np.ones(count, bool)
    outage[count // 3 : count // 3 + count // 5] = False
    for title, received, jumps in (
        ("one outage of a fifth of the day", outage, 0),
        ("1 % lost at random", random.random(count) > 0.01, 0),
        ("30 % lost at random", random.random(count) > 0.3, 0),
        ("1 % lost, 20 off-book jumps", random.random(count) > 0.01, 20),
        ("nothing heard", np.zeros(count, bool), 0),
    ):
        trades = generate_trades(count, jumps, random)
        live = merge_neighbours(trades[received], random) if received.any() else trades[:0]
        rows, minutes = trades[list(TRADE_ROW.names)].astype(TRADE_ROW), build_minute_bars(trades)
        unknown = np.full(len(live), UNDEFINED)
        coverage_s = placement_s = np.inf
        for _ in range(3):
            begin = time.perf_counter()
            coverage = compute_coverage(live["cum_volume"], live["size"], int(trades["cum_volume"][-1]))
            coverage_s = min(coverage_s, time.perf_counter() - begin)
            begin = time.perf_counter()
            values = compute_gap_values(coverage, live["price"] * 10_000, live["size"], live["cum_value"], unknown)
            placed = place_by_alignment(coverage, live, rows, values, minutes)
            placement_s = min(placement_s, time.perf_counter() - begin)
        assert placed.is_clean == (jumps == 0), placed.inconsistencies[:3]
        print(
            f"{title:<42}{len(live) / coverage_s:>14,.0f}{count / placement_s:>12,.0f}{len(coverage.gaps):>9,}"
            f"{len(placed.rows):>9,}{len(placed.uncovered):>11}{count_wrong(placed, trades):>7}"
        )
    gaps = compute_coverage(trades["cum_volume"][::3], trades["size"][::3], int(trades["cum_volume"][-1])).gaps
    begin = time.perf_counter()
    place_by_volume(gaps, rows)
    print(f"{'numbered rows into two thirds missing':<42}{'':>14}{count / (time.perf_counter() - begin):>12,.0f}")


def measure_gap_tracker(count: int, random: np.random.Generator) -> None:
    """What the writer pays for each tick and each book."""
    symbol = np.sort(random.integers(0, 500, count))
    ticks = empty_records(TICK, count)
    ticks["symbol"] = np.array([b"%06d" % n for n in range(500)])[symbol]
    ticks["venue"], ticks["line"], ticks["exch_ns"] = Venue.KRX, FeedId.KIS, NINE_NS
    ticks["size"], ticks["price_e4"] = random.integers(1, 50, count), 700_000_000
    sums = np.cumsum(ticks["size"])
    firsts = np.searchsorted(symbol, symbol)
    ticks["cum_volume"] = sums - (sums - ticks["size"])[firsts]
    ticks = ticks[np.argsort(random.random(500)[symbol] + np.arange(count) - firsts, kind="stable")]
    books = empty_records(ORDERBOOK, min(count, 200_000))
    for name in ("symbol", "venue", "cum_volume", "exch_ns"):
        books[name] = ticks[name][: len(books)]
    books["line"] = FeedId.KIWOOM
    print(f"\n{'volume line followed live, batches of':<42}{'100':>12}{'1000':>12}{'8192':>12}   a second")
    for title, received in (
        ("ticks", ticks),
        ("ticks, 1 % lost", ticks[random.random(count) > 0.01]),
        ("books", books),
    ):
        tracker = GapTracker()
        tracker.add_ticks(ticks[:1000])
        figures = []
        for size in (100, 1000, 8192):
            tracker = tracker if title == "books" else GapTracker()
            records = received[: 1000 * size]
            begin = time.perf_counter()
            for at in range(0, len(records), size):
                (tracker.add_books if title == "books" else tracker.add_ticks)(records[at : at + size])
                tracker.check(at)
            figures.append(len(records) / (time.perf_counter() - begin))
        print(f"{title:<42}" + "".join(f"{figure:>12,.0f}" for figure in figures))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    measure_placement(arguments.rows, np.random.default_rng(arguments.seed))
    measure_gap_tracker(arguments.rows, np.random.default_rng(arguments.seed))


if __name__ == "__main__":
    main()
