"""The US feed's REST market data: minute bars; there is no list of trades. Spec kis 1.4 to 1.7, 5.

    bars  HHDFS76950200   120 rows a call, newest first, paged by the exchange's time          day market: of today only

Promises: a page's key is the minute before its oldest row, as the vendor wants it; the first page of a day begins at the day's end;
what is no bar in every field is refused, not guessed; prices are 1/10,000 of a dollar.
Leaves to others: keys, tokens and refusals (kis/rest.py), when to call (collectorctl/recover/minutes.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

import msgspec
import numpy as np

from brokers.history import BARS, Asked, QuotesError, Reply
from brokers.kis import frame
from brokers.kis.rest import Gateway
from brokers.us.decode import EXCHANGE_OF, is_day_market
from conf.clock import KST, instant
from conf.home import Home
from conf.instrument import Instrument
from conf.loader import load_secrets
from conf.market import NEW_YORK
from ringbuf.records import UNDEFINED

PATH = "/uapi/overseas-price/v1/quotations/inquire-time-itemchartprice"
TR = "HHDFS76950200"
ROWS = "output2"
KEY_FORM = "%Y%m%d%H%M%S"
MINUTE = timedelta(minutes=1)
DAY_ENDS = "235900"


class RestQuotes:
    """The calls, with one app key."""

    PAGE_ROWS: ClassVar[dict[str, int]] = {"bars": 120}

    def __init__(self, home: Home) -> None:
        """Read keys; nothing is called yet. SettingsError."""
        table = home.settings.us
        secrets = load_secrets(home.root, "us")
        self._gateway = Gateway(table.rest_url, table.customer_type, secrets, home.token("us"), home.clock())

    def close(self) -> None:
        """Let go of the connection."""
        self._gateway.close()

    def ask(self, asked: Asked) -> Reply:
        """One page of minute bars up to the key, or to the end of the day. RestError; RestLimited when it came too soon."""
        if asked.what not in self.PAGE_ROWS:
            raise QuotesError(f"the US feed has no {asked.what}")
        named = f"{TR} of {asked.instrument}"
        reply = self._gateway.get(PATH, TR, _query(asked), named)
        rows = _rows(reply.content, named)
        # the day market has one day, and pages within it
        return Reply(reply.content, f"{_local(rows[-1], named) - MINUTE:{KEY_FORM}}" if rows else "")

    def bars(self, content: bytes) -> np.ndarray:
        """BARS of one minute, newest first, prices in 1/10,000; QuotesError."""
        rows = _rows(content, TR)
        found = np.zeros(len(rows), BARS)
        for bar, row in zip(found, rows, strict=True):
            try:
                bar["exch_ns"] = instant(NEW_YORK, str(row.get("xymd")), str(row.get("xhms")), _korean_ns(row))
                for name, field in (("open", "open"), ("high", "high"), ("low", "low"), ("close", "last")):
                    bar[name] = frame.price_e4(str(row.get(field)).strip().encode())
                bar["volume"] = frame.whole(str(row.get("evol")).strip().encode())
            except (ValueError, OverflowError) as error:
                raise QuotesError(f"{TR}: {error}") from None
        found["cum_volume"] = UNDEFINED
        return found

    def ticks(self, content: bytes) -> np.ndarray:
        """There are none: QuotesError."""
        raise QuotesError("the US feed has no ticks")

    def prints(self, content: bytes, day: object) -> np.ndarray:
        """There are none: QuotesError."""
        raise QuotesError("the US feed has no prints")

    def days(self, content: bytes) -> np.ndarray:
        """They are not asked for: QuotesError."""
        raise QuotesError("the US feed is not asked for days")


def _query(asked: Asked) -> dict[str, str]:
    """Spec kis 5: KEYB wants PINC 1 and NEXT 1; the day market has no earlier days."""
    instrument: Instrument = asked.instrument
    today_only = is_day_market(instrument)
    key = asked.key or ("" if today_only else f"{asked.day:%Y%m%d}{DAY_ENDS}")
    return {
        "AUTH": "",
        "EXCD": EXCHANGE_OF[instrument.venue],
        "SYMB": instrument.symbol,
        "NMIN": "1",
        "PINC": "1" if key else "0",
        "NEXT": "1" if key else "",
        "NREC": "120",
        "FILL": "",
        "KEYB": key,
    }


def _rows(content: bytes, named: str) -> list[Mapping[str, Any]]:
    found = msgspec.json.decode(content).get(ROWS)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise QuotesError(f"{named}: {ROWS} is no list of rows")
    return found


def _local(row: Mapping[str, Any], named: str) -> datetime:
    try:
        return datetime.strptime(f"{row.get('xymd')}{row.get('xhms')}", KEY_FORM)
    except ValueError:
        raise QuotesError(f"{named}: a bar without a date and time") from None


def _korean_ns(row: Mapping[str, Any]) -> int:
    """Korea's time of a bar, which tells apart the two hours of a night in which clocks are set back."""
    return instant(KST, str(row.get("kymd")), str(row.get("khms")), 0)


HISTORY = RestQuotes
"""What brokers.history looks up by the broker's name."""
