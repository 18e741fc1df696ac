"""kis-agent: takes both hosts as arguments. It refuses to connect after 15:30 of the machine's clock; that rule is put aside."""

from __future__ import annotations

import asyncio
from typing import Any

from common import READY, SYMBOLS, WAIT_S, Received
from kis_agent.core.client import KISClient
from kis_agent.core.config import KISConfig
from kis_agent.stock.price_api import StockPriceAPI
from kis_agent.websocket import ws_agent
from kis_agent.websocket.ws_agent import RealtimeDataParser, SubscriptionType, WSAgent

URLS = READY["kis"]


async def collect(approval_key: str, received: Received) -> None:
    """Register trades and books of all symbols until there is enough."""
    agent = WSAgent(approval_key, url=URLS["ws_url"])
    enough = asyncio.Event()

    def on_trade(values: list[str], metadata: Any) -> None:
        if isinstance(values, list):  # the first record of a frame: it reads no more of them
            trade = RealtimeDataParser.parse(SubscriptionType.STOCK_TRADE, values)
            received.add_trade(values[0], trade["stck_prpr"], trade["cntg_vol"], trade["acml_vol"])
        if received.is_enough():
            enough.set()

    def on_book(values: list[str], metadata: Any) -> None:
        if isinstance(values, list):
            book = RealtimeDataParser.parse(SubscriptionType.STOCK_ASK_BID, values)
            names = ("askp", "bidp", "askp_rsqn", "bidp_rsqn")
            received.add_book(values[0], (book[f"{name}{level}"] for name in names for level in range(1, 11)))

    for symbol in SYMBOLS:
        agent.subscribe_stock(symbol, with_orderbook=True)
    agent.register_handler(SubscriptionType.STOCK_TRADE, on_trade)
    agent.register_handler(SubscriptionType.STOCK_ASK_BID, on_book)
    running = asyncio.create_task(agent.connect())
    await asyncio.wait_for(enough.wait(), WAIT_S)
    await agent.disconnect()
    running.cancel()


def main() -> None:
    """Token, prices, approval key, stream."""
    received = Received()
    ws_agent._is_after_market_close = lambda has_night_session=False: False
    client = KISClient(
        config=KISConfig("A" * 36, "S" * 180, URLS["rest_url"], "00000000", "01"), enable_rate_limiter=False
    )
    asyncio.run(collect(client.get_ws_approval_key(), received))
    api = StockPriceAPI(client, _from_agent=True)
    received.rest = {symbol: api.get_stock_price(symbol) for symbol in SYMBOLS}
    received.rest["ccnl"] = api.get_stock_ccnl(SYMBOLS[0])
    received.rest["book"] = api.get_orderbook(SYMBOLS[0])
    received.print_result()


if __name__ == "__main__":
    main()
