"""How fast rows find their places on the volume line: `python -m benchmarks.place`. Target: a million rows a second.

One busy symbol's day with many equal trades in each second; 2 % of the live ticks are merged prints. It is laid, and the tick chart
of the whole day placed, with values and minute bars as checks; best of three. Every placed row is compared with the truth. And the
live side: ticks of 500 symbols through the line that the writer follows, in batches as it takes them.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from collectorctl.recover.matching.anchors import MINUTE, MINUTE_NS
from collectorctl.recover.matching.placement import CHART, NUMBERED, Placement, place_chart, place_numbered
from ringbuf.records import ORDERBOOK, TICK, UNDEFINED, Line, Venue, blank
from writer.volume.coverage import gap_won, lay
from writer.volume.gap_tracker import VolumeLine

SECOND_NS = 1_000_000_000
NINE_NS = 1_795_132_800_000_000_000
TRADE = np.dtype([*CHART.descr, ("cum_volume", "<i8"), ("cum_value", "<i8"), ("side", "i1")])


def day(count: int, jumps: int, random: np.random.Generator) -> np.ndarray:
    """A day's trades; before `jumps` of them volume passes without a trade."""
    trades = np.zeros(count, TRADE)
    trades["size"] = random.choice([1, 1, 1, 2, 5, 10, 33, 100], count)
    trades["price_e4"] = (
        70_000 + 100 * np.cumsum(random.choice([-1, 1], count) * (random.random(count) < 0.05))
    ) * 10_000
    trades["exch_ns"] = NINE_NS + np.sort(random.integers(0, 23_400, count)) * SECOND_NS
    passed = np.zeros(count, np.int64)
    passed[random.choice(count, jumps, replace=False)] = 10_007
    trades["cum_volume"] = np.cumsum(trades["size"] + passed)
    trades["cum_value"] = np.cumsum(trades["size"] * (trades["price_e4"] // 10_000))
    return trades


def merged(trades: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Some neighbours of one price and second as one tick."""
    ends = np.ones(len(trades), bool)
    follows = trades["cum_volume"][1:] - trades["size"][1:] == trades["cum_volume"][:-1]
    follows &= trades["price_e4"][1:] == trades["price_e4"][:-1]
    follows &= trades["exch_ns"][1:] == trades["exch_ns"][:-1]
    ends[:-1] = ~follows | (random.random(len(trades) - 1) > 0.02)
    begins = np.concatenate([[0], np.flatnonzero(ends)[:-1] + 1])
    found = trades[ends].copy()
    found["size"] = np.add.reduceat(trades["size"], begins)
    return found


def bars(trades: np.ndarray) -> np.ndarray:
    """Its minute bars."""
    minutes, which = np.unique(trades["exch_ns"] // MINUTE_NS * MINUTE_NS, return_inverse=True)
    found = np.zeros(len(minutes), MINUTE)
    found["minute_ns"], found["shares"] = minutes, np.bincount(which, trades["size"])
    return found


def wrong(placed: Placement, trades: np.ndarray) -> int:
    """Rows called exact that are not the trade of their interval."""
    rows = placed.rows[placed.rows["exact"]]
    return int((trades["cum_volume"][rows["row"]] != rows["cum_volume"]).sum())


def chart(count: int, random: np.random.Generator) -> None:
    """Lay and place, in four ways to lose ticks."""
    title = f"tick chart, {count:,} rows"
    print(f"{title:<42}{'lay ticks/s':>14}{'rows/s':>12}{'gaps':>9}{'placed':>9}{'residuals':>11}{'wrong':>7}")
    outage = np.ones(count, bool)
    outage[count // 3 : count // 3 + count // 5] = False
    for title, heard, jumps in (
        ("one outage of a fifth of the day", outage, 0),
        ("1 % lost at random", random.random(count) > 0.01, 0),
        ("30 % lost at random", random.random(count) > 0.3, 0),
        ("1 % lost, 20 off-book jumps", random.random(count) > 0.01, 20),
        ("nothing heard", np.zeros(count, bool), 0),
    ):
        trades = day(count, jumps, random)
        live = merged(trades[heard], random) if heard.any() else trades[:0]
        rows, minutes = trades[list(CHART.names)].astype(CHART), bars(trades)
        unknown = np.full(len(live), UNDEFINED)
        laid_s = took_s = np.inf
        for _ in range(3):
            begin = time.perf_counter()
            coverage = lay(live["cum_volume"], live["size"], int(trades["cum_volume"][-1]))
            laid_s = min(laid_s, time.perf_counter() - begin)
            begin = time.perf_counter()
            values = gap_won(coverage, live["price_e4"], live["size"], live["cum_value"], unknown)
            placed = place_chart(coverage, live, rows, values, minutes)
            took_s = min(took_s, time.perf_counter() - begin)
        assert placed.clean == (jumps == 0), placed.findings[:3]
        print(
            f"{title:<42}{len(live) / laid_s:>14,.0f}{count / took_s:>12,.0f}{len(coverage.gaps):>9,}{len(placed.rows):>9,}"
            f"{len(placed.residuals):>11}{wrong(placed, trades):>7}"
        )
    numbered = np.zeros(count, NUMBERED)
    for name in (*CHART.names, "cum_volume", "side"):
        numbered[name] = trades[name]
    gaps = lay(trades["cum_volume"][::3], trades["size"][::3], int(trades["cum_volume"][-1])).gaps
    begin = time.perf_counter()
    place_numbered(gaps, numbered)
    print(f"{'numbered rows into two thirds missing':<42}{'':>14}{count / (time.perf_counter() - begin):>12,.0f}")


def live_side(count: int, random: np.random.Generator) -> None:
    """What the writer pays for each tick and each book."""
    symbol = np.sort(random.integers(0, 500, count))
    ticks = blank(TICK, count)
    ticks["symbol"] = np.array([b"%06d" % n for n in range(500)])[symbol]
    ticks["venue"], ticks["line"], ticks["exch_ns"] = Venue.KRX, Line.KIS, NINE_NS
    ticks["size"], ticks["price_e4"] = random.integers(1, 50, count), 700_000_000
    sums = np.cumsum(ticks["size"])
    firsts = np.searchsorted(symbol, symbol)
    ticks["cum_volume"] = sums - (sums - ticks["size"])[firsts]
    ticks = ticks[np.argsort(random.random(500)[symbol] + np.arange(count) - firsts, kind="stable")]
    books = blank(ORDERBOOK, min(count, 200_000))
    for name in ("symbol", "venue", "cum_volume", "exch_ns"):
        books[name] = ticks[name][: len(books)]
    books["line"] = Line.KIWOOM
    print(f"\n{'volume line followed live, batches of':<42}{'100':>12}{'1000':>12}{'8192':>12}   a second")
    for title, heard in (("ticks", ticks), ("ticks, 1 % lost", ticks[random.random(count) > 0.01]), ("books", books)):
        line = VolumeLine()
        line.ticks(ticks[:1000])
        figures = []
        for size in (100, 1000, 8192):
            line = line if title == "books" else VolumeLine()
            some = heard[: 1000 * size]
            begin = time.perf_counter()
            for at in range(0, len(some), size):
                (line.books if title == "books" else line.ticks)(some[at : at + size])
                line.judge(at)
            figures.append(len(some) / (time.perf_counter() - begin))
        print(f"{title:<42}" + "".join(f"{figure:>12,.0f}" for figure in figures))


def main() -> None:
    """Print both tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    chart(given.rows, np.random.default_rng(given.seed))
    live_side(given.rows, np.random.default_rng(given.seed))


if __name__ == "__main__":
    main()
