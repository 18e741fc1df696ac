"""WebSocket accept and read loop of both vendors.

Guarantees:
    * Control frames are passed on.
    * A half-open connection receives nothing, not even a Close frame.
    * A client that closed properly is distinguished from one that vanished.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from enum import Enum

from aiohttp import WSMessage, WSMsgType, web

from brokers.simulator.gateway.client import ClientConnection, Feed

MAX_MESSAGE_BYTES = 1 << 20
POLL_S = 0.05


class ClientDisconnect(Enum):
    """How a client left."""

    CLOSED = "client closed"
    VANISHED = "client vanished"


async def accept(request: web.Request, feed: Feed) -> tuple[web.WebSocketResponse, ClientConnection]:
    """Accept the handshake. During an outage the TCP connection ends instead."""
    if feed.is_refusing() and request.transport is not None:
        request.transport.abort()
        raise web.HTTPServiceUnavailable  # no client reads it
    ws = web.WebSocketResponse(autoping=False, autoclose=False, compress=False, max_msg_size=MAX_MESSAGE_BYTES)
    await ws.prepare(request)
    assert request.transport is not None
    return ws, feed.add_client(ws, request.transport)


async def read_messages(ws: web.WebSocketResponse, connection: ClientConnection) -> AsyncIterator[WSMessage]:
    """Messages of the client, its Close last. Ends when the socket does."""
    while True:
        message = await ws.receive()
        if message.type in (WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
            return
        if connection.is_silent():
            if message.type is WSMsgType.CLOSE:
                await _wait_for_tcp_end(connection)
                return
            continue
        if message.type is WSMsgType.CLOSE:
            await ws.close(code=message.data or 1000)
            yield message
            return
        yield message


async def _wait_for_tcp_end(connection: ClientConnection) -> None:
    while connection.is_open() and connection.is_silent():
        await asyncio.sleep(POLL_S)
