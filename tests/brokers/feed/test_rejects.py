"""Share of rejected records: a feed that refuses much of what it receives is not healthy."""

from __future__ import annotations

import json

from support.process_tree import wait_until

from brokers.feed.rejects import RATE_WINDOW_NS, RejectRate

S = 1_000_000_000


def test_a_tenth_rejected_for_a_minute_is_an_alarm_until_a_minute_is_better():
    """Three of four records, as when every US volume has a fraction; then all is well."""
    rate = RejectRate()
    rate.check(1)
    for second in range(1, 61):
        rate.add(1, 3)
        assert rate.check(1 + second * S) == (
            "" if second < 60 else "180 of 240 records rejected in a minute: see data/quarantine"
        )
    rate.add(1000, 1)
    assert rate.check(1 + 90 * S) != ""
    assert rate.check(1 + 60 * S + RATE_WINDOW_NS) == ""


def test_a_few_bad_frames_are_no_alarm():
    """Nine in a minute, even if nothing else came; and a thousandth of many."""
    rate = RejectRate()
    rate.check(1)
    rate.add(0, 9)
    assert rate.check(1 + RATE_WINDOW_NS) == ""
    rate.add(100_000, 100)
    assert rate.check(1 + 2 * RATE_WINDOW_NS) == ""


def test_a_token_that_is_refused_by_closing_twice_is_replaced(run):
    """Close before the LOGIN reply, twice in a row: the next attempt has a new token, and it streams."""

    def refuse_first_token(vendor):
        answer = vendor.answer

        def close_if_old(number, message):
            is_old = message.get("trnm") == "LOGIN" and message["token"] == "token-1"
            return ["DROP"] if is_old else answer(number, message)

        vendor.answer = close_if_old

    vendor, process = run("kiwoom", "\n[feed]\nbackoff_first_s = 0.1\nbackoff_max_s = 0.3\n", refuse_first_token)
    process.until_state("streaming")

    logins = [json.loads(text)["token"] for _, text, _ in vendor.texts if '"LOGIN"' in text]
    assert logins == ["token-1", "token-1", "token-2"]
    process.stop()


def test_a_token_that_is_refused_by_a_system_message_is_replaced_at_once(run):
    """R10004 and a close instead of a LOGIN reply."""
    refusal = json.dumps({"trnm": "SYSTEM", "code": "R10004", "message": "no token"})

    def refuse_first_token(vendor):
        answer = vendor.answer

        def answer_with_system(number, message):
            is_old = message.get("trnm") == "LOGIN" and message["token"] == "token-1"
            return [refusal, "DROP"] if is_old else answer(number, message)

        vendor.answer = answer_with_system

    vendor, process = run("kiwoom", "\n[feed]\nbackoff_first_s = 0.1\nbackoff_max_s = 0.3\n", refuse_first_token)
    process.until_state("streaming")

    assert len(vendor.posts) == 2
    wait_until("two connections", lambda: len(vendor.opened) == 2)
    process.stop()
