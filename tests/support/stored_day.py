"""A stored day whose holes are known: Parquet as the writer and recovery publish it, made without a process.

08:50 to 08:54  no books: not yet subscribed      08:55 to 08:59  auction
09:10:00 to 09:11:30  both feeds are disconnected: a hole of every instrument
09:20 to 09:23  only Kiwoom                       09:30, 09:31    no books of 373220
09:40           a tick of 000660 was recovered     09:50          7 shares of it are missing
10:             as quiet as 09:00                  11:            books that are not counted yet

`make_whole_day`: a session from 09:00 to 11:00 in which nothing is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import Certificate
from conf.market import KR
from writer.publish import feed_stats_file
from writer.schema import PARQUET

DAY = "2026-11-20"
SYMBOLS = ("005930", "000660", "373220")
HOSTILE = '<img src="http://198.51.100.1/x"><script>alert(1)</script>'
SESSIONS = """
[sessions.KRX]
opening_auction = "08:30-09:00"
regular = "09:00-11:50"
closing_auction = "11:50-12:00"
closing_price = ""
after_market = ""
"""
HOLES = ("08:50", "08:51", "08:52", "08:53", "08:54", "09:10", "09:11")
KIWOOM_ONLY = ("09:20", "09:21", "09:22", "09:23")
NONE_OF_373220 = ("09:30", "09:31")
UNCOUNTED_HOUR = 11


def at(text: str) -> pd.Timestamp:
    """A time of the day."""
    return pd.Timestamp(f"{DAY} {text}", tz="Asia/Seoul")


def make_stored_day(root: Path, now: str = "21:00", counted: bool = True) -> Path:
    """A home with that day, in which it is `now` o'clock; `counted`: with feed_health."""
    universe = ", ".join(f'"{symbol}"' for symbol in SYMBOLS)
    root.mkdir(parents=True, exist_ok=True)
    clock = f'[clock]\nstart = "{DAY}T{now}:00+09:00"\nspeed = 1.0\n'
    (root / "collector.toml").write_text(f"[universe]\nkr = [{universe}]\n{clock}{SESSIONS}")
    data = root / "data/kr"
    for hour in (8, 9, 10):
        _write(data, "orderbook", hour, [book for symbol in SYMBOLS for book in _make_books(symbol, hour)])
    _write(data, "tick", 9, [_make_tick(symbol, minute, symbol) for symbol in SYMBOLS for minute in range(60)])
    _write(data, "event", 9, list(_make_events(SYMBOLS)))
    if counted:
        feed_stats_file.refresh(data, KR, DAY, 1.0)
    _write(data, "orderbook", UNCOUNTED_HOUR, [book for symbol in SYMBOLS for book in _make_books(symbol, 11)])
    grades = {"005930": "PROVEN", "000660": "INCOMPLETE"}
    found = [_make_certificate(symbol, grades[symbol]) for symbol in SYMBOLS if symbol in grades]
    store.save(root / "data", at("00:00").date(), found, f"{DAY}T20:10:00+0900")
    return root


def make_whole_day(root: Path, empty: Sequence[str] = (), loss: bool = False) -> Path:
    """A home with a whole day of 005930; `empty`: minutes without books; `loss`: records were lost."""
    symbol = SYMBOLS[0]
    sessions = (
        'opening_auction = ""\nregular = "09:00-11:00"\nclosing_auction = ""\nclosing_price = ""\nafter_market = ""\n'
    )
    root.mkdir(parents=True, exist_ok=True)
    clock = f'[clock]\nstart = "{DAY}T21:00:00+09:00"\nspeed = 1.0\n'
    (root / "collector.toml").write_text(f'[universe]\nkr = ["{symbol}"]\n{clock}[sessions.KRX]\n{sessions}')
    data = root / "data/kr"
    for hour in (9, 10):
        _write(data, "orderbook", hour, list(_make_books(symbol, hour, empty)))
    _write(data, "tick", 9, [_make_tick(symbol, minute, symbol) for minute in range(60)])
    events = [
        one for one in _make_events([symbol]) if one["time"] < at("09:00") or (loss and one["kind"] == "ring_loss")
    ]
    _write(data, "event", 9, events)
    feed_stats_file.refresh(data, KR, DAY, 1.0)
    store.save(root / "data", at("00:00").date(), [_make_certificate(symbol, "PROVEN")], f"{DAY}T20:10:00+0900")
    return root


def _write(data: Path, dataset: str, hour: int, rows: list[dict[str, Any]]) -> None:
    path = data / dataset / f"date={DAY}/hour={hour:02}/part-0.parquet"
    path.parent.mkdir(parents=True)
    columns = PARQUET[f"kr.{dataset}"]
    pq.write_table(pa.Table.from_pylist(rows, columns), path, row_group_size=64)


def _make_books(symbol: str, hour: int, holes: Sequence[str] = HOLES) -> Iterable[dict[str, Any]]:
    for minute in range(60):
        time = f"{hour:02}:{minute:02}"
        if (hour == 8 and minute < 55) or time in holes or (symbol == "373220" and time in NONE_OF_373220):
            continue
        kis, kiwoom = (at(f"{time}:30.{part}") for part in ("050", "090"))
        is_kiwoom_only = time in KIWOOM_ONLY
        price = 70_000 + 100 * (minute % 7)
        yield {
            "symbol": symbol,
            "venue": "KRX",
            "exch_time": at(f"{time}:30"),
            "recv_time": kiwoom if is_kiwoom_only else kis,
            "broker": "kiwoom" if is_kiwoom_only else "kis",
            "recv_time_kis": None if is_kiwoom_only else kis,
            "recv_time_kiwoom": kiwoom,
            "ask_price_1": price + 100,
            "bid_price_1": price,
            "ask_size_1": 10 + minute,
            "bid_size_1": 20,
            "total_ask_size": 1000 + minute,
            "total_bid_size": 900,
            "cum_volume": minute,
            "session": "regular",
            "flags": 0,
            "seq": minute,
        }


def _make_tick(symbol: str, minute: int, name: str) -> dict[str, Any]:
    is_recovered = name == "000660" and minute == 40
    time = at(f"09:{minute:02}:30")
    return {
        "symbol": symbol,
        "venue": "KRX",
        "exch_time": time,
        "recv_time": None if is_recovered else time,
        "price": 70_000,
        "size": 5,
        "side": 1,
        "cum_volume": 5 * (minute + 1),
        "source": "recovered" if is_recovered else "live",
        "broker": "kis",
        "session": "regular",
        "flags": 0,
        "seq": minute,
    }


def _make_events(symbols: Sequence[str]) -> Iterable[dict[str, Any]]:
    def event(time: str, feed: str, kind: str, **more: Any) -> dict[str, Any]:
        return {"time": at(time), "line": feed, "kind": kind, "connection": 1, "flags": 0, "seq": 1} | more

    def acknowledge(time: str, feed: str) -> Iterable[dict[str, Any]]:
        for symbol in symbols:
            yield event(time, feed, "acknowledged", symbol=symbol, venue="KRX", stream="orderbook")

    for feed in KR.feeds:
        yield event("08:54", feed, "started", connection=0)
        yield from acknowledge("08:54:30", feed)
    for feed in KR.feeds:
        yield event("09:10:20", feed, "disconnected", since=at("09:10:00"), message=HOSTILE)
    for feed in KR.feeds:
        yield from acknowledge("09:11:30", feed)
    yield event("09:20:05", "kis", "disconnected", since=at("09:20:00"), message="no frame for 5 s")
    yield from acknowledge("09:24:00", "kis")
    loss = {"connection": 0, "value": 120, "stream": "orderbook", "message": "records 5 to 124"}
    yield event("09:45:10", "kis", "ring_loss", since=at("09:45:00"), **loss)


def _make_certificate(symbol: str, grade: str) -> Certificate:
    is_whole = grade == "PROVEN"
    return Certificate(
        symbol=symbol,
        venue="KRX",
        certificate=grade,
        official_volume=300 if is_whole else 307,
        live_ticks=60 if is_whole else 59,
        live_shares=300 if is_whole else 295,
        recovered_ticks=0 if is_whole else 1,
        recovered_shares=0 if is_whole else 5,
        missing_shares=0 if is_whole else 7,
        overlapping_shares=0,
        off_book=[],
        residuals=[] if is_whole else ["09:50 +7"],
        value_difference=0,
        value_agrees=is_whole,
        anchors=1,
        anchor_conflicts=0,
        counts=1,
        count_conflicts=0,
        book_conflicts=0,
        minutes=60,
        minutes_agree=is_whole,
        pages=1,
        pages_complete=True,
        reasons=[] if is_whole else ["7 shares in 1 gaps are missing", HOSTILE],
    )
