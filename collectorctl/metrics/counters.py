"""What each counter of a vitals page is exposed as: name, kind, whose it is, help (pure).

Guarantees:
    * Every counter of the pages has one row here, and every row another metric or another label (a test compares).
    * A counter that only grows is a Prometheus counter, which may start again with its process; a level is a gauge.
"""

from __future__ import annotations

from typing import NamedTuple

from brokers.registry import BROKERS

PREFIX = "collectorctl_"

_COLLECTORS = tuple(BROKERS)
_WRITER, _GAPFILL, _WATCHDOG, _RELAY, _NOTIFY = ("writer",), ("gapfill",), ("watchdog",), ("relay",), ("notify",)
_ZMQ = ("zmq",)


class CounterExport(NamedTuple):
    """A counter as exposed: `metric` without prefix; `feed`: a label where the counter's name has it; `scale`: to its unit."""

    metric: str
    is_level: bool
    processes: tuple[str, ...]
    help: str
    feed: str = ""
    scale: float = 1.0


def _grows(metric: str, processes: tuple[str, ...], text: str, feed: str = "") -> CounterExport:
    return CounterExport(metric, False, processes, text, feed)


def _level(metric: str, processes: tuple[str, ...], text: str, feed: str = "", scale: float = 1.0) -> CounterExport:
    return CounterExport(metric, True, processes, text, feed, scale)


EXPORTS: dict[str, CounterExport] = {
    "frames": _grows("frames", _COLLECTORS, "Messages received."),
    "bytes": _grows("received_bytes", _COLLECTORS, "Bytes received."),
    "books": _grows("books", _COLLECTORS, "Order books published to the ring."),
    "ticks": _grows("ticks", (*_COLLECTORS, *_GAPFILL), "Ticks published to the ring."),
    "control": _grows("control_frames", _COLLECTORS, "Messages that are no market data."),
    "quarantined": _grows("quarantined_frames", _COLLECTORS, "Frames that could not be decoded and are kept."),
    "quarantine_overflow": _grows("quarantine_overflow", _COLLECTORS, "Undecoded frames for which there was no room."),
    "connects": _grows("connects", _COLLECTORS, "Connections made."),
    "connects_hour": _level("connects_last_hour", _COLLECTORS, "Connections made within an hour, against their limit."),
    "disconnects": _grows("disconnects", _COLLECTORS, "Connections that ended."),
    "connected": _level("connected", _COLLECTORS, "Whether the feed is connected."),
    "requested": _level("subscriptions_requested", _COLLECTORS, "Subscriptions asked for."),
    "acknowledged": _level("subscriptions_acknowledged", _COLLECTORS, "Subscriptions that the broker acknowledged."),
    "refused": _level("subscriptions_refused", _COLLECTORS, "Subscriptions that the broker refuses."),
    "resubscribed": _grows("resubscribed", _COLLECTORS, "Subscriptions that were lost and asked for again."),
    "checksum_failed": _grows("checksum_failed", _COLLECTORS, "Books whose totals contradict their levels."),
    "venue_mismatches": _grows("venue_mismatches", _COLLECTORS, "Records of another venue than subscribed."),
    "wide_frames": _grows("wide_frames", _COLLECTORS, "Frames with more fields than known."),
    "empty_trades": _grows("empty_trades", _COLLECTORS, "Trades without price or size."),
    "last_data_mono_ns": _level(
        "last_data_age_seconds", (*_COLLECTORS, *_WRITER), "Seconds since the last market data."
    ),
    "up_keys": _level("keys_up", _COLLECTORS, "Keys whose connection is up."),
    "list_number": _level(
        "list_number", _COLLECTORS, "Number of the list of instruments that is taken up; 0 without one."
    ),
    "taken_over": _level("subscriptions_taken_over", _COLLECTORS, "Tick subscriptions of the other feed, by failover."),
    "clock_steps": _grows("clock_steps", (*_COLLECTORS, *_WRITER), "Steps of the host's clock."),
    "capture_frames": _grows("captured_frames", _COLLECTORS, "Raw frames captured."),
    "capture_bytes": _grows("captured_bytes", _COLLECTORS, "Compressed bytes of captured frames."),
    "capture_dropped": _grows("capture_dropped_frames", _COLLECTORS, "Raw frames that the capture left out."),
    **{
        f"rows_in_{feed}": _grows("rows_in", _WRITER, "Rows taken from the rings.", feed)
        for feed in ("kis", "kiwoom", "us", "gapfill")
    },
    **{
        f"books_in_{feed}": _grows("books_in", _WRITER, "Books that entered arbitration.", feed)
        for feed in ("kis", "kiwoom")
    },
    "books_new": _grows("books_new", _WRITER, "Books that no feed had delivered before."),
    "twins_differ": _grows("twins_differ", _WRITER, "Of them, books in which the other feed states another detail."),
    "books_twins": _grows("books_twins", _WRITER, "Books that the other feed had delivered already."),
    **{
        f"books_first_{feed}": _grows("books_first", _WRITER, "New books that this feed delivered first.", feed)
        for feed in ("kis", "kiwoom")
    },
    "books_late": _grows("books_late", _WRITER, "Books that came after the watermark."),
    "ticks_in": _grows("ticks_in", _WRITER, "Ticks taken from the rings."),
    "journal_rows": _grows("journal_rows", _WRITER, "Rows written to the journal."),
    "journal_bytes": _grows("journal_bytes", _WRITER, "Bytes written to the journal."),
    "fsyncs": _grows("fsyncs", _WRITER, "fsync calls on the journal."),
    "hours_published": _grows("hours_published", _WRITER, "Hours published to Parquet."),
    "rows_published": _grows("rows_published", _WRITER, "Rows published to Parquet."),
    "late_rows": _grows("late_rows", _WRITER, "Rows of an hour that was published already."),
    "journal_damaged": _grows("journal_damaged", _WRITER, "Damaged places found in the journal."),
    "journal_lost_rows": _grows("journal_lost_rows", _WRITER, "Rows of the journal that are unreadable."),
    "lost_records": _grows(
        "lost_records", (*_WRITER, *_RELAY, *_ZMQ), "Records that the process could not read from a ring."
    ),
    "damaged_records": _grows("damaged_records", _WRITER, "Records lost because they were damaged in the ring."),
    "waiting_books": _level("waiting_books", _WRITER, "Books that wait for their twin."),
    "backlog_records": _level("backlog_records", _WRITER, "Records in all rings that are not in the journal yet."),
    "pauses": _grows("pauses", _WRITER, "Pauses because the disk could not be written."),
    "gap_count": _level("gaps", (*_WRITER, *_RELAY), "Gaps in cumulative volume, newest day."),
    "gap_shares": _level("gap_shares", (*_WRITER, *_RELAY), "Shares in these gaps."),
    "gap_value": _level("gap_value", _WRITER, "Traded value in these gaps, in the market's currency."),
    "duplicate_ticks": _level("duplicate_ticks", _WRITER, "Ticks delivered more than once, newest day."),
    "ticks_doubled": _grows("ticks_doubled", _WRITER, "Doubled ticks that were published once."),
    "ticks_contradicting": _grows("ticks_contradicting", _WRITER, "Ticks that contradict one another."),
    "gaps_confirmed_by_book": _level("gaps_confirmed_by_book", _WRITER, "Gaps that a book confirms, newest day."),
    "gapfill_refused_rows": _grows("gapfill_refused_rows", _WRITER, "Fetched rows that fit no gap any more."),
    "gaps_asked": _grows("gapfill_asked", _GAPFILL, "Gaps that were asked for."),
    "gaps_filled": _grows("gapfill_filled", _GAPFILL, "Gaps that were filled."),
    "gaps_given_up": _grows("gapfill_given_up", _GAPFILL, "Gaps left to recovery after the close."),
    "calls": _grows("gapfill_calls", _GAPFILL, "REST calls."),
    "calls_limited": _grows("gapfill_calls_limited", _GAPFILL, "REST calls that the broker's rate limit rejected."),
    "calls_failed": _grows("gapfill_calls_failed", _GAPFILL, "REST calls that failed."),
    "rows_rejected": _grows("gapfill_rows_rejected", _GAPFILL, "Fetched rows that could not be read."),
    "events": _grows("events", _WRITER, "Rows of the event dataset."),
    "degraded": _level("degradations", _WRITER, "Degradations now."),
    "feeds_degraded": _grows("degradations_begun", _WRITER, "Degradations that began."),
    **{
        f"{name}_share_{feed}_e4": _level(f"{name}_share", _WRITER, text, feed, 1e-4)
        for name, text in (
            ("twin", "Share of the feed's books that the other feed has too, last window."),
            ("first", "Share of the pairs in which the feed was first, last window."),
        )
        for feed in ("kis", "kiwoom")
    },
    **{
        f"lag_p{percent}_us": _level(
            f"feed_lag_p{percent}_seconds", _WRITER, "Lag of the second feed behind the first, last window.", "", 1e-6
        )
        for percent in (50, 99)
    },
    "orders": _grows("watchdog_orders", (*_WATCHDOG, *_WRITER), "Signals and starts ordered."),
    "clients": _level("relay_clients", _RELAY, "Clients connected."),
    "clients_cut": _grows("relay_clients_cut", _RELAY, "Clients cut because they did not read."),
    "relayed": _grows("relayed_frames", _RELAY, "Frames sent to clients."),
    "published": _grows("zmq_messages", _ZMQ, "Messages published over ZeroMQ, whether anybody subscribes or not."),
    "resent": _grows("zmq_resent", _ZMQ, "Messages sent again to subscribers that missed them."),
    "resend_gone": _grows("zmq_resend_gone", _ZMQ, "Messages that subscribers missed and that were no longer kept."),
    "messages": _grows("notifications", _NOTIFY, "Notifications delivered."),
    "pings": _grows("notification_pings", _NOTIFY, "Pings by which somebody notices that this home is off."),
}


def convert_counter(counter: str, value: int, now_mono_ns: int) -> float | None:
    """The value of a counter in the unit of its metric; None where it has none yet."""
    if counter == "last_data_mono_ns":
        return (now_mono_ns - value) * 1e-9 if value else None
    if counter == "up_keys":
        return value.bit_count()
    return value * EXPORTS[counter].scale
