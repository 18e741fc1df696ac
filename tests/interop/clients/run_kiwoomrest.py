"""kiwoomRest: its hosts are constants of a module; they are replaced, nothing else is."""

from __future__ import annotations

import asyncio
from typing import Any

from common import READY, SYMBOLS, WAIT_S, Received
from kiwoomRest import KwRestApi, rest_api

URLS = READY["kiwoom"]


async def collect(received: Received) -> None:
    """Log in, register trades and books of all symbols, ask for a tick chart by pages."""
    enough = asyncio.Event()

    def on_message(message: dict[str, Any]) -> None:
        for entry in message.get("data", []):
            values = entry["values"]
            if entry["type"] == "0B":
                received.add_trade(entry["item"], values["10"], values["15"], values["13"])
            elif entry["type"] == "0D":
                received.add_book(entry["item"], (values[str(fid)] for fid in range(41, 81)))
        if received.is_enough():
            enough.set()

    api = KwRestApi()
    api.on_realtime.connect(on_message)
    assert await api.login("B" * 43, "S" * 43), api.last_message
    registration = {"trnm": "REG", "grp_no": "1", "refresh": "1", "data": [{"item": SYMBOLS, "type": ["0B", "0D"]}]}
    received.rest["REG"] = (await api.realtime(registration)).return_code
    await asyncio.wait_for(enough.wait(), WAIT_S)
    received.rest["REMOVE"] = (await api.realtime(registration | {"trnm": "REMOVE"})).return_code
    query = {"stk_cd": SYMBOLS[0], "tic_scope": "1", "upd_stkpc_tp": "0"}
    page = await api.request("ka10079", query)
    received.rest["ticks"] = page.body["stk_tic_chart_qry"]
    while page.cont_yn == "Y":
        page = await api.request("ka10079", query, cont_yn="Y", next_key=page.next_key)
        received.rest["ticks"] += page.body["stk_tic_chart_qry"]
    received.rest["trades"] = (await api.request("ka10003", {"stk_cd": SYMBOLS[0]})).body["cntr_infr"]
    await api.close()


def main() -> None:
    """The whole conversation."""
    rest_api.BASE_URL_REAL, rest_api.WSS_URL_REAL = URLS["rest_url"], URLS["ws_url"]
    received = Received()
    asyncio.run(collect(received))
    received.print_result()


if __name__ == "__main__":
    main()
