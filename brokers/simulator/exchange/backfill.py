"""Backfill of the trade history: trades of earlier days, and of today up to now, generated at start.

    intervals of the day's sessions  ─>  orders, as fast as they can be matched  ─>  totals, trade history; ground truth

Guarantees:
    * Live trading continues from the same market, books and totals.
    * Only trading days are generated, with exactly the requested number of trades wherever a session has begun.
    * Seconds never go back; no feed delivers these trades.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date, datetime, timedelta, tzinfo
from random import Random
from typing import NamedTuple

from brokers.simulator.exchange.listing import AUCTIONS, CLOSING_PRICE, CONTINUOUS, Listing
from brokers.simulator.exchange.order_flow import BACKFILL_MIX, Execution
from brokers.simulator.exchange.trade_history import DAY_S, build_row
from conf.calendar import TradingCalendar
from conf.clock import KST, SECOND_NS
from conf.instrument import Instrument
from conf.market import hours_of, to_local

FLUSH_ROWS = 8192
AUCTION_ORDERS = 300
CLOSING_TRADES = 20
BLOCK_SHARES = (500, 50_000)
REGULAR_OPENS_S = 9 * 3600


class BackfillError(ValueError):
    """A number of trades that is invalid or impossible; the message has the reason."""


class PhaseInterval(NamedTuple):
    """A phase of one day, seconds since 1970 UTC."""

    phase: str
    begin_s: int
    end_s: int


def parse_counts(text: str) -> dict[str, int]:
    """Symbol -> number of trades, of "500" or "005930=300000,000660=20"; "" stands for all not named. BackfillError."""
    counts = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, number = part.rpartition("=")
        if not number.isdigit() or (equals and not name):
            raise BackfillError(f"{part!r} is no number of trades: write e.g. 500, or 005930=300000")
        counts[name] = int(number)
    return counts


def requested_trade_count(counts: Mapping[str, int], instrument: Instrument) -> int:
    """The number of trades asked for one instrument."""
    return counts.get(str(instrument), counts.get("", 0))


def compute_midnight(day: date, zone: tzinfo = KST) -> int:
    """The first second of a day."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())


def find_intervals(calendar: TradingCalendar, venue: str, day: date, until_s: int) -> list[PhaseInterval]:
    """The phases of `venue` on `day` that have begun before `until_s`, in order; the last may reach beyond it."""
    intervals = [
        PhaseInterval(one.phase, one.begin_ns // SECOND_NS, one.end_ns // SECOND_NS)
        for one in calendar.phase_spans(venue, day)
    ]
    return [span for span in intervals if span.begin_s < until_s]


def find_earlier_days(calendar: TradingCalendar, today: date, number: int, venue: str = "KRX") -> list[date]:
    """The `number` trading days of `venue` before `today`, oldest first."""
    days: list[date] = []
    day = today
    while len(days) < number:
        day -= timedelta(days=1)
        if not calendar.closed_reason(venue, day):
            days.insert(0, day)
    return days


def find_elapsed_intervals(
    calendar: TradingCalendar, venue: str, now_ns: int, always_open: bool
) -> list[PhaseInterval]:
    """The phases of the clock's day that have begun; one long regular session where the market is always open."""
    zone = hours_of(venue).zone
    day, now_s = to_local(now_ns, zone).date(), now_ns // SECOND_NS
    if always_open:
        begin_s = compute_midnight(day, zone)
        opens_s = begin_s + REGULAR_OPENS_S
        return [PhaseInterval("regular", opens_s if opens_s < now_s else begin_s, begin_s + DAY_S)]
    return find_intervals(calendar, venue, day, now_s)


def generate_day(
    listing: Listing, day: date, phases: list[PhaseInterval], until_s: int, number: int, random: Random, blocks: int = 0
) -> None:
    """Generate `number` trades of `listing` in `phases`, before `until_s`. BackfillError when no session has begun.

    Before `blocks` of them volume is traded off the book. The listing is left between two phases, for live trading to begin
    the one of that moment.
    """
    if not any(span.phase in CONTINUOUS for span in phases):
        raise BackfillError(f"no trades can be made for {listing.instrument} on {day}: its session has not begun")
    if listing.day.date != f"{day:%Y%m%d}":
        listing.begin_day(f"{day:%Y%m%d}")
    generator = _DayGenerator(
        listing, random, set(random.sample(range(number), min(blocks, number))) if blocks else set()
    )
    singles = sum(span.phase in AUCTIONS and span.end_s < until_s for span in phases)
    closing = min(CLOSING_TRADES, number // 50) if any(span.phase == CLOSING_PRICE for span in phases) else 0
    remaining = number - singles - closing
    weight = sum(_compute_weight(span, until_s) for span in phases)
    for span in phases:
        if span.phase in AUCTIONS and span.end_s < until_s and number > singles:
            generator.run_auction(span.end_s)
        elif span.phase == CLOSING_PRICE:
            generator.trade_at_close(closing, span.begin_s, min(span.end_s, until_s))
        elif span.phase in CONTINUOUS:
            share = round(remaining * _compute_weight(span, until_s) / weight)
            remaining, weight = remaining - share, weight - _compute_weight(span, until_s)
            generator.trade_continuously(max(share, 0), span.begin_s, min(span.end_s, until_s))
    generator.flush()
    listing.end_phase(None)
    listing.phase = None


def _compute_weight(span: PhaseInterval, until_s: int) -> int:
    """The activity of a phase: seconds, those of the regular session counting eightfold."""
    if span.phase not in CONTINUOUS:
        return 0
    return max(min(span.end_s, until_s) - span.begin_s, 1) * (8 if span.phase == "regular" else 1)


class _DayGenerator:
    """Makes one day's trades of one listing."""

    def __init__(self, listing: Listing, random: Random, blocks: Collection[int]) -> None:
        self.listing = listing
        self.random = random
        self._blocks = blocks
        self._trade_count = 0
        self._rows: list[tuple[int, ...]] = []

    def trade_continuously(self, number: int, begin_s: int, end_s: int) -> None:
        """Continuous trading: `number` trades, more of them early."""
        flow, book, leader = self.listing.flow, self.listing.book, self.listing.leader
        flow.restore_depth(book)
        length_s = max(end_s - begin_s, 1)
        seconds = sorted(begin_s + int(length_s * self.random.random() ** 1.6) for _ in range(number))
        made = 0
        while made < number:
            if leader is not None:
                self.listing.pull_toward(leader.history.find_price(seconds[made]))
            executions = flow.generate_event(book, BACKFILL_MIX)[: number - made]
            if executions:
                self._record(executions, seconds[made])
                made += len(executions)

    def run_auction(self, at_s: int) -> None:
        """A call auction and its trade."""
        for _ in range(AUCTION_ORDERS):
            self.listing.flow.add_auction_orders(self.listing.book)
        self._record(self.listing.end_phase("closing_auction"), at_s)

    def trade_at_close(self, number: int, begin_s: int, end_s: int) -> None:
        """Trades at the closing price."""
        price = self.listing.day.last
        for at_s in sorted(self.random.randrange(begin_s, max(end_s, begin_s + 1)) for _ in range(number)):
            self._record([Execution(price, self.listing.flow.draw_size(), -1)], at_s)

    def _record(self, executions: list[Execution], at_s: int) -> None:
        """Totals and trade history, as a step of the market updates them."""
        listing = self.listing
        at = listing.format_time(at_s)
        ask, bid = (listing.grid.prices[best] if best is not None else 0 for best in listing.best_indexes())
        for execution in executions:
            if self._trade_count in self._blocks:
                listing.day.add_off_book(execution.price, self.random.randrange(*BLOCK_SHARES))
            self._trade_count += 1
            listing.day.add_trade(execution.price, execution.size, execution.side, at)
            self._rows.append(build_row(at_s, *execution, listing.day, ask, bid))
        if len(self._rows) >= FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Append the generated trades to the trade history."""
        self.listing.history.extend(self._rows)
        self._rows.clear()
