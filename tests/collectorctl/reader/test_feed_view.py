"""A feed's view out of merged rows, against what the feed delivered."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.writer_data import NINE_NS, SECOND_NS, make_books, make_home, make_ticks

import collectorctl
from ringbuf.records import FeedId
from writer import schema
from writer.ingest.book_arbiter import BookArbiter
from writer.journal.entries import JOURNAL, build_entries
from writer.journal.journal import Journal
from writer.publish.records import publish_records

FEEDS = {"kis": FeedId.KIS, "kiwoom": FeedId.KIWOOM}
BOOK = st.tuples(st.sampled_from(["both", "kis", "kiwoom"]), st.integers(-80, 80), st.booleans())
"""Who delivered it, how many ms Kiwoom was later, whether Kiwoom states another total."""


def make_delivered(books: list[tuple[str, int, bool]]) -> np.ndarray:
    """What both feeds delivered, in order of receipt, a book a second."""
    found = []
    for number, (who, lag_ms, differs) in enumerate(books):
        for feed, late_ms in (("kis", 0), ("kiwoom", lag_ms)):
            if who in ("both", feed):
                (book,) = make_books([number + 1], FEEDS[feed], symbols=1)
                book["symbol"] = b"005930"
                book["recv_ns"] = book["mono_ns"] = NINE_NS + (number + 1) * SECOND_NS + late_ms * 1_000_000
                book["exch_ns"] = NINE_NS + number * SECOND_NS
                book["total_ask_size"] += 7 if differs and feed == "kiwoom" else 0
                found.append(book)
    records = np.array(found)
    return records[np.argsort(records["recv_ns"], kind="stable")]


@settings(max_examples=15, deadline=None)
@given(st.lists(BOOK, min_size=1, max_size=40))
def test_each_feed_has_every_book_that_it_delivered_at_its_time(books: list[tuple[str, int, bool]]) -> None:
    """Levels and volume as delivered; a total is its own or null, never the other feed's."""
    delivered = make_delivered(books)
    with tempfile.TemporaryDirectory() as root:
        home = make_home(Path(root))
        publish_records(home.data / "kr/orderbook", "kr.orderbook", delivered, "view", home.settings.writer, SECOND_NS)
        reader = collectorctl.open(root)
        for feed, number in FEEDS.items():
            sent = delivered[delivered["line"] == number]
            rows = reader.feed_books(feed, "005930", "2026-11-20", form="arrow").to_pydict()
            assert [round(at.timestamp() * 1000) for at in rows["recv_time"]] == (sent["recv_ns"] // 10**6).tolist()
            assert rows["cum_volume"] == sent["cum_volume"].tolist()
            assert rows["ask_size_3"] == sent["ask_size"][:, 2].tolist()
            for stored, own, is_own in zip(
                rows["total_ask_size"], sent["total_ask_size"].tolist(), rows["own_frame"], strict=True
            ):
                assert stored == own or (stored is None and not is_own)
            assert [seq is None for seq in rows["seq"]] == [not is_own for is_own in rows["own_frame"]]


def test_books_that_only_the_journal_has_are_read_as_they_will_be_published(tmp_path: Path) -> None:
    """Both arrivals, the winner, details; also of a twin that the writer read first though it was received later."""
    delivered = make_delivered([("both", lag, number % 3 == 0) for number, lag in enumerate(range(-40, 40, 7))])
    delivered = delivered[np.argsort(delivered["cum_volume"], kind="stable")]
    delivered[[2, 3]] = delivered[[3, 2]]
    open_home, home = make_home(tmp_path / "open"), make_home(tmp_path / "published")
    publish_records(home.data / "kr/orderbook", "kr.orderbook", delivered, "view", home.settings.writer, SECOND_NS)
    arbiter = BookArbiter(SECOND_NS, home.settings.writer.identity_cum_volume)
    journal = Journal.open(open_home.journal_directory("kr.orderbook"), JOURNAL["kr.orderbook"])
    journal.roll([])
    for at in range(0, len(delivered), 5):  # rows and twins in different batches
        batch = delivered[at : at + 5]
        arbitration = arbiter.arbitrate(batch, schema.compute_hours(batch), at + 1)
        journal.append(build_entries("kr.orderbook", batch, at + 1, arbitration), {})
    journal.close()

    for feed in FEEDS:
        seen = [collectorctl.open(one.root).feed_books(feed, "005930", "2026-11-20") for one in (open_home, home)]
        assert len(seen[0]) == len(delivered) // 2
        assert seen[0].equals(seen[1])
    books = [collectorctl.open(one.root).books("005930", "2026-11-20") for one in (open_home, home)]
    assert books[0].equals(books[1])


def test_ticks_that_only_the_journal_has_are_read_as_they_will_be_published(tmp_path: Path) -> None:
    """Two feeds delivered some, one of them merged, some were fetched, and a part of the hour is published already."""
    merged = make_ticks([12], FeedId.KIWOOM)
    merged["size"] = 3
    early = make_ticks(range(1, 6))
    late = np.concatenate(
        [
            make_ticks(range(4, 20)),
            make_ticks(range(8, 30, 2), FeedId.KIWOOM),
            merged,
            make_ticks([25, 40], FeedId.GAPFILL),
        ]
    )
    for records in (early, late):
        records["price_e4"] = 700_000_000
        records["recv_ns"] = NINE_NS + np.arange(len(records)) * 1000
        records["mono_ns"] = records["recv_ns"]
    homes = [make_home(tmp_path / name) for name in ("open", "published")]
    for home in homes:
        publish_records(home.data / "kr/tick", "kr.tick", early, "early", home.settings.writer, SECOND_NS)
    publish_records(homes[1].data / "kr/tick", "kr.tick", late, "late", homes[1].settings.writer, SECOND_NS)
    journal = Journal.open(homes[0].journal_directory("kr.tick"), JOURNAL["kr.tick"])
    journal.roll([])
    for at in range(0, len(late), 7):
        journal.append(build_entries("kr.tick", late[at : at + 7], at + 1, None), {})
    journal.close()

    open_day, whole_day = (collectorctl.open(home.root).ticks("005930", "2026-11-20") for home in homes)

    assert sorted(whole_day["cum_volume"]) == [*range(1, 21), 22, 24, 25, 26, 28, 40]
    assert open_day.equals(whole_day)


def test_a_feed_that_does_not_bring_the_instrument_is_named(tmp_path: Path) -> None:
    reader = collectorctl.open(make_home(tmp_path).root)

    with pytest.raises(ValueError, match="comes by kis and kiwoom"):
        reader.feed_books("us", "005930", "2026-11-20")
    assert reader.feed_books("us", "NAS.AAPL", "2026-11-20").empty
