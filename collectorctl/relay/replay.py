"""`collectorctl replay`: a stored day on both vendors' WebSockets, in the foreground.

Guarantees:
    * It ends when the span is played and every client has what it registered; it writes nothing.
    * What was not played, and what waited for clients that ended, is reported with its numbers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from ipaddress import ip_address

from brokers.simulator.ground_truth import Stream
from collectorctl.reader.replay import report_not_received
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
    clients: int = 1,
    each_feed: bool = False,
) -> None:
    """Play `span` of a stored day. ReplayError, PortTaken; OSError, PartitionWriteError: an unreadable file.

    Args:
        home: whose day.
        instruments: which can be registered.
        span: what of the day.
        speed: how many times as fast; 0: as fast as clients take it.
        settings: address, ports and widths.
        report: called with lines for the user.
        market: of the instruments, all of them.
        clients: how many must have registered something.
        each_feed: each form has what its own feed delivered, instead of the first of both.
    """
    token = load_relay_token(home.root)
    if not token and not ip_address(settings.address).is_loopback:
        raise ReplayError(
            f"relay.address {settings.address} is not loopback: write RELAY_TOKEN=... into {SECRETS_FILE}"
        )
    forms = market.feeds if each_feed and len(market.feeds) > 1 else ("",)
    rows = {form: StoredRows(home, instruments, span.day, market, form) for form in forms}
    if rows[forms[0]].is_empty:
        raise ReplayError(f"{span.day}: no books and ticks are stored of that day")
    asyncio.run(_serve(rows, instruments, span, speed, settings, token, home.settings.us.paid, report, market, clients))


async def _serve(
    rows: Mapping[str, StoredRows],
    instruments: list[Instrument],
    span: Span,
    speed: float,
    settings: RelaySettings,
    token: str,
    us_paid: bool,
    report: Callable[[str], None],
    market: Market,
    clients: int,
) -> None:
    counts: Counter[str] = Counter()
    served = frozenset((instrument, stream) for instrument in instruments for stream in Stream)
    replay: Replay

    def add(counter: str) -> None:
        counts[counter] += 1

    gateway = Gateway(settings, token, served, add, lambda: to_kst(replay.now_ns), us_paid)
    replay = Replay(rows, span, speed, gateway, clients)
    try:
        await gateway.listen()
        who = "a client has" if clients == 1 else f"{clients} clients have"
        report(f"{gateway.addresses}: begins when {who} registered something")
        await replay.run()
        await gateway.finish("the span is played")
    finally:
        await gateway.close("the replay ends")
    report(
        f"played {replay.played['orderbook']} books and {replay.played['tick']} ticks, received "
        f"{market.to_local(span.begin_ns):%Y-%m-%d %H:%M} to {market.to_local(span.end_ns):%Y-%m-%d %H:%M %Z}; "
        f"{counts['relayed']} frames sent"
    )
    if not_sent := sum(feed.not_sent for feed in gateway.feeds):
        report(f"{not_sent} frames waited for clients that ended: they were not sent")
    fetched = next(iter(rows.values())).count_fetched(span.begin_ns, span.end_ns)
    report_not_received(report, replay.gap_shares, fetched)
