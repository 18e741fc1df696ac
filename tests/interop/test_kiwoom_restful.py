"""kiwoom-restful, an independent client library, takes the simulator for Kiwoom.

Its hosts are constants; they are replaced, nothing else is.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.vendor_clients import start_simulator

from brokers.simulator.ground_truth import load
from conf.clock import to_kst

kiwoom = pytest.importorskip("kiwoom", reason="kiwoom-restful is missing: pip install -e .[test,interop]")
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
SYMBOLS = ["005930", "000660"]
ENOUGH = 40
WAIT_S = 30.0


async def collect(host: str) -> tuple[list[Any], list[Any], str, Any]:
    """Log in, register ticks and books, gather until there is enough of both, then ask for today's tick chart."""
    ticks: list[Any] = []
    books: list[Any] = []
    done = asyncio.Event()

    def enough() -> None:
        if min(len(ticks), len(books)) >= ENOUGH:
            done.set()

    async def on_tick(data: Any) -> None:
        ticks.append(data)
        enough()

    async def on_book(data: Any) -> None:
        books.append(data)
        enough()

    async with kiwoom.Bot(host=host, appkey="B" * 43, secretkey="S" * 43) as bot:
        await bot.connect()
        bot.api.add_callback_on_real_data("0B", on_tick)
        bot.api.add_callback_on_real_data("0D", on_book)
        await bot.api.register_tick("1", SYMBOLS)
        await bot.api.register_hoga("1", SYMBOLS)
        await asyncio.wait_for(done.wait(), WAIT_S)
        today = f"{to_kst(time.time_ns()):%Y%m%d}"
        return ticks, books, bot.token(), await bot.candle(SYMBOLS[0], "tick", "stock", today, today)


def test_its_ticks_and_books_are_those_of_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token, LOGIN, REG, PING, frames with several entries: every print and level equals the truth's."""
    options = (
        "--always-open",
        "--symbols",
        ",".join(SYMBOLS),
        "--truth",
        str(tmp_path / "truth"),
        "--books-per-s",
        "20",
        "--history",
        "1500",
    )
    with start_simulator(tmp_path, *options, "--kiwoom-ping-every-s", "0.5", "--kiwoom-merge", "0") as running:
        host = running.ready["kiwoom"]["rest_url"]
        monkeypatch.setattr(kiwoom.config, "REAL", host)
        monkeypatch.setattr(kiwoom.http.socket.Socket, "REAL", host.replace("http", "ws"))
        ticks, books, token, chart = asyncio.run(collect(host))
        running.stop()
        truth = load(tmp_path / "truth")

    assert len(token) > 40
    told_ticks = Counter(
        (row["symbol"].decode(), int(row["price"]), int(row["size"] * row["side"]), int(row["cum_volume"]))
        for row in truth.trades
    )
    got_ticks = Counter(
        (data.item, abs(int(v["10"])), int(v["15"]), int(v["13"])) for data in ticks for v in [json.loads(data.values)]
    )
    told_books = Counter(
        (
            row["symbol"].decode(),
            *(int(number) for name in ("ask_price", "bid_price", "ask_size", "bid_size") for number in row[name]),
        )
        for row in truth.books
    )
    got_books = Counter(
        (data.item, *(abs(int(v[str(fid)])) for fid in range(41, 81)))
        for data in books
        for v in [json.loads(data.values)]
    )
    assert got_ticks <= told_ticks
    assert got_books <= told_books
    mine = truth.trades[truth.trades["symbol"] == SYMBOLS[0].encode()]
    charted = Counter((int(price), int(size)) for price, size in zip(chart["체결가"], chart["거래량"], strict=True))
    assert charted == Counter((int(row["price"]), int(row["size"])) for row in mine[: len(chart)])
    assert len(chart) > 1500
