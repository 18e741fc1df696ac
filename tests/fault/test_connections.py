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
from support.process_tree import temporary_home, wait_until

from brokers.allocation.allocate import plan_connections
from brokers.allocation.credentials import key_counts
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from conf.home import Home
from ringbuf.records import STREAMS, Flag
from ringbuf.ring import Consumer
from ringbuf.vitals import VitalsSnapshot, read_snapshot

SYMBOLS = [f"{n:06}" for n in range(5930, 5930 + 600, 10)]
SETTINGS = f"""
[universe]
kr = {SYMBOLS}
[clock]
start = "2026-11-20T10:00:00+09:00"
[kis]
subscribe_spacing_ms = 10
cut_wait_s = 3.0
[feed]
backoff_first_s = 0.5
backoff_max_s = 1.0
max_connects_per_hour = 100000
[ring]
orderbook_capacity = 65536
tick_capacity = 65536
""".replace("'", '"')


@pytest.fixture
def root() -> Iterator[Path]:
    """A home of sixty symbols with two KIS keys."""
    with temporary_home(SETTINGS) as path:
        with (path / ".env").open("a") as file:
            file.write("KIS_APP_KEY_2=second-key\nKIS_APP_SECRET_2=second-secret\n")
        yield path


@pytest.fixture
def simulator(root: Path) -> Iterator[SimulatorProcess]:
    """Both brokers."""
    with SimulatorProcess(root, root / "truth") as made:
        set_addresses(root, made.addresses)
        yield made


@pytest.fixture
def kis(root: Path, simulator: SimulatorProcess) -> Iterator[subprocess.Popen[bytes]]:
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


def vitals(root: Path, name: str = "kis") -> VitalsSnapshot | None:
    """The collector's page, None before there is one."""
    try:
        return read_snapshot(Home(root).vitals_path(name))
    except FileNotFoundError:
        return None


def until_streaming(root: Path) -> VitalsSnapshot:
    """Both connections stream."""

    def there() -> VitalsSnapshot | None:
        found = vitals(root)
        return found if found and found.state == "streaming" and found.counters["connected"] == 2 else None

    return wait_until("both connections stream", there, 60)


def records(root: Path, stream: str, name: str = "kis") -> np.ndarray:
    """All that is in a ring."""
    ring = Consumer.open(Home(root).ring_path(name, stream), STREAMS[stream])
    try:
        return ring.read(ring.oldest, 1 << 20).records
    finally:
        ring.close()


def test_two_keys_stream_sixty_symbols_and_one_that_is_cut_disturbs_nothing_else(
    root: Path, simulator: SimulatorProcess, kis: subprocess.Popen[bytes]
) -> None:
    """82 registrations on two sessions; the second is ended by the server: the first goes on without a new subscription,
    the second comes back, and every number on the rings is there once."""
    home = Home(root)
    planned = plan_connections(home.settings, key_counts(home)).connections["kis"]
    own = [
        {r.instrument.symbol.encode() for r in connection.subscriptions if r.stream == "orderbook"}
        for connection in planned
    ]
    before = until_streaming(root)
    wait_until("books of all", lambda: len(set(records(root, "orderbook")["symbol"].tolist())) == 60, 60)

    simulator.send_command("kis cut 2")
    wait_until("the cut is noticed", lambda: vitals(root).counters["disconnects"] == 1)
    cut_ns = time.monotonic_ns()
    after = until_streaming(root)
    wait_until(
        "books of all again",
        lambda: len({r["symbol"] for r in records(root, "orderbook") if r["mono_ns"] > cut_ns}) == 60,
        60,
    )

    assert [len(connection.subscriptions) for connection in planned] == [41, 41]
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


def test_a_key_that_is_in_use_elsewhere_is_said_while_the_other_streams(
    root: Path, simulator: SimulatorProcess
) -> None:
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
        said = wait_until("it is said", lambda: (v := vitals(root)) and v.detail.startswith(words) and v, 60)
        wait_until("the other's books", lambda: len(set(records(root, "orderbook")["symbol"].tolist())) >= 20, 60)
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
    (root / "collector.toml").write_text(f"{SETTINGS}\n[kiwoom]\nmax_subscriptions = 30\n")
    with SimulatorProcess(root, root / "truth", "--kiwoom-registrations", "30") as simulator:
        set_addresses(root, simulator.addresses)
        home = Home(root)
        planned = plan_connections(home.settings, key_counts(home)).connections["kiwoom"]
        process = subprocess.Popen(
            [sys.executable, "-m", "brokers", "kiwoom"], env=os.environ | {"COLLECTOR_HOME": str(root)}, cwd=root
        )
        try:
            found = wait_until(
                "both stream", lambda: (v := vitals(root, "kiwoom")) and v.counters["up_keys"] == 3 and v, 60
            )
            wait_until(
                "books of all", lambda: len(set(records(root, "orderbook", "kiwoom")["symbol"].tolist())) == 60, 60
            )
        finally:
            process.terminate()
            assert process.wait(20) == 0

    assert [len({r.instrument for r in connection.subscriptions}) for connection in planned] == [30, 30]
    assert (found.state, found.counters["connected"], found.counters["refused"]) == ("streaming", 2, 0)
    assert {path.name for path in (root / "run" / "token").glob("*.json")} == {"kiwoom.json", "kiwoom-2.json"}
