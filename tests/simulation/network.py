"""The market of a simulation, and the wire of each feed: real frames of the simulator's encoders, lost, late and repeated.

SimulatedMarket ─update─> frames of each feed ─latency, faults─> socket of the connection that is open then
                    └───> truth: every book and trade by its number
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random
from typing import NamedTuple

from simulation.plan import HOUR_EDGE_SKEW, TWIN_WINDOW_S, US_FEED, FeedBehaviour, Plan

from brokers.simulator.exchange.market import SimulatedMarket
from brokers.simulator.exchange.models import Book, MarketUpdate, Trade
from brokers.simulator.gateway.client import EncodedFrame, QueuedItem
from brokers.simulator.ground_truth import Stream
from brokers.simulator.kis import encode as kis_encode
from brokers.simulator.kis import overseas_encode
from brokers.simulator.kiwoom import encode as kiwoom_encode
from conf.clock import HOUR_NS, KST, SECOND_NS
from conf.instrument import Instrument, parse_instrument
from conf.market import to_local

INSTRUMENTS = tuple(map(parse_instrument, ("005930", "005930_NX", "000660")))
US_INSTRUMENTS = {parse_instrument(text): f"D{text.replace('.', '')}" for text in ("NAS.AAPL", "NYS.BRK/B")}
"""And the keys that they are subscribed under."""
GARBLED_BYTES = 20
"""What is left of a frame that nobody can decode."""
STREAM_NAMES = {Stream.BOOK: "orderbook", Stream.TICK: "tick"}


class SentRecord(NamedTuple):
    """One record of a frame: the numbers of the book or trades it carries, and its time on the wire."""

    stream: str
    first: int
    last: int
    exch_s: int


class SentFrame(NamedTuple):
    """A frame as it reaches the machine."""

    payload: bytes
    records: tuple[SentRecord, ...]


@dataclass
class Truth:
    """What happened at the exchange, by number."""

    books: dict[int, Book]
    trades: dict[int, Trade]


class SimulatedExchange:
    """The market, one event at a time."""

    def __init__(self, plan: Plan, instruments: Sequence[Instrument] = INSTRUMENTS, name: str = "market") -> None:
        self.truth = Truth({}, {})
        self._instruments = instruments
        self._market = SimulatedMarket(instruments, plan.seed)
        self._random = Random(f"{plan.seed} {name}")
        self._events_per_s = plan.events_per_s

    def next_pause_ns(self) -> int:
        """Until the next event."""
        return 1 + round(self._random.expovariate(self._events_per_s) * SECOND_NS)

    def advance(self, calendar_ns: int) -> MarketUpdate | None:
        """One event of a drawn instrument."""
        instrument = self._random.choice(self._instruments)
        update = self._market.advance(instrument, "regular", calendar_ns // SECOND_NS, calendar_ns)
        if update is not None:
            self.truth.trades.update((trade.id, trade) for trade in update.trades)
            if update.book is not None:
                self.truth.books[update.book.id] = update.book
        return update


class SimulatedWire:
    """One feed: from the exchange's update to the socket."""

    def __init__(self, feed: str, plan: Plan) -> None:
        self.feed = feed
        self.connected = False
        behaviour = plan.us if feed == US_FEED else plan.feeds[feed]
        assert behaviour is not None
        self._behaviour: FeedBehaviour = behaviour
        self._tick_feeds = plan.tick_feeds
        self._may_skew_over_hours = HOUR_EDGE_SKEW in plan.switches
        self._random = Random(f"{plan.seed} wire {feed}")
        self._on_the_way: list[tuple[int, int, SentFrame]] = []
        self._count = 0
        self._last_ns = 0

    def send(self, update: MarketUpdate, now_ns: int) -> None:
        """Frames of one update, on their way to whoever is connected when they arrive."""
        random, behaviour = self._random, self._behaviour
        for frame in self._encode(update):
            if random.random() < behaviour.lost:
                continue
            self._last_ns = max(
                self._last_ns, now_ns + round(random.uniform(0.5, 1.0) * behaviour.latency_s * SECOND_NS)
            )
            arrival_ns = self._last_ns
            if random.random() < behaviour.late:
                arrival_ns += round(random.uniform(0.0, random.choice((0.5, 3.0))) * TWIN_WINDOW_S * SECOND_NS)
            if random.random() < behaviour.garbled:
                frame = SentFrame(frame.payload[:GARBLED_BYTES], ())
            self._queue(arrival_ns, frame)
            if random.random() < behaviour.repeated:
                self._queue(arrival_ns + round(random.uniform(0.0, 0.4) * TWIN_WINDOW_S * SECOND_NS), frame)

    def _queue(self, arrival_ns: int, frame: SentFrame) -> None:
        self._count += 1
        heappush(self._on_the_way, (arrival_ns, self._count, frame))

    def take_arrived(self, now_ns: int) -> list[tuple[int, SentFrame]]:
        """What the socket holds by now, with the instant of arrival; nothing waits for a connection that is not there."""
        found = []
        while self._on_the_way and self._on_the_way[0][0] <= now_ns:
            arrival_ns, _, frame = heappop(self._on_the_way)
            found.append((arrival_ns, frame))
        return found

    @property
    def next_arrival_ns(self) -> int | None:
        """When the next frame arrives."""
        return self._on_the_way[0][0] if self._on_the_way else None

    def _encode(self, update: MarketUpdate) -> list[SentFrame]:
        trades, book = update.trades, update.book
        if self.feed not in self._tick_feeds.get(update.instrument.symbol, (US_FEED,)):
            trades = []
        if self._random.random() < self._behaviour.skewed:
            trades, book = self._skew(trades, book)
        items = [QueuedItem(0, update.instrument, Stream.TICK, trades)] if trades else []
        items += [QueuedItem(0, update.instrument, Stream.BOOK, book)] if book is not None else []
        frames: list[EncodedFrame]
        if self.feed == "kis":
            frames = kis_encode.encode_frames(items, kis_encode.PROFILES["47/63"])
        elif self.feed == US_FEED:
            frames = overseas_encode.encode_frames(items, overseas_encode.WIDTHS, US_INSTRUMENTS)
        else:
            frames = kiwoom_encode.encode_frames(items, self._behaviour.merged, self._random)
        exch_s = {(Stream.TICK, trade.id): trade.exch_s for trade in trades}
        if book is not None:
            exch_s[Stream.BOOK, book.id] = book.exch_s
        return [
            SentFrame(
                frame.payload,
                tuple(
                    SentRecord(STREAM_NAMES[stream], first, last, exch_s[stream, last])
                    for stream, first, last in frame.records
                ),
            )
            for frame in frames
        ]

    def _skew(self, trades: list[Trade], book: Book | None) -> tuple[list[Trade], Book | None]:
        """The same with a stamp one second ahead, unless that is another hour and the plan does not want it, or another day."""
        newest = trades[-1] if trades else book
        if newest is None:
            return trades, book
        exch_s = newest.exch_s + 1
        crosses_hour = exch_s * SECOND_NS % HOUR_NS == 0
        crosses_midnight = crosses_hour and to_local(exch_s * SECOND_NS, KST).hour == 0
        if crosses_midnight or (crosses_hour and not self._may_skew_over_hours):
            return trades, book
        at = f"{to_local(exch_s * SECOND_NS, KST):%H%M%S}"
        if book is not None:
            book = copy(book)
            book.exch_s, book.at = exch_s, at
        return [trade._replace(exch_s=exch_s, at=at) for trade in trades], book
