"""python-kis, an independent client library, takes the simulator for KIS.

It knows the widths of its day (46 fields a trade, 59 a book: docs/wire/kis.md 8, items 1 and 2) and refuses frames of today's,
so the simulator speaks the profile 46/59 here. Its hosts are constants; they are replaced, nothing else is.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from datetime import time
from pathlib import Path
from typing import Any

import pytest
from support.vendor_clients import start_simulator

from brokers.simulator.ground_truth import load
from conf.clock import SECOND_NS, to_kst

pykis = pytest.importorskip("pykis", reason="python-kis is missing: pip install -e .[test,interop]")
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
ENOUGH = 40
WAIT_S = 30.0


class Received:
    """What the library handed out, and when it was enough."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.enough = threading.Event()

    def take(self, client: Any, event: Any) -> None:
        """A callback of the library."""
        self.rows.append(event.response)
        if len(self.rows) >= ENOUGH:
            self.enough.set()


def test_its_trades_and_books_are_those_of_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token, approval key, registrations, multi-record frames, price: every field the library exposes equals the truth's."""
    options = ("--always-open", "--symbols", "005930", "--truth", str(tmp_path / "truth"), "--books-per-s", "20")
    with start_simulator(tmp_path, *options, "--kis-width-profile", "46/59") as running:
        monkeypatch.setattr(pykis.kis, "REAL_DOMAIN", running.ready["kis"]["rest_url"])
        monkeypatch.setattr(pykis.client.websocket, "WEBSOCKET_REAL_DOMAIN", running.ready["kis"]["ws_url"])
        kis = pykis.PyKis(
            id="someone",
            account="00000000-01",
            appkey="A" * 36,
            secretkey="S" * 180,
            keep_token=False,
            use_websocket=True,
        )
        token = kis.token
        trades, books = Received(), Received()
        stock = kis.stock("005930")
        tickets = [stock.on("price", trades.take), stock.on("orderbook", books.take)]
        assert trades.enough.wait(WAIT_S), f"{len(trades.rows)} trades"
        assert books.enough.wait(WAIT_S), f"{len(books.rows)} books"
        for ticket in tickets:
            ticket.unsubscribe()
        kis.websocket.disconnect()
        quote = stock.quote()
        running.stop()
        truth = load(tmp_path / "truth")

    assert (stock.symbol, stock.market) == ("005930", "KRX")
    assert_trade_of_the_truth(truth.trades, quote)
    assert quote.low_limit <= quote.low <= quote.price <= quote.high <= quote.high_limit
    assert not token.expired
    assert token.type == "Bearer"
    told_trades = Counter(
        (
            int(row["price"]),
            int(row["cum_volume"]),
            int(row["cum_value"]),
            int(row["ask_price_1"]),
            int(row["bid_price_1"]),
        )
        for row in truth.trades
    )
    got_trades = Counter(
        (int(row.price), row.volume, int(row.amount), int(row.ask), int(row.bid)) for row in trades.rows
    )
    told_books = Counter(
        tuple(int(number) for name in ("ask_price", "ask_size", "bid_price", "bid_size") for number in row[name])
        for row in truth.books
    )
    got_books = Counter(
        tuple(
            int(number)
            for side in (row.asks, row.bids)
            for number in (*(level.price for level in side), *(level.volume for level in side))
        )
        for row in books.rows
    )
    assert {"005930"} == {row.symbol for row in trades.rows + books.rows}
    assert got_trades <= told_trades
    assert got_books <= told_books
    volumes = [row.volume for row in trades.rows]
    assert volumes == sorted(volumes)


def assert_trade_of_the_truth(trades: Any, quote: Any) -> None:
    """Price, volume and value of a quote are those of one trade."""
    told = {(int(row["price"]), int(row["cum_volume"]), int(row["cum_value"])) for row in trades}
    assert (int(quote.price), int(quote.volume), int(quote.amount)) in told


def test_its_minute_chart_has_the_volumes_of_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of 30 bars back to the open: each minute that is over has the volume of its trades."""
    (tmp_path / "collector.toml").write_text('[clock]\nstart = "2026-11-20T11:00:00+09:00"\n')
    options = ("--symbols", "005930", "--truth", str(tmp_path / "truth"), "--history", "2000")
    with start_simulator(tmp_path, *options) as running:
        running.send_command("market rest")
        monkeypatch.setattr(pykis.kis, "REAL_DOMAIN", running.ready["kis"]["rest_url"])
        kis = pykis.PyKis(id="someone", account="00000000-01", appkey="A" * 36, secretkey="S" * 180, keep_token=False)
        bars = kis.stock("005930").day_chart(end=time(10, 58)).bars
        running.stop()
        truth = load(tmp_path / "truth")

    got = {int(bar.time.timestamp()) // 60: bar.volume for bar in bars if bar.volume}
    told: dict[int, int] = Counter()
    for row in truth.trades:
        if f"{to_kst(int(row['exch_s']) * SECOND_NS):%H%M}" <= "1058":
            told[int(row["exch_s"]) // 60] += int(row["size"])
    assert got == told
    assert len(got) > 60
