"""Several connections of one broker: each a thread, a key and a session of its own, all into the broker's rings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.process_tree import a_home, until

from brokers.allocation.allocate import plan
from brokers.allocation.credentials import at_hand
from collectorctl.demo.environment import Simulator, connect_home
from conf.home import Home
from ringbuf.records import STREAMS, Flag
from ringbuf.ring import Consumer
from ringbuf.vitals import Reading, read

SYMBOLS = [f"{n:06}" for n in range(5930, 5930 + 600, 10)]
SETTINGS = f"""
[universe]
kr = {SYMBOLS}
[clock]
start = "2026-11-20T10:00:00+09:00"
[kis]
register_spacing_ms = 10
cut_wait_s = 3.0
[feed]
backoff_first_s = 0.5
backoff_most_s = 1.0
[ring]
orderbook_capacity = 65536
tick_capacity = 65536
""".replace("'", '"')


@pytest.fixture
def root() -> Iterator[Path]:
    """A home of sixty symbols with two KIS keys."""
    with a_home(SETTINGS) as path:
        with (path / ".env").open("a") as file:
            file.write("KIS_APP_KEY_2=second-key\nKIS_APP_SECRET_2=second-secret\n")
        yield path


@pytest.fixture
def simulator(root: Path) -> Iterator[Simulator]:
    """Both brokers."""
    with Simulator(root, root / "truth") as made:
        connect_home(root, made.addresses)
        yield made


@pytest.fixture
def kis(root: Path, simulator: Simulator) -> Iterator[subprocess.Popen[bytes]]:
    """The KIS collector alone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "brokers", "kis"], env=os.environ | {"COLLECTOR_HOME": str(root)}, cwd=root
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        assert process.wait(20) == 0


def vitals(root: Path, name: str = "kis") -> Reading | None:
    """The collector's page, None before there is one."""
    try:
        return read(Home(root).vitals(name))
    except FileNotFoundError:
        return None


def until_streaming(root: Path) -> Reading:
    """Both connections stream."""

    def there() -> Reading | None:
        found = vitals(root)
        return found if found and found.state == "streaming" and found.counters["connected"] == 2 else None

    return until("both connections stream", there, 60)


def records(root: Path, stream: str, name: str = "kis") -> np.ndarray:
    """All that is in a ring."""
    ring = Consumer.open(Home(root).ring(name, stream), STREAMS[stream])
    try:
        return ring.read(ring.oldest, 1 << 20).records
    finally:
        ring.close()


def test_two_keys_stream_sixty_symbols_and_one_that_is_cut_disturbs_nothing_else(
    root: Path, simulator: Simulator, kis: subprocess.Popen[bytes]
) -> None:
    """82 registrations on two sessions; the second is ended by the server: the first goes on without a new subscription,
    the second comes back, and every number on the rings is there once."""
    home = Home(root)
    planned = plan(home.settings, at_hand(home)).connections["kis"]
    own = [
        {r.instrument.symbol.encode() for r in connection.registrations if r.stream == "orderbook"}
        for connection in planned
    ]
    before = until_streaming(root)
    until("books of all", lambda: len(set(records(root, "orderbook")["symbol"].tolist())) == 60, 60)

    simulator.tell("kis cut 2")
    until("the cut is noticed", lambda: vitals(root).counters["disconnects"] == 1)
    cut_ns = time.monotonic_ns()
    after = until_streaming(root)
    until(
        "books of all again",
        lambda: len({r["symbol"] for r in records(root, "orderbook") if r["mono_ns"] > cut_ns}) == 60,
        60,
    )

    assert [len(connection.registrations) for connection in planned] == [41, 41]
    assert before.counters["acknowledged"] == after.counters["acknowledged"] == 82
    assert (after.counters["connects"], after.counters["disconnects"]) == (3, 1)
    books = records(root, "orderbook")
    first = books[(books["flags"] & Flag.SNAPSHOT) > 0]
    counts = [sorted((first["symbol"] == symbol).sum() for symbol in symbols) for symbols in own]
    assert [set(count) for count in counts if set(count) == {1}] != [], "one connection was never renewed"
    assert [set(count) for count in counts if set(count) == {2}] != [], "and the other once"
    for stream in STREAMS:
        found = records(root, stream)
        assert (np.diff(found["seq"]) == 1).all()
        for symbol in set(found["symbol"].tolist()):
            assert (np.diff(found["mono_ns"][found["symbol"] == symbol]) >= 0).all(), (
                "one symbol's records stay in order"
            )


def test_a_key_that_is_in_use_elsewhere_is_said_while_the_other_streams(root: Path, simulator: Simulator) -> None:
    """The state is the refused one's, the words name its key, and the other one's data come."""
    import json

    import requests
    from websocket import create_connection

    urls = simulator.addresses["kis"]
    keys = {"appkey": "second-key", "secretkey": "second-secret"}
    approval = requests.post(f"{urls['rest_url']}/oauth2/Approval", json=keys, timeout=10).json()["approval_key"]
    other = create_connection(urls["ws_url"])
    header = {"approval_key": approval, "custtype": "P", "tr_type": "1", "content-type": "utf-8"}
    other.send(json.dumps({"header": header, "body": {"input": {"tr_id": "H0STCNT0", "tr_key": "005930"}}}))
    assert "OPSP0000" in other.recv()
    process = subprocess.Popen(
        [sys.executable, "-m", "brokers", "kis"], env=os.environ | {"COLLECTOR_HOME": str(root)}, cwd=root
    )
    try:
        words = "1 of 2 connections stream; key 2: refused: OPSP8996"
        said = until("it is said", lambda: (v := vitals(root)) and v.detail.startswith(words) and v, 60)
        until("the other's books", lambda: len(set(records(root, "orderbook")["symbol"].tolist())) >= 20, 60)
    finally:
        process.terminate()
        assert process.wait(20) == 0
        other.close()

    assert said.state == "refused"
    assert said.counters["connected"] == 1
    assert "second-key" not in (root / "log" / "kis.log").read_text()


def test_two_kiwoom_keys_hold_twice_the_symbols(root: Path) -> None:
    """Each key has a token and a connection of its own, with half of the symbols, ticks and books together."""
    with (root / ".env").open("a") as file:
        file.write("KIWOOM_APP_KEY_2=second-key-of-kiwoom\nKIWOOM_APP_SECRET_2=second-secret-of-kiwoom\n")
    (root / "collector.toml").write_text(f"{SETTINGS}\n[kiwoom]\nregistrations = 30\n")
    with Simulator(root, root / "truth", "--kiwoom-registrations", "30") as simulator:
        connect_home(root, simulator.addresses)
        home = Home(root)
        planned = plan(home.settings, at_hand(home)).connections["kiwoom"]
        process = subprocess.Popen(
            [sys.executable, "-m", "brokers", "kiwoom"], env=os.environ | {"COLLECTOR_HOME": str(root)}, cwd=root
        )
        try:
            found = until("both stream", lambda: (v := vitals(root, "kiwoom")) and v.counters["up_keys"] == 3 and v, 60)
            until("books of all", lambda: len(set(records(root, "orderbook", "kiwoom")["symbol"].tolist())) == 60, 60)
        finally:
            process.terminate()
            assert process.wait(20) == 0

    assert [len({r.instrument for r in connection.registrations}) for connection in planned] == [30, 30]
    assert (found.state, found.counters["connected"], found.counters["refused"]) == ("streaming", 2, 0)
    assert {path.name for path in (root / "run" / "token").glob("*.json")} == {"kiwoom.json", "kiwoom-2.json"}
