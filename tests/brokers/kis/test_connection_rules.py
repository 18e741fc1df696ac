"""The collector process against a KIS that behaves as clients met it in 2026 (docs/wire/kis.md 1.3, 2.3 to 2.6)."""

from __future__ import annotations

import json
import signal
import time

from support.process_tree import temporary_home, wait_until

from ringbuf.records import STREAM_NAMES, UNDEFINED, EventType

FAST = "[feed]\nbackoff_first_s = 0.1\nbackoff_max_s = 0.2\n"
PINGPONG = '{"header":{"tr_id":"PINGPONG","datetime":"20261120100000"}}'
RELEASED = {"rt_cd": "0", "msg_cd": "OPSP0001", "msg1": "UNSUBSCRIBE SUCCESS"}


def trade(cum_volume: int) -> str:
    """A trade of one share of 005930."""
    fields = ["0"] * 47
    fields[:3] = ["005930", "100000", "72000"]
    fields[12:15] = ["1", str(cum_volume), str(72000 * cum_volume)]
    return f"0|H0STCNT0|001|{'^'.join(fields)}"


def test_an_approval_key_that_has_ended_is_replaced_after_silence(run) -> None:
    """No data, no error, heartbeats only: one silent connection, then a new key, then streaming."""

    def prepare(vendor):
        usual = vendor.answer
        vendor.answer = lambda number, message: [PINGPONG] if number == 0 else usual(number, message)

    began = time.monotonic()
    vendor, process = run("kis", FAST + "acknowledge_within_s = 1.0\n", prepare)
    vitals = process.until_state("retrying")
    process.until_state("streaming")

    assert "no answer to any registration" in vitals.detail  # "approval" is a part of the secret
    assert time.monotonic() - began < 20
    keys = [vendor.messages(n)[0]["header"]["approval_key"] for n in (0, 1)]
    assert keys == ["approval-1", "approval-2"]


def test_a_release_by_the_server_is_told_and_registered_again(run) -> None:
    """One event at the loss, one at the acknowledgement, the count, and trades on the same connection."""
    vendor, process = run("kis", FAST)
    process.until_state("streaming")
    process.records("event", 4)

    vendor.send(json.dumps({"header": {"tr_id": "H0STCNT0", "tr_key": "005930  ", "encrypt": "N"}, "body": RELEASED}))
    wait_until("a second registration", lambda: len(vendor.messages()) == 3)
    vendor.send(trade(1))
    process.records("tick", 1)

    events = process.records("event", 6)[4:6]
    assert events["kind"].tolist() == [EventType.RESUBSCRIBED, EventType.ACKNOWLEDGED]
    assert [STREAM_NAMES[stream] for stream in events["stream"]] == ["tick", "tick"]
    assert b"released by the server" in events["message"][0]
    assert vendor.messages()[-1]["body"]["input"] == {"tr_id": "H0STCNT0", "tr_key": "005930"}
    assert process.vitals().counters["resubscribed"] == 1
    assert len(vendor.opened) == 1


def test_a_server_that_releases_over_and_over_is_asked_slower_and_slower(run) -> None:
    """The state names the registration meanwhile; the connection and the others stay."""

    def prepare(vendor):
        usual = vendor.answer

        def answer(number, message):
            replies = usual(number, message)
            if message.get("body", {}).get("input", {}).get("tr_id") == "H0STCNT0":
                header = {"tr_id": "H0STCNT0", "tr_key": "005930", "encrypt": "N"}
                replies.append(json.dumps({"header": header, "body": RELEASED}))
            return replies

        vendor.answer = answer

    vendor, process = run("kis", FAST, prepare)

    vitals = wait_until("the words", lambda: (v := process.vitals()) and "released by the server" in v.detail and v)
    wait_until("four registrations", lambda: len(vendor.messages()) >= 5)
    times = [s for _, text, s in vendor.texts if "H0STCNT0" in text]

    assert vitals.state == "subscribing" and "005930 tick" in vitals.detail
    assert times[3] - times[2] > 2
    assert len(vendor.opened) == 1


def test_a_connection_loop_is_slowed_down_in_words_across_kills(run) -> None:
    """Two connections at any pace, then one in fifteen minutes; a new process is bound by those of the one before."""

    def prepare(vendor):
        vendor.answer = lambda number, message: ["DROP"]

    vendor, process = run("kis", FAST + "max_connects_per_hour = 6\n", prepare)
    vitals = process.until_state("connect_limit")

    assert len(vendor.opened) == 2
    assert "2 connections in the last hour" in vitals.detail and "max_connects_per_hour" in vitals.detail
    process.popen.send_signal(signal.SIGKILL)
    process.popen.wait(10)
    again = type(process)("kis", process.home.root)
    again.until_state("connect_limit")
    assert len(vendor.opened) == 2
    assert again.stop() < 5


def test_the_connections_of_the_last_hour_are_in_the_vitals(run) -> None:
    """A level, not a sum."""
    vendor, process = run("kis", FAST)
    process.until_state("streaming")

    vendor.drop()
    wait_until("the second connection", lambda: len(vendor.opened) == 2)
    process.until_state("streaming")

    wait_until("both", lambda: process.vitals().counters["connects_hour"] == 2)


STATUS = "0|H0STMKO0|001|005930^{halt}^{reason}^112^^^^55^{vi}^N^"


def test_market_operation_becomes_events_and_only_what_has_changed(run) -> None:
    """Phase, halt with its reason, VI on and off; each message repeats all of them."""
    vendor, process = run("kis", "market_status = true\n" + FAST)
    process.until_state("streaming")
    process.records("event", 5)

    quiet = STATUS.format(halt="N", reason="(null)", vi="N")
    for text in (
        quiet,
        quiet,
        STATUS.format(halt="N", reason="(null)", vi="Y"),
        STATUS.format(halt="Y", reason="공시", vi="Y"),
        STATUS.format(halt="N", reason="(null)", vi="N"),
        trade(1),
    ):
        vendor.send(text)
    process.records("tick", 1)
    events = process.records("event", 10)[5:]

    assert [m["body"]["input"]["tr_id"] for m in vendor.messages()] == ["H0STASP0", "H0STCNT0", "H0STMKO0"]
    assert [(int(event["kind"]), int(event["value"]), event["message"].decode()) for event in events] == [
        (EventType.PHASE, UNDEFINED, "112 open, or expected prices before the open end"),
        (EventType.VI, 1, ""),
        (EventType.HALT, 1, "공시"),
        (EventType.HALT, 0, ""),
        (EventType.VI, 0, ""),
    ]
    assert set(events["symbol"].tolist()) == {b"005930"}
    assert process.vitals().counters["quarantined"] == 0


def test_market_operation_gives_its_slot_to_ticks_in_place_of_another_feed(make_vendor, make_process) -> None:
    """Four slots: two books, a tick and a status; the other feed is down, so its tick takes the slot of the status."""
    vendor = make_vendor("kis")
    address = f"127.0.0.1:{vendor.port}"
    text = f"""
    universe.kr = ["005930", "000660"]
    clock.start = "2026-11-20T10:00:00+09:00"
    ring = {{ orderbook_capacity = 4096, tick_capacity = 4096 }}
    shards.takeover_after_s = 1.0
    [kis]
    ws_url = "ws://{address}"
    rest_url = "http://{address}"
    max_subscriptions = 4
    subscribe_spacing_ms = 20
    market_status = true
    """
    with temporary_home(text) as root:
        process = make_process("kis", root)
        wait_until("six requests", lambda: len(vendor.messages()) >= 6)
        process.stop()
    requests = [(m["header"]["tr_type"], *m["body"]["input"].values()) for m in vendor.messages()]

    assert requests[3:] == [("1", "H0STMKO0", "005930"), ("2", "H0STMKO0", "005930"), ("1", "H0STCNT0", "000660")]


def test_a_market_operation_that_is_never_acknowledged_costs_no_data(run) -> None:
    """After three requests it counts as refused, and everything else streams on the same connection."""

    def prepare(vendor):
        usual = vendor.answer
        vendor.answer = lambda number, message: [] if "MKO0" in json.dumps(message) else usual(number, message)

    settings = "market_status = true\n" + FAST + "acknowledge_within_s = 0.5\n"
    vendor, process = run("kis", settings, prepare)
    vitals = process.until_state("streaming")
    vendor.send(trade(1))
    process.records("tick", 1)

    assert "005930 status: not acknowledged" in process.vitals().detail or vitals.counters["refused"] == 1
    assert len(vendor.opened) == 1


def test_each_heartbeat_is_answered_whatever_else_waits(run) -> None:
    """One that is not answered costs the connection 101 s later."""
    vendor, process = run("kis", FAST)
    process.until_state("streaming")

    for _ in range(3):
        vendor.send(PINGPONG)

    wait_until("three answers", lambda: [text for _, text, _ in vendor.texts].count(PINGPONG) == 3)
