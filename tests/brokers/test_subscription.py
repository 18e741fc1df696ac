"""The subscription ledger and the deadlines that are read from it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.errors import SessionExpired
from brokers.feed.liveness import LivenessMonitor
from brokers.subscription import Subscription, SubscriptionTable
from conf.calendar import TradingCalendar
from conf.clock import SECOND_NS as S
from conf.instrument import Instrument
from conf.loader import load_settings
from conf.settings import Settings

BOOK = Subscription(Instrument("005930", "KRX"), "orderbook")
TICK = Subscription(Instrument("005930", "KRX"), "tick")
OTHER = Subscription(Instrument("000660", "NXT"), "orderbook")
FRIDAY_10 = 1_795_136_400 * S  # 2026-11-20 10:00 in Seoul
FRIDAY_NIGHT = FRIDAY_10 + 12 * 3600 * S


@pytest.fixture
def watch(tmp_path):
    """Deadlines of 30 s, 60 s, 10 s and 900 s, connected at 0."""
    settings = msgspec.convert(msgspec.to_builtins(load_settings(tmp_path)), Settings)
    made = LivenessMonitor(settings, TradingCalendar(settings), 150.0)
    made.on_connected(0)
    return made


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "request", "accept", "refuse", "lose"]), st.booleans())))
def test_whether_all_are_answered_is_right_after_any_change(changes):
    """It is kept between changes, since every poll asks."""
    ledger = SubscriptionTable([BOOK])
    for change, is_tick in changes:
        subscription = TICK if is_tick else BOOK
        if change in ("request", "lose") and subscription not in ledger.states:
            continue
        {
            "add": lambda r: ledger.add(r),
            "remove": lambda r: ledger.remove(r),
            "request": lambda r: ledger.on_requested(r, 1),
            "accept": lambda r: ledger.on_acknowledged(r, 2),
            "refuse": lambda r: ledger.on_refused(r, "no"),
            "lose": lambda r: ledger.on_lost(r, 3),
        }[change](subscription)
        assert ledger.all_answered() == all(s.acknowledged_ns or s.refusal for s in ledger.states.values())


def test_the_first_data_after_each_subscription_is_the_first():
    """Also when it comes before its acknowledgement (docs/wire/kis.md 2.3)."""
    ledger = SubscriptionTable([BOOK, TICK])
    ledger.on_requested(BOOK, 1)

    assert [ledger.on_data(BOOK, 2), ledger.on_data(BOOK, 3)] == [True, False]
    ledger.on_acknowledged(BOOK, 4)
    assert not ledger.on_data(BOOK, 5)
    ledger.on_requested(BOOK, 6)
    assert ledger.on_data(BOOK, 7)


def test_what_is_neither_confirmed_nor_refused_becomes_overdue():
    """What was never asked for is not awaited."""
    ledger = SubscriptionTable([BOOK, TICK, OTHER])
    ledger.on_requested(BOOK, 1 * S)
    ledger.on_requested(TICK, 1 * S)
    ledger.on_refused(TICK, "no")

    assert ledger.unacknowledged(11 * S, 10 * S) == []
    assert ledger.unacknowledged(11 * S + 1, 10 * S) == [BOOK]
    assert ledger.on_acknowledged(BOOK, 12 * S)
    assert not ledger.on_acknowledged(BOOK, 13 * S)
    assert ledger.unacknowledged(99 * S, 10 * S) == []
    assert not ledger.all_answered()
    assert ledger.describe_refusals() == ["005930 tick: no"]


@pytest.mark.parametrize(("moment", "limit_s"), [(FRIDAY_10, 30), (FRIDAY_NIGHT, 150)])
def test_a_dead_connection_is_lost_at_any_hour(watch, moment, limit_s):
    """No frame for dead_after_s, at night for as long as the vendor's heartbeats may be apart; a heartbeat is a frame."""
    watch.update_open_venues(moment, {"KRX"}, 0)
    watch.on_frame(20 * S)
    watch.check_connection(True, (20 + limit_s) * S)

    with pytest.raises(SessionExpired, match=f"no frame of any kind for {limit_s + 1} s"):
        watch.check_connection(True, (21 + limit_s) * S)


def beat(watch: LivenessMonitor, begin: int, end: int) -> None:
    """Heartbeats and checks once a second."""
    for second in range(begin, end + 1):
        watch.on_frame(second * S)
        watch.check_connection(True, second * S)


def test_silence_is_judged_in_a_session_only(watch):
    """Heartbeats alone do for the night, not for the day."""
    watch.update_open_venues(FRIDAY_NIGHT, {"KRX"}, 0)
    assert not watch.is_open
    beat(watch, 1, 600)
    watch.update_open_venues(FRIDAY_10, {"KRX"}, 600 * S)
    assert watch.is_open
    beat(watch, 601, 661)

    with pytest.raises(SessionExpired, match="no market data for 61 s"):
        beat(watch, 662, 662)


def test_each_venue_is_judged_in_its_own_sessions(watch):
    """08:20: NXT trades and KRX does not; 15:25 the other way round; 15:35 neither; 15:45 NXT alone: KRX is quiet."""
    ledger = SubscriptionTable([BOOK, OTHER])
    for registration in ledger.states:
        ledger.on_requested(registration, 1)
        ledger.on_acknowledged(registration, 2)
    for minute, silent in ((-100, [OTHER]), (325, [BOOK]), (335, []), (345, [OTHER])):
        watch.update_open_venues(FRIDAY_10 + minute * 60 * S, {"KRX", "NXT"}, 1)
        watch.on_data(2000 * S)
        assert watch.stale_subscriptions(ledger, 2000 * S) == silent
        assert watch.is_open is bool(silent)


def test_silence_that_renewing_does_not_mend_is_given_more_time(watch):
    """Twice the time after each renewal in vain, the usual time again once data came."""
    watch.update_open_venues(FRIDAY_10, {"KRX"}, 0)
    with pytest.raises(SessionExpired):
        beat(watch, 1, 62)
    watch.on_connected(100 * S)
    beat(watch, 101, 221)
    with pytest.raises(SessionExpired):
        beat(watch, 222, 222)
    watch.on_connected(300 * S)
    beat(watch, 301, 310)
    watch.on_data(310 * S)
    beat(watch, 311, 370)
    with pytest.raises(SessionExpired):
        beat(watch, 371, 371)


def test_an_acknowledgement_that_never_comes_ends_the_connection(watch):
    """Sent again twice, then begun again."""
    ledger = SubscriptionTable([BOOK])
    for attempt in range(1, 3):
        ledger.on_requested(BOOK, attempt * 100 * S)
        assert watch.unacknowledged_subscriptions(ledger, attempt * 100 * S + 11 * S) == [BOOK]
    ledger.on_requested(BOOK, 300 * S)

    with pytest.raises(SessionExpired, match="005930 orderbook: not acknowledged after 3"):
        watch.unacknowledged_subscriptions(ledger, 311 * S)


def test_a_silent_symbol_is_found_while_its_connection_speaks(watch):
    """Confirmed, silent for symbol_silent_after_s, its venue open as long; on a silent connection nobody is singled out."""
    ledger = SubscriptionTable([BOOK, TICK, OTHER])
    watch.update_open_venues(FRIDAY_10, {"KRX"}, 1)
    for registration in ledger.states:
        ledger.on_requested(registration, 1)
        ledger.on_acknowledged(registration, 2)
    ledger.on_data(BOOK, 890 * S)

    assert watch.stale_subscriptions(ledger, 905 * S) == []
    watch.on_data(890 * S)
    assert watch.stale_subscriptions(ledger, 900 * S) == []
    assert watch.stale_subscriptions(ledger, 905 * S) == [TICK]  # OTHER's venue is not open
    ledger.on_requested(TICK, 905 * S)
    ledger.on_acknowledged(TICK, 906 * S)
    assert watch.stale_subscriptions(ledger, 907 * S) == []
