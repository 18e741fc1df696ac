"""Frames that were put aside come back: once, whatever happens meanwhile."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from support import kill_at_write
from support.day_fixture import publish_ticks
from support.hostile_server import HostileServer, build_frame
from support.process_tree import run_collectorctl, temporary_home, wait_until

from brokers.feed.quarantine import Quarantine
from conf.home import Home
from ringbuf.records import TICK, FeedId, Flag, Session, Venue, empty_records
from ringbuf.vitals import read_snapshot

DAY = "2026-11-20"
TEN = 1_795_136_400 * 10**9
"""10:00 that day in Seoul."""
YESTERDAY = 'start = "2026-11-21T10:00:00+09:00"'


def settings(universe: list[str], start: str = f'start = "{DAY}T10:00:00+09:00"', more: str = "") -> str:
    """A home's settings."""
    return f"""
    universe.kr = {json.dumps(universe)}
    clock = {{ {start} }}
    ring = {{ orderbook_capacity = 4096, tick_capacity = 4096 }}
    {more}
    """


def kis_tick(cum_volume: int, symbol: str = "000660", size: int = 1, price: str = "72000") -> str:
    """A trade."""
    return f"0|H0STCNT0|001|{'^'.join(kis_fields(cum_volume, symbol, size, price))}"


def kis_fields(cum_volume: int, symbol: str = "000660", size: int = 1, price: str = "72000") -> list[str]:
    """A trade's fields."""
    fields = ["0"] * 47
    fields[:3] = [symbol, "100000", price]
    fields[12:15] = [str(size), str(cum_volume), str(72000 * cum_volume)]
    return fields


def kis_book(cum_volume: int, symbol: str = "000660") -> str:
    """A book whose content depends on its cumulative volume."""
    fields = ["0"] * 63
    fields[:3] = [symbol, "100000", "0"]
    fields[3:13] = [str(72100 + 100 * n) for n in range(10)]
    fields[13:23] = [str(72000 - 100 * n) for n in range(10)]
    fields[23:43] = ["10"] * 20
    fields[43:45], fields[53], fields[62] = ["100", "100"], str(cum_volume), "2"
    return f"0|H0STASP0|001|{'^'.join(fields)}"


def kiwoom_book(cum_volume: int, item: str = "000660") -> str:
    """The same book by Kiwoom."""
    values = {"21": "100000", "121": "100", "125": "100", "13": str(cum_volume)}
    values |= {str(41 + n): str(72100 + 100 * n) for n in range(10)} | {
        str(51 + n): str(72000 - 100 * n) for n in range(10)
    }
    values |= {str(fid): "10" for fid in range(61, 81)}
    return json.dumps({"trnm": "REAL", "data": [{"type": "0D", "name": "x", "item": item, "values": values}]})


def rows(root: Path, stream: str) -> pd.DataFrame:
    """A dataset as a user reads it; empty if there is none."""
    directory = root / "data" / "kr" / stream
    return pd.read_parquet(directory) if directory.is_dir() else pd.DataFrame({"cum_volume": []})


def put_aside(root: Path, name: str, suffix: str = "") -> list[dict[str, Any]]:
    """The lines of a broker's quarantine file."""
    file = root / "data" / "quarantine" / f"date={DAY}" / f"{name}{suffix}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def again(root: Path, *options: str) -> dict[str, Any]:
    """Run the command."""
    return json.loads(run_collectorctl(root, "reprocess", "--date", DAY, "--json", *options).stdout)


@contextmanager
def process(root: Path, *module: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the home, ended at the end in order."""
    popen = subprocess.Popen([sys.executable, "-m", *module], env=os.environ | {"COLLECTOR_HOME": str(root)})
    try:
        yield popen
        popen.send_signal(signal.SIGTERM)
        assert popen.wait(30) == 0
    finally:
        popen.kill()
        popen.wait()


def counter(root: Path, name: str, pid: int, counter: str) -> int:
    """A counter of a running process, 0 before there is one."""
    try:
        vitals = read_snapshot(Home(root).vitals_path(name))
    except FileNotFoundError:
        return 0
    return vitals.counters[counter] if vitals.pid == pid else 0


def test_a_real_collectors_quarantine_comes_back_exactly_once() -> None:
    """Frames of an instrument that was forgotten in the settings: put aside by the collector, placed when it is named, with the
    text's own numbers and the time of receipt; what still is nothing stays; running it again changes nothing."""
    server = HostileServer("kis")
    frames = [
        *(kis_tick(n, size=n, price=str(72000 + n)) for n in range(1, 6)),
        kis_book(7),
        kis_tick(9, "068270"),
        "no frame",
    ]
    address = f"127.0.0.1:{server.port}"
    urls = f'kiwoom.enabled = false\n[kis]\nws_url = "ws://{address}/"\nrest_url = "http://{address}"'
    with temporary_home(settings(["005930"], more=urls)) as root:
        with process(root, "brokers", "kis") as collector:
            wait_until("it streams", lambda: counter(root, "kis", collector.pid, "acknowledged") == 2)
            for text in frames:
                assert server.send(build_frame(text))
            wait_until("all are put aside", lambda: counter(root, "kis", collector.pid, "quarantined") == len(frames))
            busy = run_collectorctl(root, "reprocess", "--date", DAY, check=False)
        kept = put_aside(root, "kis")
        nothing_yet = again(root)
        (root / "collector.toml").write_text(settings(["005930", "000660"], more=urls))
        would = again(root, "--dry-run")
        untouched = put_aside(root, "kis")
        did = again(root)
        ticks, books = rows(root, "tick"), rows(root, "orderbook")
        repeated = again(root)
        ticks_again, books_again = rows(root, "tick"), rows(root, "orderbook")
        left, placed = put_aside(root, "kis"), put_aside(root, "kis", ".placed")
        metadata = pq.read_metadata(next((root / "data" / "kr" / "tick").rglob("*.parquet"))).metadata
    server.close()

    assert busy.returncode == 75
    assert "kis.lock" in busy.stderr
    assert nothing_yet["frames"] == {"kis": 0, "kiwoom": 0, "us": 0}
    assert sum(nothing_yet["remaining"].values()) == len(frames)
    assert (would["frames"], would["rows"]) == (did["frames"], did["rows"])
    assert untouched == kept
    assert did["frames"]["kis"] == 6
    assert did["rows"] == {"kr.orderbook": 1, "kr.tick": 5}
    assert sum(did["remaining"].values()) == 2
    assert ticks["symbol"].tolist() == ["000660"] * 5
    assert [str(n) for n in ticks["cum_volume"]] == [text.split("^")[13] for text in frames[:5]]
    assert [str(n) for n in ticks["size"]] == [text.split("^")[12] for text in frames[:5]]
    assert [str(n) for n in ticks["price"]] == [text.split("^")[2] for text in frames[:5]]
    assert [ts.value for ts in ticks["recv_time"]] == [line["recv_ns"] for line in kept[:5]]
    assert all(flags & Flag.LATE for flags in [*ticks["flags"], *books["flags"]])
    assert set(ticks["session"]) == {"regular"}
    assert books["cum_volume"].tolist() == [7]
    assert books["recv_time_kiwoom"].isna().all()
    assert metadata[b"lineage"].startswith(b"requarantine/")
    assert [line["text"] for line in left] == frames[6:]
    assert [line["text"] for line in placed] == frames[:6]
    assert repeated["frames"] == {"kis": 0, "kiwoom": 0, "us": 0}
    assert len(ticks_again) == 5
    assert len(books_again) == 1


def test_a_book_the_other_broker_had_delivered_is_not_doubled() -> None:
    """A and B came from Kiwoom and are published; of KIS's A, B and C, put aside, only C is a new row."""
    kis, kiwoom = HostileServer("kis"), HostileServer("kiwoom")
    urls = "writer.twin_window_s = 60\nwriter.grace_s = 70\n" + "".join(
        f'{server.kind}.ws_url = "ws://127.0.0.1:{server.port}/"\n{server.kind}.rest_url = "http://127.0.0.1:{server.port}"\n'
        for server in (kis, kiwoom)
    )
    with temporary_home(settings(["005930"], more=urls)) as root:
        with process(root, "brokers", "kis") as collector:
            wait_until("kis streams", lambda: counter(root, "kis", collector.pid, "acknowledged") == 2)
            for volume in (1, 2, 3):
                assert kis.send(build_frame(kis_book(volume)))
            wait_until("all are put aside", lambda: counter(root, "kis", collector.pid, "quarantined") == 3)
        (root / "collector.toml").write_text(settings(["005930", "000660"], more=urls))
        with process(root, "writer") as writer:
            with process(root, "brokers", "kiwoom") as collector:
                wait_until("kiwoom streams", lambda: counter(root, "kiwoom", collector.pid, "acknowledged") == 3)
                for volume in (1, 2):
                    assert kiwoom.send(build_frame(kiwoom_book(volume)))
                wait_until("the writer has both", lambda: counter(root, "writer", writer.pid, "books_new") == 2)
            busy = run_collectorctl(root, "reprocess", "--date", DAY, check=False)
        did = again(root)
        books = rows(root, "orderbook").sort_values("cum_volume")
    kis.close()
    kiwoom.close()

    assert busy.returncode == 75
    assert did["already_stored"] == 2
    assert did["rows"]["kr.orderbook"] == 1
    assert books["cum_volume"].tolist() == [1, 2, 3]
    assert books["broker"].tolist() == ["kiwoom", "kiwoom", "kis"]


@pytest.fixture
def home() -> Iterator[Path]:
    """A home the day after, with a quarantine of both brokers: ticks, a book of both, a frame of which one part is none."""
    with temporary_home(settings(["005930", "000660"], YESTERDAY)) as root:
        found = Home(root)
        found.create_directories()
        quarantine = {name: Quarantine(found.quarantine_directory(), name, 1 << 20) for name in ("kis", "kiwoom")}
        texts = [kis_tick(1), kis_tick(2), kis_tick(2), kis_book(5), "never a frame"]
        broken = [*kis_fields(3), *kis_fields(4, price="x"), *kis_fields(5)]
        texts.append(f"0|H0STCNT0|003|{'^'.join(broken)}")
        for nth, text in enumerate(texts):
            # the two that are alike came in one read
            assert (
                quarantine["kis"].append(
                    text.encode(), "r", TEN + min(nth, 1 if nth == 2 else nth) * 10**9, nth if nth != 2 else 1
                )
                == ""
            )
        assert quarantine["kis"].append(kis_tick(6).encode(), "r", TEN + 3600 * 10**9, 99) == ""
        assert quarantine["kiwoom"].append(kiwoom_book(5).encode(), "r", TEN + 4 * 10**9, 3) == ""
        assert quarantine["kiwoom"].append(b"\xff\xfe", "r", TEN, 4) == ""
        yield root


def test_a_tick_that_was_fetched_meanwhile_is_not_doubled(home: Path) -> None:
    """Stored are the recovered ticks of volume 1 and 5, and one of 6 at another price: what says the same of the same shares stays
    aside in the text alone, what contradicts is placed beside it."""
    ticks = empty_records(TICK, 3)
    ticks["symbol"], ticks["venue"], ticks["line"] = b"000660", Venue.KRX, FeedId.GAPFILL
    ticks["cum_volume"], ticks["size"], ticks["price_e4"] = [1, 5, 6], 1, np.array([72_000, 72_000, 71_000]) * 10_000
    ticks["exch_ns"], ticks["session"] = TEN, Session.REGULAR
    publish_ticks(home, ticks)

    did = again(home)

    found = rows(home, "tick").sort_values(["cum_volume", "source"])
    assert 3 == did["ticks_covered"]  # the second of two alike is one of them
    assert [(1, "recovered"), (2, "live"), (3, "live"), (5, "recovered"), (6, "live"), (6, "recovered")] == list(
        zip(found.cum_volume.tolist(), found.source.tolist(), strict=True)
    )
    assert {"kis": 0, "kiwoom": 0, "us": 0} == again(home)["frames"]


def test_of_ticks_that_are_stored_in_the_hour_before_only_the_rest_is_placed(home: Path) -> None:
    """One trade was stamped 09:59:59 by the other feed; of a merged one the middle is stored, the rest is placed in two rows."""
    ticks = empty_records(TICK, 2)
    ticks["symbol"], ticks["venue"], ticks["line"] = b"000660", Venue.KRX, FeedId.KIWOOM
    ticks["cum_volume"], ticks["size"], ticks["price_e4"] = [1, 17], [1, 4], 72_000 * 10_000
    ticks["exch_ns"], ticks["recv_ns"], ticks["session"] = TEN - 10**9, TEN - 10**9, Session.REGULAR
    publish_ticks(home, ticks)
    quarantine = Quarantine(Home(home).quarantine_directory(), "kis", 1 << 20)
    assert quarantine.append(kis_tick(20, size=10).encode(), "r", TEN + 9 * 10**9, 9) == ""

    again(home)

    found = rows(home, "tick").sort_values("cum_volume")
    assert [(1, 1), (2, 1), (3, 1), (5, 1), (6, 1), (13, 3), (17, 4), (20, 3)] == list(
        zip(found.cum_volume.tolist(), found["size"].tolist(), strict=True)
    )
    assert [13, 20] == found[(found["flags"] & int(Flag.SPLIT)) != 0].cum_volume.tolist()
    assert [True, False] == found[(found["flags"] & int(Flag.SPLIT)) != 0].cum_value.isna().tolist()
    assert {"kis": 0, "kiwoom": 0, "us": 0} == again(home)["frames"]


def assert_placed_once(root: Path) -> None:
    """Every row of the quarantine above, once; what was no frame, and the part that was none, put aside."""
    assert [1, 2, 3, 5, 6] == sorted(rows(root, "tick")["cum_volume"])
    books = rows(root, "orderbook")
    assert books["cum_volume"].tolist() == [5]
    assert books["recv_time_kis"].notna().all()
    assert books["recv_time_kiwoom"].notna().all()
    left = put_aside(root, "kis")
    assert [line["text"].split("^")[0] for line in left] == ["never a frame", "0|H0STCNT0|001|000660"]
    assert "is no price" in left[1]["reason"]
    assert [line["base64"] for line in put_aside(root, "kiwoom")] == ["//4="]
    assert len(put_aside(root, "kis", ".placed")) == 6
    assert len(put_aside(root, "kiwoom", ".placed")) == 1
    directory = root / "data" / "quarantine" / f"date={DAY}"
    assert {"kis.jsonl", "kis.placed.jsonl", "kiwoom.jsonl", "kiwoom.placed.jsonl"} == {
        p.name for p in directory.iterdir()
    }
    assert [path for path in (root / "data" / "kr").rglob("*.tmp")] == []


def test_a_frame_is_split_a_book_of_both_is_one_row_and_so_are_alike_ticks(home: Path) -> None:
    """Two frames of one read may be equal to the byte: the same shares, so one row."""
    did = again(home)

    assert did["rows"] == {"kr.orderbook": 2, "kr.tick": 5}
    assert sum(did["remaining"].values()) == 3
    assert_placed_once(home)


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.long)])
def test_killed_before_an_effect_on_the_disk_and_run_again_it_places_everything_once(home: Path, every: int) -> None:
    """SIGKILL before each effect (every fifth in the short form), each time on a copy of the home; the next run finishes."""
    fork = multiprocessing.get_context("forkserver")
    fork.set_forkserver_preload(["collectorctl.reprocess.job"])
    places = []
    for at in range(1, 1000, every):
        with copied(home) as root:
            child = fork.Process(target=kill_at_write.run_and_kill, args=(root, date.fromisoformat(DAY), at))
            child.start()
            child.join(120)
            if child.exitcode == 0:
                break
            assert child.exitcode == -signal.SIGKILL
            finisher = fork.Process(target=kill_at_write.run_and_kill, args=(root, date.fromisoformat(DAY), 0))
            finisher.start()
            finisher.join(120)
            assert finisher.exitcode == 0, f"after a kill before effect {at}"
            assert_placed_once(root)
            places.append(at)

    assert len(places) > 60 // every


@contextmanager
def copied(home: Path) -> Iterator[Path]:
    """A copy of its data and settings."""
    with temporary_home((home / "collector.toml").read_text()) as root:
        shutil.copytree(home / "data", root / "data", dirs_exist_ok=True)
        yield root


def test_it_works_beside_a_writer_on_a_date_that_is_over(home: Path) -> None:
    """The files have names of their own."""
    with process(home, "writer") as writer:
        wait_until(
            "the writer runs",
            lambda: (
                Home(home).vitals_path("writer").exists()
                and read_snapshot(Home(home).vitals_path("writer")).pid == writer.pid
            ),
        )
        again(home)

        assert_placed_once(home)


def test_two_at_once_are_refused(home: Path) -> None:
    """The second says which process holds it."""
    found = Home(home)
    holder = (
        "import sys; from conf.process import ShutdownSignal, acquire_lock; from pathlib import Path\n"
        "acquire_lock(Path(sys.argv[1]), ShutdownSignal()); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(found.lock_path("requarantine"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b"held\n"
        refused = run_collectorctl(home, "reprocess", "--date", DAY, check=False)
        other.communicate(b"")

    assert refused.returncode == 75
    assert str(other.pid) in refused.stderr


def test_a_date_without_a_quarantine_says_so_in_words(home: Path) -> None:
    """Nothing to do is no error."""
    told = run_collectorctl(home, "reprocess", "--date", "2026-11-19")

    assert "stored: no rows" in told.stdout
