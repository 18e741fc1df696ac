"""Faults of a vendor's whole port: a blocked address, and JSON answers with a line break inside a text.

Guarantees:
    * While the address is blocked, a request gets no answer: its connection hangs, and ends with the block.
    * Only the text of a message gets a line break, so that the answer means the same.

Not handled here:
    * Kiwoom answers an address that is not registered, with 8050 (docs/wire/kiwoom.md 1.2): rest.py and websocket.py there.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from brokers.simulator.faults import FeedFaults

POLL_S = 0.05
_MESSAGE_TEXT = re.compile(rb'("(?:msg1|return_msg|message|error_description)": ?")')


def build_fault_middleware(feed: str, faults: FeedFaults) -> Middleware:
    """What every request of the feed's port passes."""

    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if feed != "kiwoom" and faults.is_blocked():
            while faults.is_blocked():
                await asyncio.sleep(POLL_S)
            if request.transport is not None:
                request.transport.abort()
            raise web.HTTPServiceUnavailable  # no client reads it
        response = await handler(request)
        if isinstance(response, web.Response) and isinstance(response.body, bytes):
            broken = _MESSAGE_TEXT.sub(rb"\1\n", response.body, count=1)
            if broken != response.body and faults.take("restbreak"):
                response.body = broken
        return response

    return middleware
