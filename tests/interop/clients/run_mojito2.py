"""mojito2: its hosts are literals in its code; its connect call and its base URLs are replaced, nothing else is."""

from __future__ import annotations

import time
from typing import Any

from common import READY, SYMBOLS, WAIT_S, Received
from mojito import koreainvestment

URLS = READY["kis"]
_connect = koreainvestment.websockets.connect


def connect(uri: str, **options: Any) -> Any:
    """The library's connect call, to the simulator."""
    assert uri == "ws://ops.koreainvestment.com:21000"
    return _connect(URLS["ws_url"], **options)


class Rest(koreainvestment.KoreaInvestment):
    """Its REST client at the simulator."""

    def set_base_url(self, mock: bool = True) -> None:
        """As the library's, with another host."""
        self.base_url = URLS["rest_url"]


def main() -> None:
    """Register trades and books of all symbols, then ask for prices and minute bars."""
    received = Received()
    koreainvestment.websockets.connect = connect
    client = koreainvestment.KoreaInvestmentWS("A" * 36, "S" * 180, ["H0STCNT0", "H0STASP0"], SYMBOLS)
    client.base_url = URLS["rest_url"]
    client.start()
    deadline_s = time.monotonic() + WAIT_S
    while not received.is_enough() and time.monotonic() < deadline_s:
        kind, fields = client.queue.get(timeout=WAIT_S)
        if kind == "체결":
            received.add_trade(
                fields["유가증권단축종목코드"], fields["주식현재가"], fields["체결거래량"], fields["누적거래량"]
            )
        else:
            names = ("매도호가", "매수호가", "매도호가잔량", "매수호가잔량")
            received.add_book(
                fields["유가증권 단축 종목코드"],
                (fields[f"{name}{level:02}"] for name in names for level in range(1, 11)),
            )
    client.terminate()
    rest = Rest("A" * 36, "S" * 180, "00000000-01")
    received.rest = {symbol: rest.fetch_price(symbol) for symbol in SYMBOLS}
    received.rest["bars"] = rest._fetch_today_1m_ohlcv(SYMBOLS[0], "235900")  # one page of fetch_today_1m_ohlcv
    received.print_result()


if __name__ == "__main__":
    main()
