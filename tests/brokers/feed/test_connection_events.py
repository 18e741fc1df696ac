"""What happens on a connection is told: real sockets, real rings, real signals."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from support.process_tree import wait_until

from brokers.decoded import MarketEvent
from brokers.feed.connection_events import BURST_NS, MAX_MARKET_EVENTS, ConnectionEvents
from conf.clock import real
from conf.instrument import Instrument
from ringbuf.events import EventPublisher
from ringbuf.records import EVENT, STREAM_NAMES, UNDEFINED, EventType, FeedId, Venue
from ringbuf.ring import Consumer

FAST = "\n[feed]\nbackoff_first_s = 0.1\nbackoff_max_s = 0.3\n"
PHASE = {"type": "0s", "name": "x", "item": "", "values": {"20": "100000", "214": "000000", "215": "3"}}
INTERRUPTION = {"type": "1h", "name": "x", "item": "", "values": {"9001": "005930", "9068": "1", "1223": "100001"}}


def told(process, count: int) -> list[dict]:
    """The first `count` events of a collector's ring."""
    records = process.records("event", count)[:count]
    return [dict(zip(EVENT.names, record, strict=True)) for record in records.tolist()]


def test_the_life_of_a_connection_is_told_in_order(run):
    """Started, connected, each registration's answer, why it ended and since when nothing came, everything again, stopped."""
    vendor, process = run("kiwoom", FAST)
    process.until_state("streaming")
    vendor.send(json.dumps({"data": [PHASE, INTERRUPTION], "trnm": "REAL"}))
    process.records("event", 6)

    vendor.drop()
    wait_until("the second connection", lambda: len(vendor.opened) == 2)
    process.until_state("streaming")
    process.records("event", 10)
    process.stop()

    first, both = [EventType.STARTED, EventType.CONNECTED], [EventType.ACKNOWLEDGED] * 2
    ending = [EventType.DISCONNECTED, EventType.CONNECTED, *both, EventType.DISCONNECTED, EventType.STOPPED]
    events = told(process, 12)
    assert [event["kind"] for event in events] == [*first, *both, EventType.PHASE, EventType.VI, *ending]
    assert {event["line"] for event in events} == {FeedId.KIWOOM}
    assert [event["connection"] for event in events] == [0, *[1] * 10, 0]
    assert [(e["symbol"], e["venue"], STREAM_NAMES[e["stream"]]) for e in events[2:4]] == [
        (b"005930", Venue.KRX, "orderbook"),
        (b"005930", Venue.KRX, "tick"),
    ]
    assert (events[4]["message"], events[5]["symbol"], events[5]["value"]) == (b"3 open, in 000000", b"005930", 1)
    assert events[1]["recv_ns"] < events[6]["since_ns"] <= events[6]["recv_ns"]
    assert b"connection" in events[6]["message"] and events[10]["message"] == b"asked to stop"
    assert events[0]["since_ns"] == UNDEFINED


def test_after_a_kill_the_next_life_says_since_when_nobody_was_there(run):
    """SIGKILL tells nothing itself: `started` names the last sign of life."""
    _, process = run("kis")
    process.until_state("streaming")
    process.records("event", 4)
    beat_ns = process.vitals().heartbeat_mono_ns

    process.popen.send_signal(signal.SIGKILL)
    process.popen.wait(10)
    again = type(process)("kis", process.home.root)
    again.until_state("streaming")
    started = told(again, 5)[4]
    again.stop()

    assert started["kind"] == EventType.STARTED
    assert 0 < started["recv_ns"] - started["since_ns"] < started["mono_ns"] - beat_ns + 1


def test_a_refusal_and_a_new_try_are_told_by_name(run):
    """The vendor's words, per registration; what it does not answer is told as sent again."""

    def prepare(vendor):
        usual = vendor.answer

        def answer(number, message):
            asked = message.get("body", {}).get("input", {})
            if asked.get("tr_key") == "000660":
                header = {"tr_id": asked["tr_id"], "tr_key": "000660"}
                body = {"rt_cd": "1", "msg_cd": "OPSP0008", "msg1": "MAX SUBSCRIBE OVER"}
                return [json.dumps({"header": header, "body": body})]
            if asked.get("tr_id") == "H0STCNT0" and len(vendor.texts) < 6:
                return []
            return usual(number, message)

        vendor.answer = answer

    _, process = run("kis", "[feed]\nacknowledge_within_s = 0.5\n", prepare, '"005930", "000660"')

    def words(kind: EventType) -> list[tuple[bytes, str, bytes]]:
        events = [event for event in told(process, 4) if event["kind"] == kind]
        return [(event["symbol"], STREAM_NAMES[event["stream"]], event["message"]) for event in events]

    wait_until("the ring", lambda: process.home.ring_path("kis", "event").exists())
    process.records("event", 5)
    assert (b"000660", "orderbook", b"OPSP0008 MAX SUBSCRIBE OVER") in words(EventType.REFUSED)
    found = wait_until(
        "the new try", lambda: [e for e in process.records("event", 1).tolist() if e[12] == EventType.RESUBSCRIBED]
    )
    assert found[0][4] == b"005930"


def test_a_burst_of_frames_put_aside_is_one_event_and_a_sum(tmp_path: Path):
    """The first at once, the rest once a minute, what is left when the connection ends."""
    events = EventPublisher(tmp_path / "kis.event.ring", FeedId.KIS, real())
    tidings = ConnectionEvents(events, real(), 2)
    for at in range(1000):
        tidings.quarantined(f"reason {at}", at)
    tidings.flush_if_due(BURST_NS - 1)
    tidings.flush_if_due(BURST_NS)
    tidings.flush_if_due(3 * BURST_NS)
    tidings.quarantined("one more", 3 * BURST_NS + 1)
    tidings.quarantined("the last", 3 * BURST_NS + 2)
    tidings.disconnected("x", 0)
    events.close()

    ring = Consumer.open(tmp_path / "kis.event.ring", EVENT)
    found = ring.read(1, 100).records
    ring.close()
    assert [(event["value"], event["message"]) for event in found[found["kind"] == EventType.QUARANTINED]] == [
        (1, b"reason 0"),
        (999, b"reason 999"),
        (1, b"one more"),
        (1, b"the last"),
    ]
    assert found["connection"].tolist() == [2] * 5


def test_a_vendor_that_will_not_stop_talking_fills_no_ring(tmp_path: Path):
    """A thousand a minute, the last of which says that the rest is left out; then again."""
    events = EventPublisher(tmp_path / "kiwoom.event.ring", FeedId.KIWOOM, real())
    tidings = ConnectionEvents(events, real(), 1)
    for at in range(5000):
        tidings.market_events([MarketEvent(EventType.PHASE, f"{at}", Instrument("005930", "KRX"))], BURST_NS + at)
    tidings.market_events([MarketEvent(EventType.PHASE, "again")], 2 * BURST_NS + 1)
    events.close()

    ring = Consumer.open(tmp_path / "kiwoom.event.ring", EVENT)
    found = ring.read(1, 9999).records
    ring.close()
    assert len(found) == MAX_MARKET_EVENTS + 1
    assert found["message"][-2:].tolist() == [
        b"the 1000th within a minute: the rest of that minute is left out",
        b"again",
    ]
    assert found["symbol"][-3:].tolist() == [b"005930", b"", b""]


def test_a_halt_is_told_when_the_marks_on_trades_change(run):
    """Once when a trade is marked, once when one is not any more; others are not concerned."""
    vendor, process = run("kis", FAST, universe='"005930", "000660"')
    process.until_state("streaming")
    for halted, symbol in (("N", "005930"), ("Y", "005930"), ("N", "000660"), ("Y", "005930"), ("N", "005930")):
        fields = ["0"] * 47
        fields[0:3] = [symbol, "100000", "72000"]
        fields[12:15], fields[35] = ["1", "100", "7200000"], halted
        vendor.send(f"0|H0STCNT0|001|{'^'.join(fields)}")
    process.records("tick", 5)
    process.stop()

    halts = [event for event in told(process, 10) if event["kind"] == EventType.HALT]
    assert [(event["symbol"], event["value"]) for event in halts] == [(b"005930", 1), (b"005930", 0)]
