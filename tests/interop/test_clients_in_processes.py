"""Four public client libraries, each in a process of its own, take the simulator for the vendor and find the truth.

Their hosts are replaced by whatever way each of them offers (clients/); what each can do: docs/clients.md.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.vendor_clients import start_simulator

from brokers.simulator.ground_truth import GroundTruth, load

CLIENTS = Path(__file__).parent / "clients"
SYMBOLS = ["005930", "000660"]
LEVELS = ("ask_price", "bid_price", "ask_size", "bid_size")
WAIT_S = 150


def run_client(name: str, package: str, root: Path, *options: str) -> tuple[dict[str, Any], GroundTruth]:
    """What the client received, and the truth."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is missing: pip install -e .[test,interop]")
    options = ("--always-open", "--symbols", ",".join(SYMBOLS), "--truth", str(root / "truth"), *options)
    environment = os.environ | {
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "KIS_TOKEN_PATH": str(root / "KIS_Token.json"),
    }
    with start_simulator(root, *options, "--books-per-s", "20", "--history", "2000") as running:
        client = subprocess.run(
            [sys.executable, str(CLIENTS / f"{name}.py"), json.dumps(running.ready), ",".join(SYMBOLS)],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        running.stop()
    assert client.returncode == 0, client.stderr
    return json.loads(client.stdout.splitlines()[-1]), load(root / "truth")


def assert_received_is_true(received: dict[str, Any], truth: GroundTruth, signed: bool) -> None:
    """Every trade and every book that the client handed out is one of the truth's, of every symbol, each at most once."""
    told_trades = Counter(
        (
            row["symbol"].decode(),
            int(row["price"]),
            int(row["size"] * (row["side"] if signed else 1)),
            int(row["cum_volume"]),
        )
        for row in truth.trades
    )
    told_books = Counter(
        (row["symbol"].decode(), *(int(number) for name in LEVELS for number in row[name])) for row in truth.books
    )
    assert Counter(map(tuple, received["trades"])) <= told_trades
    assert Counter(map(tuple, received["books"])) <= told_books
    assert {row[0] for row in received["trades"]} == {row[0] for row in received["books"]} == set(SYMBOLS)


def assert_price_is_true(answer: dict[str, Any], symbol: str, truth: GroundTruth) -> None:
    """Price and volume of a KIS quotation are those of one trade."""
    told = {(str(row["price"]), str(row["cum_volume"])) for row in truth.trades if row["symbol"] == symbol.encode()}
    output = answer["output"]
    assert (answer["rt_cd"], output["stck_shrn_iscd"]) == ("0", symbol)
    assert (output["stck_prpr"], output["acml_vol"]) in told


def assert_tick_rows_are_true(rows: list[dict[str, str]], truth: GroundTruth) -> None:
    """The pages of ka10079 are today's trades of the first symbol, newest first, none missing and none twice."""
    mine = truth.trades[truth.trades["symbol"] == SYMBOLS[0].encode()]
    told = [(int(row["price"]), int(row["size"])) for row in mine][::-1]
    got = [(abs(int(row["cur_prc"])), int(row["trde_qty"])) for row in rows]
    begin = next(at for at in range(len(told)) if told[at : at + 20] == got[:20])
    today = len(told) - begin
    assert got[:today] == told[begin:]
    assert today >= 2000


def test_mojito2_finds_the_truth(tmp_path: Path) -> None:
    """Both streams of two codes, frames of several trades at the widths of its day; lower-case queries, two slashes in a path."""
    received, truth = run_client("run_mojito2", "mojito", tmp_path, "--kis-width-profile", "46/59")

    assert_received_is_true(received, truth, signed=False)
    for symbol in SYMBOLS:
        assert_price_is_true(received["rest"][symbol], symbol, truth)
    bars = received["rest"]["bars"]["output2"]
    told = {str(row["cum_volume"]) for row in truth.trades if row["symbol"] == SYMBOLS[0].encode()}
    assert received["rest"]["bars"]["output1"]["acml_vol"] in told
    assert len(bars) == 30


def test_kis_agent_finds_the_truth(tmp_path: Path) -> None:
    """Token, approval key, acknowledgements awaited one by one, Pings in place of PINGPONG; price and latest trades."""
    received, truth = run_client("run_kis_agent", "kis_agent", tmp_path)

    assert_received_is_true(received, truth, signed=False)
    for symbol in SYMBOLS:
        assert_price_is_true(received["rest"][symbol], symbol, truth)
    told = {(str(row["price"]), str(row["size"])) for row in truth.trades if row["symbol"] == SYMBOLS[0].encode()}
    book = received["rest"]["book"]["output1"]
    names = ("askp", "bidp", "askp_rsqn", "bidp_rsqn")
    levels = tuple(int(book[f"{name}{level}"]) for name in names for level in range(1, 11))
    assert levels in {
        tuple(int(number) for name in LEVELS for number in row[name])
        for row in truth.books
        if row["symbol"] == SYMBOLS[0].encode()
    }
    rows = received["rest"]["ccnl"]["output"]
    assert len(rows) == 30
    assert {(str(row["stck_prpr"]), str(row["cntg_vol"])) for row in rows} <= told


@pytest.mark.parametrize(
    ("name", "package"), [("run_kiwoom_client", "kiwoom_client"), ("run_kiwoomrest", "kiwoomRest")]
)
def test_kiwoom_clients_find_the_truth(tmp_path: Path, name: str, package: str) -> None:
    """Token, LOGIN, REG with its reply, PING, entries of both types; the tick chart by page keys; the latest trades."""
    received, truth = run_client(name, package, tmp_path, "--kiwoom-ping-every-s", "0.5", "--kiwoom-merge", "0")

    assert_received_is_true(received, truth, signed=True)
    assert_tick_rows_are_true(received["rest"]["ticks"], truth)
    told = {
        (int(row["price"]), int(row["size"] * row["side"]), int(row["cum_volume"]))
        for row in truth.trades
        if row["symbol"] == SYMBOLS[0].encode()
    }
    rows = received["rest"]["trades"]
    assert rows
    assert {(abs(int(row["cur_prc"])), int(row["cntr_trde_qty"]), int(row["acc_trde_qty"])) for row in rows} <= told
