"""One feed's books rebuilt from the merged rows (pure).

    stored   recv_time_kis  recv_time_kiwoom  broker           kiwoom's view
    row 1    09:30:00.050   09:30:00.081      kis       ──>    09:30:00.081  levels of the row, own_frame no
    row 2    09:30:01.040   -                 kis
    row 3    -              09:30:02.090      kiwoom    ──>    09:30:02.090  all of the row,    own_frame yes

Guarantees:
    * Each book that the feed delivered is a row, in order and at the time of its receipt.
    * What the row of a twin does not say of this feed is null: sequence number, flags and surplus fields; totals, expected trade
      and midpoint where the feeds state them otherwise; cumulative volume where it is not part of what makes two books one.

Not handled here:
    * Exchange second and session of a twin are those of the first arrival.
    * A book that first-wins took for another one has the levels of its own all the same, but may have the other's totals.
    * Where two feeds' records were read in another order than they were received, the row may be the later one's.
"""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from ringbuf.records import Flag

_OF_FRAME = ("seq", "flags", "extra")
_DETAILS = ("total_ask_size", "total_bid_size", "expected_price", "expected_size", "mid_price", "mid_size")


def rebuild_feed(books: pa.Table, feed: str, volume_venues: Collection[str]) -> pa.Table:
    """The books of `feed` out of stored rows; `volume_venues`: where equal books have equal cumulative volumes."""
    arrival = f"recv_time_{feed}"
    if arrival in books.column_names:
        books = books.filter(pc.is_valid(books[arrival]))
        books = books.set_column(books.column_names.index("recv_time"), "recv_time", books[arrival])
        books = books.drop_columns([name for name in books.column_names if name.startswith("recv_time_")])
    books = books.sort_by([("recv_time", "ascending")])
    is_own = pc.equal(books["broker"], feed)
    is_twin = pc.invert(is_own)
    differs = pc.not_equal(pc.bit_wise_and(pc.fill_null(books["flags"], 0), int(Flag.TWIN_DIFFERS)), 0)
    has_volume = pc.is_in(books["venue"], pa.array(list(volume_venues), pa.string()))
    unknown = dict.fromkeys(_OF_FRAME, is_twin) | dict.fromkeys(_DETAILS, pc.and_(is_twin, differs))
    unknown["cum_volume"] = pc.and_(is_twin, pc.invert(has_volume))
    for name, mask in unknown.items():
        values = pc.if_else(mask, pa.scalar(None, books[name].type), books[name])
        books = books.set_column(books.column_names.index(name), books.schema.field(name), values)
    broker = pa.repeat(feed, len(books))
    books = books.set_column(books.column_names.index("broker"), "broker", broker)
    return books.append_column("own_frame", is_own)
