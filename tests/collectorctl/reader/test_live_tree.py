"""Live readers of a real process tree, while its processes are restarted, over the end of an hour and of a day."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.process_tree import BIN, QUICK, read_status, run_collectorctl, temporary_home, wait_until

from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.reader.messages import FEED_NAMES, Lost
from conf.clock import DAY_NS, HOUR_NS, MINUTE_NS, SECOND_NS
from conf.home import Home
from ringbuf.records import ORDERBOOK, TICK, Flag, Venue
from writer.ingest.backfill_filter import merge_intervals

SETTINGS = (
    QUICK
    + """
[universe]
kr = ["005930", "000660", "0074K0"]
[ring]
orderbook_capacity = 2048
tick_capacity = 2048
"""
)
READERS = 16
STOPPED_S = 60.0
WAIT_S = 90.0
STREAM_FILES = ("orderbook", "tick", "message")
SCRIPT = """
import sys
from pathlib import Path
import collectorctl
from collectorctl.reader.live import RecordBatch
files = {name: (Path(sys.argv[2]) / name).open("ab", 0) for name in ("orderbook", "tick", "message")}
live = collectorctl.open(sys.argv[1]).live()
files["message"].write(b"'ready'\\n")
for found in live.batches():
    if isinstance(found, RecordBatch):
        files[found.stream].write(found.records.tobytes())
    else:
        files["message"].write(f"{found!r}\\n".encode())
"""


class Reader:
    """A process that reads the live stream of a home and keeps what it gets."""

    def __init__(self, root: Path, number: int) -> None:
        self.place = root / f"reader-{number}"
        self.place.mkdir()
        for name in STREAM_FILES:
            (self.place / name).touch()
        self.process = subprocess.Popen([sys.executable, "-c", SCRIPT, root, self.place])

    @property
    def sizes(self) -> list[int]:
        """How much it has."""
        return [(self.place / name).stat().st_size for name in STREAM_FILES]

    @property
    def books(self) -> np.ndarray:
        return np.frombuffer((self.place / "orderbook").read_bytes(), ORDERBOOK)

    @property
    def ticks(self) -> np.ndarray:
        return np.frombuffer((self.place / "tick").read_bytes(), TICK)

    @property
    def lost(self) -> list[Lost]:
        lines = (self.place / "message").read_text().splitlines()
        return [eval(line, {"Lost": Lost}) for line in lines if line.startswith("Lost(")]


def restart(root: Path, name: str, how: str) -> None:
    """Restart a process of the tree, or kill it; returns when its successor is healthy."""
    old = read_status(root)["processes"][name]["pid"]
    if how == "restart":
        subprocess.run([BIN / "supervisorctl", "restart", name], cwd=root, capture_output=True, check=True)
    else:
        os.kill(old, signal.SIGKILL)

    def is_back() -> bool:
        process = read_status(root)["processes"][name]
        return process["pid"] not in (0, old) and process["healthy"]

    wait_until(f"{name} is healthy again", is_back, WAIT_S)


def find_arrivals(books: np.ndarray) -> set[tuple[str, int]]:
    return {(FEED_NAMES[feed], at) for feed, at in zip(books["line"].tolist(), books["recv_ns"].tolist(), strict=True)}


def merge_shares(groups: dict[tuple, tuple[np.ndarray, np.ndarray]]) -> dict[tuple, list[tuple[int, int]]]:
    """The intervals of cumulative volume that ticks (volume, size) cover, by symbol, venue and day."""
    found = {}
    for name, (volume, size) in groups.items():
        begins, ends = merge_intervals(volume - size, volume)
        found[name] = list(zip(begins.tolist(), ends.tolist(), strict=True))
    return found


def group_live(ticks: np.ndarray) -> dict[tuple, tuple[np.ndarray, np.ndarray]]:
    days = (ticks["exch_ns"] + 9 * HOUR_NS) // DAY_NS
    names = list(zip(ticks["symbol"].tolist(), ticks["venue"].tolist(), days.tolist(), strict=True))
    masks = {name: np.array([one == name for one in names]) for name in set(names)}
    return {
        (symbol.decode(), Venue(venue).name, day): (ticks["cum_volume"][mask], ticks["size"][mask])
        for (symbol, venue, day), mask in masks.items()
    }


def group_stored(ticks: pd.DataFrame) -> dict[tuple, tuple[np.ndarray, np.ndarray]]:
    days = (ticks.exch_time.astype("int64") + 9 * HOUR_NS) // DAY_NS
    return {
        (symbol, venue, int(day)): (rows.cum_volume.to_numpy(np.int64), rows["size"].to_numpy(np.int64))
        for (symbol, venue, day), rows in ticks.groupby([ticks.symbol.astype(str), ticks.venue.astype(str), days])
    }


@pytest.mark.long
@pytest.mark.parametrize("start", ["10:58:00", "23:58:00"], ids=["hour", "midnight"])
def test_sixteen_readers_have_what_the_files_have_whatever_is_restarted(start: str) -> None:
    """They are there before the home. One is stopped for a minute and has the numbers of what it lost; some are killed."""
    simulated = ("--always-open", "--books-per-s", "30", "--kis-slot-release-s", "0")
    with (
        temporary_home(SETTINGS.replace("10:00:00", start)) as root,
        SimulatorProcess(root, root / "truth", *simulated) as simulator,
    ):
        set_addresses(root, simulator.addresses)
        readers = [Reader(root, number) for number in range(READERS)]
        try:
            for reader in readers:
                wait_until("the reader looks", lambda one=reader: one.sizes[2], WAIT_S)
            run_collectorctl(root, "start")
            for reader in readers:
                wait_until("the reader has books", lambda one=reader: one.sizes[0], WAIT_S)
            stopped, *killed, _ = readers[:4]
            os.kill(stopped.process.pid, signal.SIGSTOP)
            stopped_s = time.monotonic()
            steps = (
                ("kis", "restart"),
                ("kiwoom", "kill"),
                ("writer", "kill"),
                ("gapfill", "restart"),
                ("kis", "kill"),
            )
            for name, how in steps:
                restart(root, name, how)
                if killed and name != "kis":
                    killed.pop().process.kill()
            wait_until("it was stopped for a minute", lambda: time.monotonic() - stopped_s > STOPPED_S, 2 * STOPPED_S)
            os.kill(stopped.process.pid, signal.SIGCONT)
            wait_until("it has its loss", lambda: stopped.lost, WAIT_S)
            clock = Home(root).load_clock()
            ended_ns = clock.anchor.calendar_ns + 2 * MINUTE_NS
            wait_until("the hour has ended", lambda: clock.now_ns() > ended_ns + 2 * SECOND_NS, 2 * WAIT_S)
            for feed in simulator.addresses:
                simulator.send_command(f"{feed} quiet 3600")
            run_collectorctl(root, "stop")
            seen: list[list[list[int]]] = [[]]

            def is_read() -> bool:
                time.sleep(1.0)
                seen.append([reader.sizes for reader in readers])
                return seen[-1] == seen[-2]

            wait_until("every reader has read everything", is_read, WAIT_S)
        finally:
            for reader in readers:
                reader.process.kill()
                reader.process.wait()
        books, ticks = (pd.read_parquet(root / "data" / "kr" / dataset) for dataset in ("orderbook", "tick"))
        assert len(books[["date", "hour"]].drop_duplicates()) == 2  # one ended meanwhile
        rows = list(
            zip(
                books.recv_time_kis.astype("int64"),
                books.recv_time_kiwoom.astype("int64"),
                books.broker,
                books.seq,
                strict=True,
            )
        )
        stored = merge_shares(group_stored(ticks[ticks.recv_time.notna() & ticks.cum_volume.notna()]))
        for reader in readers[4:]:
            arrivals = find_arrivals(reader.books)
            assert reader.lost == []
            assert [row for row in rows if ("kis", row[0]) not in arrivals and ("kiwoom", row[1]) not in arrivals] == []
            assert arrivals <= {("kis", row[0]) for row in rows} | {("kiwoom", row[1]) for row in rows}
            live = reader.ticks
            grouped = group_live(live)
            assert merge_shares(grouped) == stored
            if not (live["flags"] & Flag.CONFLICT).any():
                covered = sum(end - begin for spans in stored.values() for begin, end in spans)
                assert int(live["size"].sum()) == covered
        arrivals = find_arrivals(stopped.books)
        missing = [row for row in rows if ("kis", row[0]) not in arrivals and ("kiwoom", row[1]) not in arrivals]
        spans = [(one.feed, one.first, one.last) for one in stopped.lost if one.stream == "orderbook"]
        outside = [row for row in missing if not any(f == row[2] and a <= row[3] <= b for f, a, b in spans)]
        assert missing
        assert outside == []
        got = zip(
            (FEED_NAMES[feed] for feed in stopped.books["line"].tolist()), stopped.books["seq"].tolist(), strict=True
        )
        assert [one for one in got if any(f == one[0] and a <= one[1] <= b for f, a, b in spans)] == []
