"""Faults that users of the vendors' servers recorded, on the simulator by name: the real collector tells each in its state and is
back to streaming."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.process_tree import wait_until

from ringbuf.records import EventType

SETTINGS = """
[universe]
kr = ["005930", "000660"]
[clock]
start = "2026-11-20T10:00:00+09:00"
[ring]
orderbook_capacity = 65536
tick_capacity = 65536
[kis]
subscribe_spacing_ms = 20
cut_wait_s = 2.0
[feed]
backoff_first_s = 1.0
backoff_max_s = 2.0
acknowledge_within_s = 3.0
silent_after_s = 8.0
"""
BACK_WITHIN_S = 60
"""Several times what the waits of the settings above add up to: two cores may be shared by many."""


@pytest.fixture
def market(make_market):
    """Both collectors streaming from a simulator."""
    return make_market(SETTINGS)


def recover(process, cause: Callable[[], None], words: str) -> None:
    """After `cause` the state of the process tells `words`; then books come again and it streams."""
    books = process.vitals().counters["books"]
    cause()
    wait_until(f"{words!r} in the state", lambda: words in process.vitals().detail, BACK_WITHIN_S)
    books = process.vitals().counters["books"]
    wait_until("books again", lambda: process.vitals().counters["books"] > books + 20, BACK_WITHIN_S)
    process.until_state("streaming", BACK_WITHIN_S)


def test_a_heartbeat_whose_answer_is_lost_costs_one_reconnect(market) -> None:
    """The cut after 101 s, here after 1 s: the collector waits as long as the vendor may hold the slot, and is back."""
    kis, kiwoom = market.processes["kis"], market.processes["kiwoom"]

    recover(kis, lambda: market.command("kis pingcut 1"), "dropped the connection without a close frame")

    assert kis.vitals().counters["connects"] == 2
    assert kis.vitals().counters["acknowledged"] == 3
    assert kiwoom.vitals().counters["connects"] == 1


@pytest.mark.parametrize(("acknowledged", "words"), [(0, "no answer to any registration"), (1, "no market data")])
def test_an_approval_key_that_ended_is_replaced_though_nothing_refuses_it(market, acknowledged, words) -> None:
    """Neither data nor an error; whether registrations are acknowledged is not known, so both."""
    kis = market.processes["kis"]

    recover(kis, lambda: market.command(f"kis expirekey {acknowledged}", "kis drop"), words)

    assert kis.vitals().counters["connects"] == 3


def test_what_the_server_releases_unasked_is_registered_again_on_the_same_connection(market) -> None:
    """Two registrations: an event for each loss and each acknowledgement, and all stream again."""
    kis = market.processes["kis"]
    kis.records("orderbook", 50)

    market.command("kis release 2")
    wait_until("both registered again", lambda: kis.vitals().counters["resubscribed"] == 2, BACK_WITHIN_S)
    vitals = kis.until_state("streaming", BACK_WITHIN_S)
    wait_until("all acknowledged", lambda: kis.vitals().counters["acknowledged"] == 3)
    before = kis.vitals().counters["books"]
    books = kis.records("orderbook", int(before) + 60)[int(before) :]
    events = kis.records("event", 1)
    told = [event["message"].decode() for event in events if event["kind"] == EventType.RESUBSCRIBED]

    assert vitals.counters["connects"] == 1
    assert told == ["released by the server, though nobody asked"] * 2
    assert {b"005930", b"000660"} == set(books["symbol"].tolist())


def test_a_blocked_address_is_told_and_tried_until_the_block_ends(market) -> None:
    """KIS: connections cut, no handshake answered."""
    kis = market.processes["kis"]

    recover(kis, lambda: market.command("kis block 6"), "no connection")

    assert kis.vitals().counters["connects"] == 2


@pytest.mark.long
def test_an_address_that_kiwoom_does_not_know_is_told_and_costs_no_token(market) -> None:
    """8050 has the outer code of a dead token: the state says refused, with the code, and the token stays."""
    kiwoom = market.processes["kiwoom"]
    token = kiwoom.home.token_path("kiwoom").read_bytes()

    market.command("kiwoom block 5")
    vitals = kiwoom.until_state("refused", BACK_WITHIN_S)
    kept = kiwoom.home.token_path("kiwoom").read_bytes()
    before = kiwoom.vitals().counters["books"]
    wait_until("books again", lambda: kiwoom.vitals().counters["books"] > before + 20, 2 * BACK_WITHIN_S)

    assert "8050" in vitals.detail
    assert kept == token


@pytest.mark.parametrize(
    ("form", "words"), [(0, "LOGIN refused: 805004"), (1, "R10004"), (2, "closed the connection: 1000")]
)
def test_a_dead_token_is_told_in_each_form_of_refusal(market, form, words) -> None:
    """A LOGIN reply, SYSTEM R10004 and a close, or a close alone, which costs the token at the second time only."""
    kiwoom = market.processes["kiwoom"]

    recover(kiwoom, lambda: market.command(f"kiwoom mutelogin {form}", "kiwoom expire", "kiwoom drop"), words)

    assert kiwoom.vitals().counters["connects"] == (4 if form == 2 else 3)


def test_a_token_answer_with_a_break_inside_a_text_is_read(market) -> None:
    """The answer is no strict JSON; the token in it is good."""
    kiwoom = market.processes["kiwoom"]

    recover(
        kiwoom, lambda: market.command("kiwoom restbreak 1", "kiwoom expire", "kiwoom drop"), "LOGIN refused: 805004"
    )

    assert kiwoom.vitals().counters["connects"] == 3
