"""KIS overseas configuration of the KIS servers: record types, keys and calls.

    D NAS AAPL    free                 R NAS AAPL    paid                 R BAQ AAPL    day market

Guarantees:
    * A key names an exchange and a ticker as in docs/wire/kis.md 2.7; frames carry the key that was subscribed.
"""

from __future__ import annotations

from collections.abc import Mapping

from brokers.simulator.ground_truth import Stream
from brokers.simulator.kis import overseas_bars, overseas_encode
from brokers.simulator.kis.rest import CallTable, QuotationError
from brokers.simulator.kis.websocket import TrCatalog
from conf.instrument import Instrument, parse_instrument

STREAMS = {overseas_encode.TRADE_TR: Stream.TICK, overseas_encode.BOOK_TR: Stream.BOOK}


def resolve_key(tr_id: str, tr_key: str) -> tuple[Instrument, Stream]:
    """What a subscription means. ValueError for an impossible key."""
    kind, exchange, ticker = tr_key[:1], tr_key[1:4], tr_key[4:]
    if kind not in ("D", "R") or (kind == "D" and exchange in overseas_encode.DAY_MARKET):
        raise ValueError(tr_key)
    return parse_instrument(f"{exchange}.{ticker}"), STREAMS[tr_id]


class OverseasSubscriptions:
    """What can be subscribed, and under which key each instrument was."""

    def __init__(self) -> None:
        self.keys: dict[Instrument, str] = {}
        self.catalog = TrCatalog(frozenset(STREAMS), self.resolve)

    def resolve(self, tr_id: str, tr_key: str) -> tuple[Instrument, Stream]:
        """What a subscription means. ValueError for an impossible key."""
        found = resolve_key(tr_id, tr_key)
        self.keys[found[0]] = tr_key
        return found


def _read_instrument(query: Mapping[str, str]) -> Instrument:
    """The instrument a call asks about. QuotationError."""
    try:
        return parse_instrument(f"{query.get('EXCD', '')}.{query.get('SYMB', '')}")
    except ValueError:
        raise QuotationError("OPSQ2001", "ERROR : INPUT INVALID_CHECK_EXCD") from None


CALLS = CallTable(
    "uapi/overseas-price/v1/quotations/",
    {"inquire-time-itemchartprice": ("HHDFS76950200", overseas_bars.inquire_time_itemchartprice)},
    _read_instrument,
)
