"""Feed report: the state of the feeds as the writer publishes it for `status`.

    FeedMonitor ──> HOME/run/lines.json ──> status

Guarantees:
    * A reader loads the form of the report, and nothing that makes one.
"""

from __future__ import annotations

import msgspec


class FeedShare(msgspec.Struct):
    """One line over the last window: of its books which found twins, of the twins which it had first, of all books which it had.

    `exchange_lag_p50_ms`: from the exchange's second to receipt by the home's clock, the median of the last bucket's books; a stamp
    has no fraction, so that of a feed without delay is 500. None: too few books with a stamp.
    """

    feed: str
    books: int
    twin_share: float | None
    first_share: float | None
    coverage: float | None
    exchange_lag_p50_ms: float | None = None


class Degradation(msgspec.Struct, frozen=True):
    """A degraded feed; `symbol`, `venue` are empty if it is degraded as a whole."""

    feed: str
    symbol: str
    venue: str
    message: str


class FeedReport(msgspec.Struct):
    """How the feeds stood over the last `window_s` when it was `written`; a lag is what the second is behind the first."""

    written: str
    window_s: float
    lag_p50_ms: float | None
    lag_p99_ms: float | None
    feeds: list[FeedShare]
    degraded: list[Degradation]
