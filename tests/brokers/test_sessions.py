"""The two dialogues without sockets: what they say when, and what they make of the answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brokers.errors import SessionExpired, SessionRejected
from brokers.kis.session import KisSession
from brokers.kiwoom.rest import inner_code
from brokers.kiwoom.session import KiwoomSession
from brokers.subscription import Subscription, SubscriptionTable
from conf.instrument import Instrument

SAMPLES = Path(__file__).parents[3] / "shared" / "specs" / "samples"
MS = 1_000_000
S = 1000 * MS
T0 = 1000 * S


def registrations(count: int, *streams: str) -> list[Subscription]:
    """`count` symbols with these streams, books and ticks unless named."""
    return [
        Subscription(Instrument(f"{n:06}", "KRX"), stream)
        for stream in streams or ("orderbook", "tick")
        for n in range(count)
    ]


def kis(count: int = 1) -> tuple[KisSession, SubscriptionTable]:
    """A KIS session with 100 ms spacing."""
    ledger = SubscriptionTable(registrations(count))
    return KisSession("approval", "P", 100, 10, ledger), ledger


def kiwoom(count: int = 1, chunk: int = 100) -> tuple[KiwoomSession, SubscriptionTable]:
    """A Kiwoom session with 250 ms spacing and 10 s for an answer."""
    ledger = SubscriptionTable(registrations(count))
    return KiwoomSession("the-token-itself", chunk, 250, 10, ledger), ledger


def ack(code: str, tr_key: str = "000000", tr_id: str = "H0STASP0", rt_cd: str = "0", words: str = "x") -> bytes:
    """A KIS answer."""
    return json.dumps(
        {"header": {"tr_id": tr_id, "tr_key": tr_key}, "body": {"rt_cd": rt_cd, "msg_cd": code, "msg1": words}}
    ).encode()


def reply(trnm: str = "REG", code: int | str = 0, words: str = "") -> bytes:
    """A Kiwoom answer."""
    return json.dumps({"trnm": trnm, "return_code": code, "return_msg": words}).encode()


def drain(session, begin_ns: int, seconds: float, step_ms: int = 10) -> list[tuple[int, dict]]:
    """What it sends within a span, with the ms at which."""
    said = []
    for ms in range(0, int(seconds * 1000), step_ms):
        said += [(ms, json.loads(message)) for message in session.pending_messages(begin_ns + ms * MS)]
    return said


def test_kis_registrations_leave_one_by_one_in_order():
    """Books first as planned, never closer than the spacing (docs/wire/kis.md 2.2)."""
    session, _ = kis(2)

    said = drain(session, T0, 2)

    assert [ms for ms, _ in said] == [0, 100, 200, 300]
    trs = [m["body"]["input"]["tr_id"] for _, m in said]
    assert trs == ["H0STASP0"] * 2 + ["H0STCNT0"] * 2


def test_kis_is_streaming_when_everything_has_its_answer():
    """Acknowledged or refused; OPSP0002 with rt_cd 1 is an acknowledgement (docs/wire/kis.md 2.4)."""
    session, ledger = kis()
    drain(session, T0, 1)

    assert session.state == "subscribing"
    session.receive(ack("OPSP0002", rt_cd="1"), T0)
    assert session.state == "subscribing"
    heard = session.receive(ack("OPSP0008", tr_id="H0STCNT0", rt_cd="1", words="MAX SUBSCRIBE OVER"), T0)
    assert session.state == "streaming"
    assert "MAX SUBSCRIBE OVER" in heard.message
    assert ledger.describe_refusals() == ["000000 tick: OPSP0008 MAX SUBSCRIBE OVER"]


def test_kis_heartbeats_are_echoed_byte_for_byte_before_anything_else():
    """Also while registrations wait for their time."""
    session, _ = kis()
    session.pending_messages(T0)
    ping = b'{"header": {"tr_id":"PINGPONG","datetime":"20230502221924"}}'

    session.receive(ping, T0)

    assert [ping] == session.pending_messages(T0)


@pytest.mark.parametrize(
    ("message", "wait_s", "renew"),
    [
        (ack("OPSP8996", tr_key="", tr_id="(null)", rt_cd="9"), 10, False),
        (ack("OPSP0011", rt_cd="1"), 0, True),
        (ack("OPSP9994", tr_key="", tr_id="(null)", rt_cd="1"), 60, False),
    ],
)
def test_kis_refusals_of_the_whole_session(message, wait_s, renew):
    """They say how long to wait and whether a new key is wanted (docs/wire/kis.md 2.6)."""
    session, _ = kis()

    with pytest.raises(SessionRejected) as caught:
        session.receive(message, T0)

    assert (caught.value.retry_after_s, caught.value.refresh_credential, caught.value.state) == (
        wait_s,
        renew,
        "refused",
    )


@pytest.mark.parametrize("rt_cd", ["1", 1])
@pytest.mark.parametrize("padded", ["000000", " 000000  "])
def test_kis_understands_numbers_and_padding_in_an_answer(rt_cd, padded):
    """rt_cd as a number, keys and codes with blanks around them."""
    session, ledger = kis()
    drain(session, T0, 1)

    refused = session.receive(ack("OPSP0008 ", tr_key=padded, tr_id=" H0STCNT0", rt_cd=rt_cd), T0)
    accepted = session.receive(ack("", tr_key=padded, rt_cd=0), T0)

    assert not refused.unexpected and not accepted.unexpected
    assert session.state == "streaming"
    assert ledger.describe_refusals() == ["000000 tick: OPSP0008 x"]


@pytest.mark.parametrize("tr_key", [None, ""])
def test_kis_gives_an_answer_without_a_key_to_the_oldest_registration_of_its_tr(tr_key):
    """Answers come in the order of the requests."""
    session, ledger = kis(2)
    drain(session, T0, 1)

    session.receive(ack("OPSP0000", tr_key=tr_key), T0)
    session.receive(ack("OPSP0008", tr_key=tr_key, rt_cd="1"), T0)
    late = session.receive(ack("OPSP0000", tr_key=tr_key), T0)

    assert [bool(state.acknowledged_ns) for state in ledger.states.values()] == [True, False, False, False]
    assert ledger.describe_refusals() == ["000001 orderbook: OPSP0008 x"]
    assert late.unexpected


@pytest.mark.parametrize("code", ["OPSP8996", "OPSP0011", "OPSP9994"])
def test_kis_understands_a_refusal_of_the_session_whose_key_is_null(code):
    """The second session of an appkey must not be taken for garbage because of a null."""
    session, _ = kis()

    with pytest.raises(SessionRejected):
        session.receive(
            json.dumps({"header": {"tr_id": None, "tr_key": None}, "body": {"rt_cd": 9, "msg_cd": code}}).encode(), T0
        )


def test_kis_registers_again_what_the_server_releases_unasked():
    """Due at once, after a second loss a second later, and told by name until it is acknowledged again."""
    session, ledger = kis()
    drain(session, T0, 1)
    tick = list(ledger.states)[1]
    for tr_id in ("H0STASP0", "H0STCNT0"):
        session.receive(ack("OPSP0000", tr_id=tr_id), T0)

    heard = session.receive(ack("OPSP0001", tr_id="H0STCNT0"), T0 + S)

    assert heard.lost == (tick,)
    assert session.state == "subscribing"
    assert ledger.describe_refusals() == ["000000 tick: released by the server, registering again"]
    assert ledger.lost(T0 + S) == [tick]
    session.resubscribe([tick], T0 + S, unsubscribe_first=False)
    assert [m["body"]["input"]["tr_id"] for _, m in drain(session, T0 + S, 1)] == ["H0STCNT0"]
    session.receive(ack("OPSP0000", tr_id="H0STCNT0"), T0 + S)
    assert session.state == "streaming" and not ledger.describe_refusals()

    session.receive(ack("OPSP0001", tr_id="H0STCNT0"), T0 + 2 * S)
    assert (ledger.lost(T0 + 2 * S), ledger.lost(T0 + 3 * S)) == ([], [tick])


def test_kis_takes_a_release_without_a_key_for_one_of_every_registration_of_its_tr():
    """Registering one that stands is harmless; one that is lost without a word is a silent hole."""
    session, ledger = kis(2)
    drain(session, T0, 1)
    for subscription in ledger.states:
        ledger.on_acknowledged(subscription, T0)

    heard = session.receive(ack("OPSP0001", tr_key=None), T0)

    assert [str(subscription) for subscription in heard.lost] == ["000000 orderbook", "000001 orderbook"]


def test_kis_takes_no_answer_to_its_own_release_for_a_loss():
    """Whether the subscription is wanted again or not."""
    session, ledger = kis()
    drain(session, T0, 1)
    book, tick = ledger.states
    ledger.on_acknowledged(book, T0)
    ledger.on_acknowledged(tick, T0)
    session.resubscribe([book], T0, unsubscribe_first=True)
    session.unsubscribe([tick], T0)
    drain(session, T0 + S, 1)

    heard = [session.receive(ack("OPSP0001", tr_id=tr_id), T0) for tr_id in ("H0STASP0", "H0STCNT0")]

    assert [result.lost for result in heard] == [(), ()]


def test_kis_without_any_answer_since_the_first_registration_begins_again():
    """An approval key that has ended gets neither data nor an error; heartbeats go on."""
    session, _ = kis()
    session.check_timeouts(T0 + 100 * S)
    drain(session, T0 + 100 * S, 1)
    session.receive(b'{"header":{"tr_id":"PINGPONG","datetime":"20261102100000"}}', T0 + 110 * S)

    session.check_timeouts(T0 + 119 * S)
    with pytest.raises(SessionExpired, match="approval key may have ended"):
        session.check_timeouts(T0 + 121 * S)
    assert not session.is_answered


@pytest.mark.parametrize("answered_by", ["an acknowledgement", "data"])
def test_kis_with_an_answer_or_data_has_a_good_key(answered_by):
    """Data may come before its acknowledgement."""
    session, ledger = kis()
    drain(session, T0, 1)

    if answered_by == "data":
        ledger.on_data(next(iter(ledger.states)), T0)
    else:
        session.receive(ack("OPSP0000"), T0)

    session.check_timeouts(T0 + 100 * S)
    assert session.is_answered


@pytest.mark.skipif(not (SAMPLES / "2026-11").exists(), reason=f"recordings are not beside the checkout: {SAMPLES}")
def test_kis_understands_the_recorded_refusal_of_the_42nd_registration():
    """41 are accepted, the 42nd gets OPSP0008 with rt_cd "1"."""
    recorded = json.loads((SAMPLES / "2026-11" / "kis_ws_capacity_20260817.json").read_text())
    refusal = recorded["first_rejection"]
    ledger = SubscriptionTable(registrations(recorded["requested_registrations"], "orderbook"))
    session = KisSession("approval", "P", 0, 10, ledger)
    for number, (_, message) in enumerate(drain(session, T0, 1), 1):
        tr_key = message["body"]["input"]["tr_key"]
        is_last = number == refusal["ordinal"]
        answer = (
            ack(refusal["msg_cd"], tr_key, rt_cd=refusal["rt_cd"], words=refusal["msg1"])
            if is_last
            else ack("OPSP0000", tr_key)
        )
        session.receive(answer, T0)

    assert session.state == "streaming"
    assert sum(1 for state in ledger.states.values() if state.acknowledged_ns) == recorded["accepted_registrations"]
    assert ledger.describe_refusals() == ["000041 orderbook: OPSP0008 MAX SUBSCRIBE OVER"]


def test_kis_never_repeats_a_key_it_was_told():
    """OPSP0011 carries the approval key in its text."""
    session, _ = kis()

    with pytest.raises(SessionRejected) as caught:
        session.receive(ack("OPSP0011", words="invalid approval : 0a1b2c3d-aaaa-bbbb-cccc-0123456789ab"), T0)

    assert "0a1b2c3d" not in str(caught.value)
    assert "invalid approval" in str(caught.value)


def test_kis_releases_before_it_registers_a_silent_one_again():
    """Else the answer would be ALREADY IN SUBSCRIBE and nothing would change; a plain repetition does not release."""
    session, ledger = kis()
    drain(session, T0, 1)
    book, tick = ledger.states

    session.resubscribe([book], T0, unsubscribe_first=True)
    session.resubscribe([tick], T0, unsubscribe_first=False)
    session.resubscribe([tick], T0, unsubscribe_first=False)
    said = [m for _, m in drain(session, T0 + S, 1)]

    assert [(m["header"]["tr_type"], m["body"]["input"]["tr_id"]) for m in said] == [
        ("2", "H0STASP0"),
        ("1", "H0STASP0"),
        ("1", "H0STCNT0"),
    ]
    assert not session.receive(ack("OPSP0001"), T0).unexpected
    assert not ledger.states[book].acknowledged_ns


def test_kis_does_not_fail_on_what_it_does_not_know():
    """Unknown codes, unknown symbols, other JSON: handed to the quarantine, nothing more."""
    session, ledger = kis()
    drain(session, T0, 1)

    assert session.receive(ack("OPSP9999", tr_key="", tr_id="(null)", rt_cd="1"), T0).unexpected
    assert session.receive(ack("OPSP0000", tr_key="999999"), T0).unexpected
    assert session.receive(b'{"header":5}', T0).unexpected
    assert session.receive(b"[]", T0).unexpected
    assert not session.receive(ack("OPSP0007", rt_cd="1"), T0).unexpected
    assert len(ledger.unacknowledged(T0 + 60 * S, 10 * S)) == 2


@pytest.mark.skipif(not SAMPLES.exists(), reason=f"recorded frames are not beside the checkout: {SAMPLES}")
def test_kis_understands_the_recorded_control_messages():
    """Two acknowledgements, a heartbeat, and the second session's refusal."""
    ledger = SubscriptionTable([Subscription(Instrument("005930", "KRX"), stream) for stream in ("orderbook", "tick")])
    session = KisSession("approval", "P", 0, 10, ledger)
    session.pending_messages(T0)
    session.pending_messages(T0)
    book, trade, ping, in_use = (SAMPLES / "kis" / "control.txt").read_bytes().splitlines()

    session.receive(book, T0)
    session.receive(trade, T0)
    session.receive(ping, T0)

    assert session.state == "streaming"
    assert [ping] == session.pending_messages(T0)
    with pytest.raises(SessionRejected, match="ALREADY IN USE"):
        session.receive(in_use, T0)


def test_kiwoom_says_nothing_but_login_until_it_is_answered():
    """A REG before the reply is ignored by the vendor (docs/wire/kiwoom.md 2.2)."""
    session, _ = kiwoom()

    said = drain(session, T0, 5)
    session.receive(reply("LOGIN"), T0 + 5 * S)
    after = drain(session, T0 + 5 * S, 0.1)

    assert [m for _, m in said] == [{"trnm": "LOGIN", "token": "the-token-itself"}]
    assert after[0][1]["trnm"] == "REG"


def test_kiwoom_registers_in_groups_of_a_hundred_one_message_at_a_time():
    """Chunks within groups, each after the answer to the last and the spacing (docs/wire/kiwoom.md 2.4, 2.5)."""
    session, ledger = kiwoom(130, chunk=60)
    session.pending_messages(T0)
    session.receive(reply("LOGIN"), T0)
    said, now = [], T0
    while not said or said[-1]["data"][0]["type"] != ["1h"]:
        found = drain(session, now, 1)
        assert len(found) == 1
        said.append(found[0][1])
        now += S
        session.receive(reply(), now)

    sizes = [(m["grp_no"], len(m["data"][0]["item"]), m["data"][0]["type"], m["refresh"]) for m in said]
    both = ["0B", "0D"]
    assert [
        ("1", 60, both, "1"),
        ("1", 40, both, "1"),
        ("2", 30, both, "1"),
        ("9999", 1, ["0s"], "1"),
        ("9999", 1, ["1h"], "1"),
    ] == sizes
    assert ledger.all_answered()
    assert session.state == "streaming"
    items = [item for m in said[:-2] for item in m["data"][0]["item"]]
    assert [f"{n:06}" for n in range(130)] == items


def test_kiwoom_asks_for_each_symbols_own_types():
    """A symbol whose ticks come from the other broker gets its book only."""
    ledger = SubscriptionTable([*registrations(2, "orderbook"), *registrations(1, "tick")])
    session = KiwoomSession("token", 100, 0, 10, ledger)
    session.pending_messages(T0)
    session.receive(reply("LOGIN"), T0)

    (message,) = map(json.loads, session.pending_messages(T0))

    assert message["data"] == [{"item": ["000000"], "type": ["0B", "0D"]}, {"item": ["000001"], "type": ["0D"]}]


def test_kiwoom_slows_down_when_told_and_sends_the_same_again():
    """105110: at least a second, doubling (docs/wire/kiwoom.md 2.8)."""
    session, ledger = kiwoom()
    session.pending_messages(T0)
    session.receive(reply("LOGIN"), T0)
    (first,) = session.pending_messages(T0)

    heard = session.receive(reply(code=105110), T0)
    said = drain(session, T0, 3)

    assert "again in 1 s" in heard.message
    assert [(1000, json.loads(first))] == said
    assert not ledger.all_answered()


@pytest.mark.parametrize("code", [105115, 105118, "105115", 1])
def test_kiwoom_refusals_of_a_request_are_told_by_name(code):
    """The rest goes on."""
    session, ledger = kiwoom()
    session.pending_messages(T0)
    session.receive(reply("LOGIN"), T0)
    session.pending_messages(T0)

    heard = session.receive(reply(code=code, words="too many items"), T0)

    assert f"{code} too many items" in heard.message
    assert len(ledger.describe_refusals()) == 2
    assert session.state == "streaming"


@pytest.mark.parametrize(
    ("words", "wait_s", "renew"),
    [
        ("인증에 실패했습니다[8005:Token이 유효하지 않습니다]", 0, True),
        ("CODE=8005", 0, True),
        ("CODE=8103, x", 0, True),
        ("[8050:IP가 등록되지 않았습니다]", 60, False),
        ("CODE=8010", 60, False),
        ("[8030:x]", 60, False),
        ("[8031:x]", 60, False),
        ("[8001:x]", 60, False),
        ("no code at all", 60, False),
    ],
)
def test_kiwoom_login_refusals(words, wait_s, renew):
    """The inner code decides, not the outer one (docs/wire/kiwoom.md 1.5)."""
    session, _ = kiwoom()
    session.pending_messages(T0)

    with pytest.raises(SessionRejected) as caught:
        session.receive(reply("LOGIN", 3, f"{words} the-token-itself"), T0)

    assert (caught.value.retry_after_s, caught.value.refresh_credential) == (wait_s, renew)
    assert words[:8] in str(caught.value)
    assert "the-token-itself" not in str(caught.value)


def test_kiwoom_system_messages():
    """R10001: another login, wait a minute; R10002: begin again; others are put aside (docs/wire/kiwoom.md 2.7)."""
    session, _ = kiwoom()

    with pytest.raises(SessionRejected) as caught:
        session.receive(b'{"trnm":"SYSTEM","code":"R10001","message":"x"}', T0)
    assert caught.value.retry_after_s == 60
    with pytest.raises(SessionExpired, match="R10002"):
        session.receive(b'{"trnm":"SYSTEM","code":"R10002","message":"x"}', T0)
    assert session.receive(b'{"trnm":"SYSTEM","code":"R1","message":"x"}', T0).unexpected
    assert session.receive(b'{"trnm":"CNSRLST"}', T0).unexpected
    assert session.receive(reply(), T0).unexpected
    assert session.receive(b'{"trnm":7}', T0).unexpected


def test_a_kiwoom_token_refused_by_number_or_by_a_system_message_is_replaced():
    """805004 whatever its text is, and R10004 while LOGIN is unanswered; later R10004 is only noted (docs/wire/kiwoom.md 2.8)."""
    refused = b'{"trnm":"SYSTEM","code":"R10004","message":"x"}'
    for answer in (reply("LOGIN", 805004, "x"), refused):
        session, _ = kiwoom()
        session.pending_messages(T0)
        with pytest.raises(SessionRejected) as caught:
            session.receive(answer, T0)
        assert caught.value.refresh_credential
    session, _ = kiwoom()
    session.pending_messages(T0)
    session.receive(reply("LOGIN"), T0)
    assert session.receive(refused, T0).unexpected


def test_kiwoom_without_a_login_reply_begins_again():
    """After the time an answer may take."""
    session, _ = kiwoom()
    session.pending_messages(T0)

    session.check_timeouts(T0 + 9 * S)
    with pytest.raises(SessionExpired, match="LOGIN"):
        session.check_timeouts(T0 + 11 * S)


def test_kiwoom_does_not_wait_for_ever_for_what_carries_no_data():
    """A REG without an answer is repeated by the ledger's clock; 0s, 1h and REMOVE are given up."""
    session, ledger = kiwoom()
    session.pending_messages(T0)
    session.receive(reply("LOGIN"), T0)
    session.pending_messages(T0)

    assert drain(session, T0, 30, step_ms=500) == []
    overdue = ledger.unacknowledged(T0 + 30 * S, 10 * S)
    session.resubscribe(overdue, T0 + 30 * S, unsubscribe_first=False)
    (phase,) = session.pending_messages(T0 + 30 * S)
    session.check_timeouts(T0 + 41 * S)
    (interruptions,) = session.pending_messages(T0 + 41 * S)
    session.check_timeouts(T0 + 52 * S)
    (again,) = session.pending_messages(T0 + 52 * S)

    assert json.loads(phase)["data"] == [{"item": [""], "type": ["0s"]}]
    assert json.loads(interruptions)["data"] == [{"item": [""], "type": ["1h"]}]
    assert json.loads(again)["data"] == [{"item": ["000000"], "type": ["0B", "0D"]}]


def test_kiwoom_removes_before_it_registers_a_silent_one_again():
    """The one type alone, in its group."""
    session, ledger = kiwoom()
    session.pending_messages(T0)
    session.receive(reply("LOGIN"), T0)
    for second in (1, 2, 3):
        session.pending_messages(T0 + second * S)
        session.receive(reply(), T0 + second * S)
    tick = list(ledger.states)[1]

    session.resubscribe([tick], T0 + 4 * S, unsubscribe_first=True)
    (remove,) = map(json.loads, session.pending_messages(T0 + 4 * S))
    session.receive(reply("REMOVE"), T0 + 4 * S)
    (again,) = map(json.loads, session.pending_messages(T0 + 5 * S))

    data = [{"item": ["000000"], "type": ["0B"]}]
    assert {"trnm": "REMOVE", "grp_no": "1", "data": data} == remove
    assert {"trnm": "REG", "grp_no": "1", "refresh": "1", "data": data} == again


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("인증에 실패했습니다[8005:Token이]", "8005"),
        ("x CODE=8103 y", "8103"),
        ("[ RC9000 ]", "RC9000"),
        ("[1700:허용된 API 요청 개수를 초과하였습니다. 유량=5, API ID=ka10080]", "1700"),
        ("유량=5", ""),
        ("", ""),
    ],
)
def test_the_inner_code_is_found_in_both_forms(text, code):
    """`[NNNN:...]` in REST, `CODE=NNNN` in the LOGIN reply (docs/wire/kiwoom.md 1.5)."""
    assert inner_code(text) == code


def test_kis_registers_more_and_releases_it_while_streaming():
    """tr_type 1, later 2 (docs/wire/kis.md 2.2), each of it alone; an answer to what was released meanwhile is no trouble."""
    session, ledger = kis(1)
    session.pending_messages(T0), session.pending_messages(T0 + 100 * MS)
    session.receive(ack("OPSP0000"), T0), session.receive(ack("OPSP0000", tr_id="H0STCNT0"), T0)
    more = Subscription(Instrument("000660", "KRX"), "tick")

    session.subscribe([more], T0 + S)
    asked = json.loads(*session.pending_messages(T0 + S))
    session.receive(ack("OPSP0000", "000660", "H0STCNT0"), T0 + S)
    state = session.state
    session.unsubscribe([more], T0 + 2 * S)
    released = json.loads(*session.pending_messages(T0 + 2 * S))
    late = session.receive(ack("OPSP0000", "000660", "H0STCNT0"), T0 + 2 * S)

    assert [m["header"]["tr_type"] for m in (asked, released)] == ["1", "2"]
    assert {"tr_id": "H0STCNT0", "tr_key": "000660"} == asked["body"]["input"] == released["body"]["input"]
    assert (state, session.state) == ("streaming", "streaming")
    assert more not in ledger.states
    assert not late.unexpected


def test_kis_never_sends_what_was_given_up_before_its_turn():
    """Released while it still waited: nothing goes out, neither 1 nor 2."""
    session, _ = kis(1)
    session.pending_messages(T0), session.pending_messages(T0 + 100 * MS)
    more = Subscription(Instrument("000660", "KRX"), "tick")

    session.subscribe([more], T0 + S)
    session.unsubscribe([more], T0 + S)

    assert session.pending_messages(T0 + 2 * S) == []


def streaming_kiwoom(count: int, streams: tuple[str, ...]) -> tuple[KiwoomSession, SubscriptionTable]:
    """A Kiwoom session that has registered everything."""
    ledger = SubscriptionTable(registrations(count, *streams))
    session = KiwoomSession("the-token-itself", 100, 250, 10, ledger)
    session.pending_messages(T0)
    session.receive(b'{"trnm":"LOGIN","return_code":0}', T0)
    while asked := session.pending_messages(T0):
        session.receive(b'{"trnm":"REG","return_code":0}', T0)
        session._spacing_ns = 0
        assert json.loads(asked[0])["trnm"] == "REG"
    assert session.state == "streaming"
    return session, ledger


def test_kiwoom_takes_ticks_on_beside_the_books_and_gives_them_up():
    """Whatever REG and REMOVE mean for the other types of the symbol, its book stays (docs/wire/kiwoom.md 2.4)."""
    session, ledger = streaming_kiwoom(2, ("orderbook",))
    more = Subscription(Instrument("000001", "KRX"), "tick")

    session.subscribe([more], T0 + S)
    asked = json.loads(*session.pending_messages(T0 + S))
    session.receive(b'{"trnm":"REG","return_code":0}', T0 + S)
    state = session.state
    session.unsubscribe([more], T0 + 2 * S)
    removed = json.loads(*session.pending_messages(T0 + 2 * S))
    session.receive(b'{"trnm":"REMOVE","return_code":0}', T0 + 2 * S)
    kept = json.loads(*session.pending_messages(T0 + 2 * S))
    session.receive(b'{"trnm":"REG","return_code":0}', T0 + 2 * S)

    assert state == "streaming"
    assert asked["data"] == [{"item": ["000001"], "type": ["0B", "0D"]}]
    assert removed == {"trnm": "REMOVE", "grp_no": "1", "data": [{"item": ["000001"], "type": ["0B"]}]}
    assert kept["data"] == [{"item": ["000001"], "type": ["0D"]}]
    assert "1" == asked["grp_no"] == kept["grp_no"]
    assert more not in ledger.states
    assert [line.attempts for line in ledger.states.values()] == [0, 0]
    assert session.pending_messages(T0 + 3 * S) == []


def test_kiwoom_fills_a_group_and_then_begins_another():
    """No group has more than 100 items."""
    session, _ = streaming_kiwoom(99, ("orderbook",))
    more = [Subscription(Instrument(f"A{n:05}", "KRX"), "tick") for n in range(3)]

    session.subscribe(more, T0 + S)
    groups = []
    while asked := session.pending_messages(T0 + S):
        groups.append((json.loads(asked[0])["grp_no"], len(json.loads(asked[0])["data"][0]["item"])))
        session.receive(b'{"trnm":"REG","return_code":0}', T0 + S)

    assert groups == [("1", 1), ("2", 2)]
