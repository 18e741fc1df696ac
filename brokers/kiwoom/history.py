"""Kiwoom's REST market data: tick chart, prints of a day, minute and day chart. Spec kiwoom 1.4, 1.5, 1.7, 5.

    ticks   ka10079   900 rows a page, date and time, no side, no cumulative volume          about 20 trading days back
    prints  ka10084   100 rows a page, side, quotes, cumulative volume                       today and the day before
    bars    ka10080   900 minutes a page, volume and cumulative volume                       about a year
    days    ka10081   600 days a page, volume and value

Promises: the code of every answer is looked at before its rows; a token that is refused is renewed once and the call repeated once;
a sign is never taken for a value; the one empty row that stands for "nothing" is no row.
Leaves to others: HTTP (brokers/rest.py), tokens (brokers/token.py), when to call (collectorctl/recover/).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from functools import lru_cache
from typing import Any, ClassVar

import msgspec
import numpy as np

from brokers.errors import RestLimited, RestRefused, RestUnreachable, mask
from brokers.history import BARS, DAYS, PRINTS, Asked, QuotesError, Reply
from brokers.kiwoom.rest import access_token, inner_code
from brokers.transport.rest import LIMITED_WAIT_S, Client
from brokers.transport.rest import Reply as HttpReply
from conf.clock import KST, SECOND_NS
from conf.home import Home
from conf.instrument import Instrument
from conf.loader import load_secrets
from ringbuf.records import UNDEFINED

CHART, STOCK = "/api/dostk/chart", "/api/dostk/stkinfo"
CALLS = {
    "ticks": ("ka10079", CHART),
    "prints": ("ka10084", STOCK),
    "bars": ("ka10080", CHART),
    "days": ("ka10081", CHART),
}
LISTS = {
    "ticks": "stk_tic_chart_qry",
    "prints": "tdy_pred_cntr",
    "bars": "stk_min_pole_chart_qry",
    "days": "stk_dt_pole_chart_qry",
}
SUFFIX = {"KRX": "", "NXT": "_NX", "UN": "_AL"}
NAMES = {"KRX": {"KRX"}, "NXT": {"NXT"}, "UN": {"통합", "KRX", "NXT"}}
"""How a print says where it was traded; unified ones may name the exchange."""
RENEW = frozenset({"8003", "8005", "8103"})
TOO_SOON = frozenset({"1687", "1700", "1701", "1702"})


class RestQuotes:
    """The calls, with one app key."""

    PAGE_ROWS: ClassVar[dict[str, int]] = {"ticks": 900, "prints": 100, "bars": 900, "days": 600}

    def __init__(self, home: Home) -> None:
        """Read keys; nothing is called yet. SettingsError."""
        url = home.settings.kiwoom.rest_url
        self._url = url.rstrip("/")
        self._token = access_token(url, load_secrets(home.root, "kiwoom"), home.token("kiwoom"), home.clock())
        self._client = Client()

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def ask(self, asked: Asked) -> Reply:
        """One page. RestLimited, RestUnreachable, RestRefused, QuotesError."""
        reply = self._call(asked)
        if self._code(reply) in RENEW:
            self._token.spoil()
            reply = self._call(asked)
        self._refuse(asked, reply)
        goes_on = reply.headers.get("cont-yn", "").strip().upper() == "Y"
        key = reply.headers.get("next-key", "").strip()
        if goes_on and not key:
            raise QuotesError(f"{_named(asked)}: the answer goes on, but without the key of the next page")
        rows = reply.body.get(LISTS[asked.what])
        if not isinstance(rows, list):
            raise QuotesError(f"{_named(asked)}: an answer without {LISTS[asked.what]}")
        refuse_other_venues(asked, rows)
        return Reply(reply.content, key if goes_on else "")

    def _call(self, asked: Asked) -> HttpReply:
        name, path = CALLS[asked.what]
        headers = {"authorization": f"Bearer {self._token.get()}", "api-id": name}
        if asked.key:
            headers |= {"cont-yn": "Y", "next-key": asked.key}
        return self._client.post(self._url + path, _body(asked), headers)

    @staticmethod
    def _code(reply: HttpReply) -> str:
        return inner_code(str(reply.body.get("return_msg", reply.body.get("returnMsg", ""))))

    def _refuse(self, asked: Asked, reply: HttpReply) -> None:
        """An error unless the answer says that it is none (spec kiwoom 1.5)."""
        outer = str(reply.body.get("return_code", reply.body.get("returnCode", f"HTTP {reply.status}"))).strip()
        if outer == "0" and reply.status == 200:
            return
        code = self._code(reply)
        text = mask(str(reply.body.get("return_msg", reply.body.get("returnMsg", "no reason given"))))
        words = f"{_named(asked)}: {code or outer}: {text}"
        if code in TOO_SOON or (outer == "5" and code != "1634"):
            raise RestLimited(words, wait_s=LIMITED_WAIT_S)
        if reply.status >= 500 or code == "1999" or outer == "0":
            raise RestUnreachable(words)
        raise RestRefused(words)

    def ticks(self, content: bytes) -> np.ndarray:
        """PRINTS without side and cumulative volume (spec kiwoom 5.1)."""
        found = _rows("ticks", content)
        rows = _blank(len(found))
        rows["exch_ns"] = [_instant(_text(row, "cntr_tm")) for row in found]
        rows["price"] = [_number(row, "cur_prc") for row in found]
        rows["size"] = [_number(row, "trde_qty") for row in found]
        return rows

    def prints(self, content: bytes, day: date) -> np.ndarray:
        """PRINTS with everything (spec kiwoom 5.5)."""
        found = _rows("prints", content)
        rows = _blank(len(found))
        rows["exch_ns"] = [_instant(f"{day:%Y%m%d}{_text(row, 'tm')}") for row in found]
        rows["side"] = [{"+": 1, "-": -1}.get(_text(row, "cntr_trde_qty").strip()[:1], 0) for row in found]
        for name, field in (("price", "cur_prc"), ("size", "cntr_trde_qty"), ("cum_volume", "acc_trde_qty")):
            rows[name] = [_number(row, field) for row in found]
        for name, field in (("ask_price_1", "pri_sel_bid_unit"), ("bid_price_1", "pri_buy_bid_unit")):
            rows[name] = [_number(row, field, optional=True) for row in found]
        return rows

    def bars(self, content: bytes) -> np.ndarray:
        """BARS (spec kiwoom 5.2)."""
        found = _rows("bars", content)
        bars = np.zeros(len(found), BARS)
        fields = {"open": "open_pric", "high": "high_pric", "low": "low_pric", "close": "cur_prc", "volume": "trde_qty"}
        for bar, given in zip(bars, found, strict=True):
            bar["exch_ns"] = _instant(_text(given, "cntr_tm"))
            for name, field in fields.items():
                bar[name] = _number(given, field)
            bar["cum_volume"] = _number(given, "acc_trde_qty", optional=True)
        return bars

    def days(self, content: bytes) -> np.ndarray:
        """DAYS (spec kiwoom 5.3)."""
        found = _rows("days", content)
        days = np.zeros(len(found), DAYS)
        for day, given in zip(days, found, strict=True):
            day["date"] = np.datetime64(
                datetime.fromtimestamp(_instant(_text(given, "dt") + "000000") // SECOND_NS, KST).date()
            )
            day["volume"] = _number(given, "trde_qty")
            day["value_m"] = _number(given, "trde_prica", optional=True)
        return days


def code_of(instrument: Instrument) -> str:
    """The code as Kiwoom writes it (spec kiwoom 4)."""
    return instrument.symbol.removeprefix("Q") + SUFFIX[instrument.venue]


def _body(asked: Asked) -> dict[str, str]:
    body = {"stk_cd": code_of(asked.instrument)}
    if asked.what == "prints":
        return body | {"tdy_pred": "2" if asked.previous else "1", "tic_min": "0", "tm": asked.until}
    if asked.what == "ticks":
        return body | {"tic_scope": "1", "upd_stkpc_tp": "0"}
    body |= {"base_dt": f"{asked.day:%Y%m%d}", "upd_stkpc_tp": "0"}
    return body | {"tic_scope": "1"} if asked.what == "bars" else body


def _named(asked: Asked) -> str:
    return f"{CALLS[asked.what][0]} of {asked.instrument}"


def refuse_other_venues(asked: Asked, rows: list[Any]) -> None:
    """QuotesError for prints that say they are another venue's; most answers do not say (spec kiwoom 5.4)."""
    said = {str(row["stex_tp"]).strip() for row in rows if isinstance(row, dict) and row.get("stex_tp")}
    if wrong := sorted(said - NAMES[asked.instrument.venue] - {""}):
        raise QuotesError(f"{_named(asked)}: the answer is of {', '.join(wrong)}, another venue")


def _rows(what: str, content: bytes) -> list[Mapping[str, Any]]:
    """The list of an answer, without the empty row that stands for nothing (spec kiwoom 1.5)."""
    found = msgspec.json.decode(content).get(LISTS[what])
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise QuotesError(f"{CALLS[what][0]}: {LISTS[what]} is no list of rows")
    return [row for row in found if any(str(value).strip() for value in row.values())]


def _blank(count: int) -> np.ndarray:
    rows = np.zeros(count, PRINTS)
    for name in ("cum_volume", "ask_price_1", "bid_price_1"):
        rows[name] = UNDEFINED
    return rows


def _text(row: Mapping[str, Any], field: str) -> str:
    text = row.get(field, "")
    if not isinstance(text, str):
        raise QuotesError(f"{field} is no text: {text!r:.40}")
    return text


def _number(row: Mapping[str, Any], field: str, optional: bool = False) -> int:
    """A magnitude; signs in front say something else (spec kiwoom 1.7)."""
    digits = _text(row, field).strip().lstrip("+-")
    if not digits and optional:
        return UNDEFINED
    if not (digits.isdigit() and digits.isascii()):
        raise QuotesError(f"{field} is no number: {row.get(field)!r:.40}")
    return int(digits)


def _instant(digits: str) -> int:
    """`YYYYMMDDHHmmss` in Korean time, ns since 1970 UTC."""
    hour, minute, second = digits[8:10], digits[10:12], digits[12:]
    if len(digits) == 14 and digits.isdigit() and hour < "24" and minute < "60" and second < "60":
        return _midnight(digits[:8]) + (int(hour) * 3600 + int(minute) * 60 + int(second)) * SECOND_NS
    raise QuotesError(f"{digits[:20]!r} is no time: YYYYMMDDHHmmss was expected")


@lru_cache(64)
def _midnight(digits: str) -> int:
    try:
        return int(datetime.strptime(digits, "%Y%m%d").replace(tzinfo=KST).timestamp()) * SECOND_NS
    except ValueError:
        raise QuotesError(f"{digits!r} is no date: YYYYMMDD was expected") from None


HISTORY = RestQuotes
"""What brokers.history looks up by the broker's name."""
