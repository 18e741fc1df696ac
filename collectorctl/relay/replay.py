"""`collectorctl replay`: a stored day on both vendors' WebSockets, in the foreground.

Guarantees:
    * It ends when the span is played and every client has what it registered; it writes nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address

from brokers.simulator.ground_truth import Stream
from collectorctl.reader.stored import Span, StoredRows
from collectorctl.relay.gateway import Gateway
from collectorctl.relay.stored import Replay
from conf.clock import to_kst
from conf.home import Home
from conf.instrument import Instrument
from conf.loader import SECRETS_FILE, load_relay_token
from conf.market import KR, Market
from conf.settings import Relay as RelaySettings


class ReplayError(Exception):
    """A replay that cannot be; the message says why and what to do."""


def run_replay(
    home: Home,
    instruments: list[Instrument],
    span: Span,
    speed: float,
    settings: RelaySettings,
    report: Callable[[str], None],
    market: Market = KR,
) -> None:
    """Play `span`, `speed` times as fast (0: as fast as clients take it). ReplayError, PortTaken.

    `market`: of the instruments, all of them.
    """
    token = load_relay_token(home.root)
    if not token and not ip_address(settings.address).is_loopback:
        raise ReplayError(
            f"relay.address {settings.address} is not loopback: write RELAY_TOKEN=... into {SECRETS_FILE}"
        )
    rows = StoredRows(home, instruments, span.day, market)
    if rows.is_empty:
        raise ReplayError(f"{span.day}: no books and ticks are stored of that day")
    asyncio.run(_serve(rows, instruments, span, speed, settings, token, home.settings.us.paid, report, market))


async def _serve(
    rows: StoredRows,
    instruments: list[Instrument],
    span: Span,
    speed: float,
    settings: RelaySettings,
    token: str,
    us_paid: bool,
    report: Callable[[str], None],
    market: Market,
) -> None:
    counts: Counter[str] = Counter()
    served = frozenset((instrument, stream) for instrument in instruments for stream in Stream)
    replay: Replay

    def add(counter: str) -> None:
        counts[counter] += 1

    gateway = Gateway(settings, token, served, add, lambda: to_kst(replay.now_ns), us_paid)
    replay = Replay(rows, span, speed, gateway)
    try:
        await gateway.listen()
        report(f"{gateway.addresses}: begins when a client has registered something")
        await replay.run()
        await gateway.finish("the span is played")
    finally:
        await gateway.close("the replay ends")
    report(
        f"played {replay.played['orderbook']} books and {replay.played['tick']} ticks, received "
        f"{market.to_local(span.begin_ns):%Y-%m-%d %H:%M} to {market.to_local(span.end_ns):%Y-%m-%d %H:%M %Z}; "
        f"{counts['relayed']} frames sent"
    )
    if replay.gap_shares:
        report(f"{replay.gap_shares} shares were traded and are in no received tick: they were not played")
    if fetched := rows.count_fetched(span.begin_ns, span.end_ns):
        report(f"{fetched} ticks were fetched, not received: they were not played")
