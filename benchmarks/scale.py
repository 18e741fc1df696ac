"""What grows with the number of symbols, and with the rate of each.

    python -m benchmarks.scale [--symbols 20 100 500 2500] [--rates 1 5 20] [--times 5]

    plan      settings read, and the allocation of `collectorctl plan`, with a key of each broker for every 40 symbols
    status    `collectorctl status` without its start: state, verdict, with a gap report of every symbol; no process runs
    turn      a turn of the writer that takes five a second: books of both feeds, two a second and symbol, with their ticks: merged,
              built into entries, journalled (no fsync), and the gaps counted; by --rates, so many times as many records
    publish   one hour with 100 books a symbol out of the journal into Parquet, read back
    journal   bytes a second that the turns append, of both datasets, before publication prunes them
    ring      how many seconds the rings of one feed hold without a reader, by the default capacities, the shorter of the two

CPU time of this process, milliseconds, median (min to max). `records` and `books` are those of one turn and of the hour.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATASET = "kr.orderbook"
SYMBOLS_A_KEY = 40
TURNS = 20
TURN_S = 0.2
BOOKS_A_SYMBOL_S = 2
BOOKS_A_SYMBOL = 100
"""Of the hour that is published."""


def run_timed(call: Callable[[], object]) -> float:
    """CPU milliseconds of a call."""
    begin = time.process_time()
    call()
    return (time.process_time() - begin) * 1e3


def make_home(root: Path, symbols: int) -> None:
    """A home with so many symbols, keys for them, and a gap report of a writer that runs."""
    import msgspec
    from support.writer_data import make_ticks

    from collectorctl.init import create_home
    from conf.home import Home
    from writer.volume.gap_tracker import GapTracker
    from writer.volume.gaps import GapReport

    create_home(root)
    codes = ", ".join(f'"{number * 10:06}"' for number in range(1, symbols + 1))
    (root / "collector.toml").write_text(f"[universe]\nkr = [{codes}]\n")
    keys = [
        f"{broker}_{part}{f'_{number}' if number > 1 else ''}={broker.lower()}{part.lower()}{number:034}"
        for number in range(1, -(-symbols // SYMBOLS_A_KEY) + 1)
        for broker in ("KIS", "KIWOOM")
        for part in ("APP_KEY", "APP_SECRET")
    ]
    (root / ".env").touch(mode=0o600)
    (root / ".env").write_text("\n".join(keys) + "\n")
    home = Home(root)
    home.create_directories()
    tracker = GapTracker()
    ticks = make_ticks(range(1, 2 * symbols + 1))
    ticks["symbol"] = [f"{number % symbols * 10:06}".encode() for number in range(len(ticks))]
    tracker.add_ticks(ticks)
    report = GapReport("2026-11-20 09:00:00", "2026-11-20 09:00:05", "0" * 32, len(ticks), tracker.export_symbols())
    home.gap_report_path("kr").write_bytes(msgspec.json.encode(report))


def measure_commands(symbols: int, times: int) -> dict[str, list[float]]:
    """plan and status."""
    from collectorctl.allocation_report import build_allocation_report
    from collectorctl.commands.inspect import judge_home
    from conf.home import Home

    with tempfile.TemporaryDirectory(prefix="cc-") as directory:
        root = Path(directory)
        make_home(root, symbols)
        calls = {"plan": lambda: build_allocation_report(Home(root)), "status": lambda: judge_home(Home(root))}
        for call in calls.values():
            call()  # loads modules, and the holiday table
        return {name: [run_timed(call) for _ in range(times)] for name, call in calls.items()}


def count_books(symbols: int, rate: int) -> int:
    """Books that a feed delivers in a turn; there are as many ticks."""
    return round(BOOKS_A_SYMBOL_S * symbols * rate * TURN_S)


def compute_ring_s(symbols: int, rate: int) -> float:
    """Seconds until a ring of one feed has gone round."""
    from conf.loader import load_settings

    ring = load_settings(ROOT).ring
    return min(ring.orderbook_capacity, ring.tick_capacity) / (BOOKS_A_SYMBOL_S * symbols * rate)


def measure_writer(symbols: int, rate: int = 1) -> dict[str, float]:
    """One run: a turn (mean of TURNS), the bytes a second of the journals, and at rate 1 the publication of an hour."""
    import numpy as np
    from support.writer_data import NINE_NS, make_books, make_ticks

    from ringbuf.records import FeedId
    from writer import schema
    from writer.ingest.book_arbiter import BookArbiter
    from writer.journal.entries import JOURNAL, build_entries
    from writer.journal.journal import Journal
    from writer.publish.partition import PublishTask, publish
    from writer.volume.gap_tracker import GapTracker

    each = count_books(symbols, rate)
    codes = np.array([b"%06d" % (number * 10) for number in range(symbols)])
    arbiter, tracker = BookArbiter(5_000_000_000, ["KRX"]), GapTracker()
    found = {}
    with tempfile.TemporaryDirectory(prefix="cc-") as directory:
        place = Path(directory)
        books_journal, ticks_journal = (Journal.open(place / name, JOURNAL[name]) for name in (DATASET, "kr.tick"))
        for journal in (books_journal, ticks_journal):
            journal.roll([])

        def turn(number: int, count: int) -> None:
            numbers, mono_ns = np.arange(number * count, (number + 1) * count), round((number + 1) * TURN_S * 1e9)
            books = np.concatenate(
                [make_books(numbers, feed, mono_ns=mono_ns + late, symbols=symbols)
                 for feed, late in ((FeedId.KIS, 0), (FeedId.KIWOOM, 40_000_000))]
            )  # fmt: skip
            ticks = make_ticks(numbers + 1, mono_ns=mono_ns)
            ticks["symbol"] = codes[numbers % symbols]
            begin = time.process_time()
            first_row = books_journal.last_row + 1
            result = arbiter.arbitrate(books, schema.compute_hours(books), first_row)
            positions = {"kis.orderbook": [1, first_row]}
            books_journal.append(build_entries(DATASET, books, first_row, result), positions)
            ticks_journal.append(build_entries("kr.tick", ticks, ticks_journal.last_row + 1, None), positions)
            tracker.add_ticks(ticks)
            tracker.add_books(books)
            tracker.check(mono_ns)
            spent.append((time.process_time() - begin) * 1e3)

        spent: list[float] = []
        for number in range(TURNS):
            turn(number, each)
        found["turn"] = statistics.mean(spent[TURNS // 4 :])
        appended = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        found["journal"] = appended / (TURNS * TURN_S)
        if rate == 1:
            for number in range(TURNS, -(-symbols * BOOKS_A_SYMBOL // each)):
                turn(number, each)
            books_journal.roll([])
            paths = tuple(segment.path for segment in books_journal.segments[:-1])
            task = PublishTask(
                DATASET, place / "data", books_journal.lineage, NINE_NS, books_journal.last_row, paths, 65536, 5.0
            )
            found["publish"] = run_timed(lambda: publish(task))
        for journal in (books_journal, ticks_journal):
            journal.close()
    return found


def format_ms(values: Sequence[float]) -> str:
    """Median (least to greatest)."""
    return f"{statistics.median(values):,.1f} ({min(values):,.1f} to {max(values):,.1f})"


def main() -> None:
    """Print the tables: by symbols, then by symbols and rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, nargs="+", default=[20, 100, 500, 2500])
    parser.add_argument("--rates", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    print("| symbols | plan ms | status ms | publish ms | books |\n|---|---|---|---|---|")
    runs: dict[tuple[int, int], list[dict[str, float]]] = {}
    for symbols in options.symbols:
        found = measure_commands(symbols, options.times)
        runs[symbols, 1] = [measure_writer(symbols) for _ in range(options.times)]
        cells = [*map(format_ms, found.values()), format_ms([run["publish"] for run in runs[symbols, 1]])]
        print(f"| {symbols:,} | {' | '.join(cells)} | {symbols * BOOKS_A_SYMBOL:,} |", flush=True)
    print("\n| symbols | rate | records a turn | turn ms | journal MB/s | ring s |\n|---|---|---|---|---|---|")
    for symbols in options.symbols:
        for rate in options.rates:
            if (symbols, rate) not in runs:
                runs[symbols, rate] = [measure_writer(symbols, rate) for _ in range(options.times)]
            turn, journal = ([run[name] for run in runs[symbols, rate]] for name in ("turn", "journal"))
            print(
                f"| {symbols:,} | {rate} | {3 * count_books(symbols, rate):,} | {format_ms(turn)} "
                f"| {statistics.median(journal) / 1e6:,.1f} | {compute_ring_s(symbols, rate):,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
