"""Books that come late, compared with the files: null there and the vendors' 0 in a frame are one thing."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.writer_data import SECOND_NS, make_books, make_home

from collectorctl.reprocess.stored_books import find_already_stored
from ringbuf.records import FeedId
from writer.publish.records import publish_records


@pytest.mark.parametrize("is_same", [True, False])
def test_a_book_with_empty_levels_is_found_in_the_files(tmp_path: Path, is_same: bool) -> None:
    """Its twin of the other feed was stored with null at the ninth and tenth level."""
    home = make_home(tmp_path)
    stored, late = make_books(range(10), symbols=1), make_books(range(10), FeedId.KIWOOM, symbols=1)
    for books in (stored, late):
        books["mono_ns"] = books["recv_ns"]
        for name in ("ask_price_e4", "ask_size", "bid_price_e4", "bid_size"):
            books[name][:, 8:] = 0
    late["ask_size"][:, 7] += 0 if is_same else 1
    publish_records(home.data / "kr/orderbook", "kr.orderbook", stored, "stored", home.settings.writer, SECOND_NS)

    assert find_already_stored(home, late).tolist() == [is_same] * 10
