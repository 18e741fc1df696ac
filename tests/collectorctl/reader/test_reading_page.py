"""docs/reading.md: each block of Python is run, in order and over one small home, and prints what stands below it."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from support.writer_data import NINE_NS, SECOND_NS, make_home

from brokers.kis import decode as kis
from brokers.kiwoom import decode as kiwoom
from brokers.subscription import Subscription
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import Certificate
from conf.instrument import Instrument
from conf.market import KR
from ringbuf.records import UNDEFINED, FeedId, Flag, Session, Side
from writer.publish.records import publish_records

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/reading.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", PAGE, re.S)
OPTIONAL = ("duckdb", "polars", "matplotlib")
HALF_PAST_NS = NINE_NS + 1800 * SECOND_NS


def golden(name: str, stream: str) -> np.ndarray:
    """The first record of a golden frame."""
    lines = (ROOT / f"tests/frames/{name}.txt").read_text().splitlines()
    frame = "".join(line for line in lines if not line.startswith("#")).encode()
    decoder = kis if name.startswith("kis") else kiwoom
    registered = decoder.subscriptions_by_code([Subscription(Instrument("123456", "KRX"), stream)])
    decoded = decoder.decode(frame, registered, HALF_PAST_NS, 1)
    return (decoded.books if stream == "orderbook" else decoded.ticks)[:1]


def make_books() -> np.ndarray:
    """Five books: of both feeds, of KIS, of Kiwoom, of both, and of KIS with seven levels on one side."""
    found = golden("kis_book_krx", "orderbook").repeat(7)
    found["line"] = [FeedId.KIS, FeedId.KIWOOM, FeedId.KIS, FeedId.KIWOOM, FeedId.KIWOOM, FeedId.KIS, FeedId.KIS]
    number = np.array([0, 0, 1, 2, 3, 3, 4])
    milliseconds = np.array([50, 81, 1040, 2090, 3075, 3112, 61_030])
    found["recv_ns"] = HALF_PAST_NS + milliseconds * 1_000_000
    found["exch_ns"] = HALF_PAST_NS + milliseconds // 1000 * SECOND_NS
    found["cum_volume"] = np.array([10, 13, 18, 33, 46])[number]
    found["ask_size"][:, 0] += number
    found["expected_size"] = 0
    found["seq"] = np.arange(1, 8)
    found["mid_price_e4"][2:], found["mid_size"][2:] = 0, 0
    for name in ("ask_price_e4", "ask_size"):
        found[name][6:, 7:] = 0
    return found


def make_ticks() -> np.ndarray:
    """Eight trades; shares 34 to 40 of the day are in none."""
    found = golden("kis_trade_krx", "tick").repeat(8)
    found["size"] = [10, 3, 5, 2, 9, 4, 6, 5]
    found["cum_volume"] = [10, 13, 18, 20, 29, 33, 46, 51]
    found["price_e4"] = np.array([70_000, 70_100, 70_000, 70_100, 70_200, 70_100, 70_000, 70_100]) * 10_000
    found["side"] = [0, 1, -1, 1, 1, -1, -1, 1]
    found["session"] = [Session.OPENING_AUCTION, *[Session.REGULAR] * 7]
    seconds = np.array([0, 1, 1, 1, 1, 2, 62, 130])
    found["exch_ns"] = HALF_PAST_NS + seconds * SECOND_NS
    found["exch_ns"][0] = NINE_NS
    found["recv_ns"] = found["exch_ns"] + 60_000_000 + np.arange(8) * 1_000_000
    found["cum_value"] = np.cumsum(found["size"] * found["price_e4"] // 10_000)
    found["trade_count"] = np.arange(8)
    is_recovered = np.isin(found["cum_volume"], [18, 20])
    found["line"][is_recovered] = FeedId.GAPFILL
    for name in ("cum_value", "trade_count", "ask_price_1_e4", "bid_price_1_e4"):
        found[name][is_recovered] = UNDEFINED
    found["side"][is_recovered] = Side.NONE
    found["flags"][5] |= Flag.SNAPSHOT
    return found


@pytest.fixture(scope="module")
def page_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home `~/collector` of the page, which is the working directory."""
    user = tmp_path_factory.mktemp("user")
    home = make_home(user / "collector")
    for dataset, records in (("kr.orderbook", make_books()), ("kr.tick", make_ticks())):
        records["symbol"], records["mono_ns"] = b"005930", records["recv_ns"]
        order = np.argsort(records["recv_ns"], kind="stable")
        publish_records(
            home.data / dataset.replace(".", "/"), dataset, records[order], "page", home.settings.writer, SECOND_NS
        )
    counts = (51, 6, 37, 2, 7, 7, 0)
    reasons = ["7 shares in 1 gaps are missing"]
    certificate = Certificate(
        "005930", "KRX", "INCOMPLETE", *counts, [], [], None, False, *[0] * 6, False, 0, True, reasons
    )
    store.save(home.data, KR.to_local(NINE_NS).date(), [certificate], "2026-11-20T20:10:00+0900", KR)
    before = Path.cwd(), os.environ.get("HOME"), os.environ.get("TZ")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(user))
        patch.chdir(home.root)
        yield home.root
    assert (Path.cwd(), os.environ.get("HOME"), os.environ.get("TZ")) == before


def run(code: str, names: dict[str, object]) -> str:
    """What it prints; an exception is its type and first line, as the page shows it."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(code, "docs/reading.md", "exec"), names)
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines())


def test_every_block_of_the_page_prints_what_stands_below_it(page_home: Path) -> None:
    """Blocks of libraries that are not installed are left out; the others are run in order, as one program."""
    names: dict[str, object] = {}
    missing = [name for name in OPTIONAL if find_spec(name) is None]
    for code, expected in BLOCKS:
        if any(re.search(rf"\b{name}", code) for name in missing):
            continue
        assert run(code, names) == expected.rstrip("\n"), code
    assert len(BLOCKS) > 10


def test_the_table_of_flags_is_that_of_the_records() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|", PAGE, re.M)

    assert rows == [(flag.name, str(int(flag))) for flag in Flag]
