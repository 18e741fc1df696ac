"""kiwoom-client: takes both hosts as arguments."""

from __future__ import annotations

import asyncio
from typing import Any

from common import READY, SYMBOLS, WAIT_S, Received
from kiwoom_client import KiwoomAPI
from kiwoom_client.websocket import KiwoomWebSocket

URLS = READY["kiwoom"]


async def collect(token: str, received: Received) -> None:
    """Register trades and books of all symbols until there is enough."""
    enough = asyncio.Event()

    def on_trade(entry: dict[str, Any]) -> None:
        values = entry["values"]
        received.add_trade(entry["item"], values["10"], values["15"], values["13"])
        if received.is_enough():
            enough.set()

    def on_book(entry: dict[str, Any]) -> None:
        received.add_book(entry["item"], (entry["values"][str(fid)] for fid in range(41, 81)))

    async with KiwoomWebSocket(token, ws_url=URLS["ws_url"]) as client:
        client.on("0B", on_trade)
        client.on("0D", on_book)
        await client.subscribe(["0B", "0D"], SYMBOLS)
        listening = asyncio.create_task(client.listen())
        await asyncio.wait_for(enough.wait(), WAIT_S)
        await client.unsubscribe(["0B", "0D"], SYMBOLS)
        listening.cancel()


def main() -> None:
    """Token, stream, all pages of the tick chart, the latest trades."""
    received = Received()
    with KiwoomAPI("B" * 43, "S" * 43, base_url=URLS["rest_url"]) as api:
        asyncio.run(collect(api.login()["token"], received))
        query = {"stk_cd": SYMBOLS[0], "tic_scope": "1", "upd_stkpc_tp": "0"}
        page = api.chart.stock_tick_chart(**query)
        received.rest["ticks"] = page["stk_tic_chart_qry"]
        while page["cont-yn"] == "Y":
            page = api.chart.stock_tick_chart("Y", page["next-key"], **query)
            received.rest["ticks"] += page["stk_tic_chart_qry"]
        received.rest["trades"] = api.stock_info.execution_info(stk_cd=SYMBOLS[0])["cntr_infr"]
        received.rest["logout"] = api.logout()["return_code"]
    received.print_result()


if __name__ == "__main__":
    main()
