"""Kiwoom's rules, met by a plain client over a real socket (docs/wire/kiwoom.md 1, 2, 9)."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.vendor_clients import KiwoomClient, SimulatorHandle, post, request_kiwoom_token

Start = Callable[..., SimulatorHandle]
KST = timedelta(hours=9)


@pytest.fixture(scope="module")
def kiwoom(start: Start) -> dict[str, Any]:
    """Addresses of a simulator with a quick PING, a small connection and a short patience before LOGIN."""
    options = ("--kiwoom-ping-every-s", "0.4", "--kiwoom-registrations", "6", "--kiwoom-group-registrations", "4")
    return start(*options, "--kiwoom-login-within-s", "1.0", "--books-per-s", "5").ready


def inner(answer: dict[str, Any]) -> str:
    """The fine-grained code inside return_msg."""
    return answer["return_msg"].split("[")[1].split(":")[0]


def test_a_token_is_the_same_while_valid_and_its_end_is_in_korean_time(kiwoom: dict[str, Any]) -> None:
    """No expires_in; expires_dt is KST (docs/wire/kiwoom.md 1.3)."""
    first, again = request_kiwoom_token(kiwoom, "same"), request_kiwoom_token(kiwoom, "same")
    ends = datetime.strptime(first["expires_dt"], "%Y%m%d%H%M%S")

    assert first == again
    assert {"expires_dt", "token_type", "token", "return_code", "return_msg"} == set(first)
    assert abs(ends - (datetime.now(UTC).replace(tzinfo=None) + KST + timedelta(days=1))) < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"grant_type": "client_credentials", "appkey": "k", "appsecret": "s"}, "8020"),
        ({"grant_type": "client_credentials", "secretkey": "s"}, "8020"),
        ({"appkey": "k", "secretkey": "s"}, "8011"),
        ({"grant_type": "password", "appkey": "k", "secretkey": "s"}, "8012"),
        ({"grant_type": "client_credentials", "appkey": "fits", "secretkey": "not"}, "8001"),
    ],
)
def test_wrong_credentials_have_their_codes(kiwoom: dict[str, Any], body: dict[str, str], code: str) -> None:
    """HTTP 200, a generic outer code, the fine one inside the text (docs/wire/kiwoom.md 1.5)."""
    request_kiwoom_token(kiwoom, "fits", "this one")
    answer = post(kiwoom["kiwoom"]["rest_url"] + "/oauth2/token", body)

    assert answer.status_code == 200
    assert answer.json()["return_code"] != 0
    assert code == inner(answer.json())


def test_a_token_dies_at_its_end_and_on_revocation(start: Start) -> None:
    """8005 afterwards, in REST and at LOGIN; the next token is another one."""
    ready = start("--kiwoom-token-life-s", "0.8").ready
    url = ready["kiwoom"]["rest_url"]
    short = request_kiwoom_token(ready, "short")["token"]
    live = post(url + "/api/dostk/chart", {}, {"api-id": "zz99999", "authorization": f"Bearer {short}"}).json()
    time.sleep(0.9)
    expired = post(url + "/api/dostk/chart", {}, {"api-id": "zz99999", "authorization": f"Bearer {short}"}).json()
    fresh = request_kiwoom_token(ready, "short")["token"]
    revoked = post(url + "/oauth2/revoke", {"appkey": "short", "secretkey": "S" * 43, "token": fresh}).json()
    again = post(url + "/oauth2/revoke", {"appkey": "short", "secretkey": "S" * 43, "token": fresh}).json()

    assert inner(live) == "1505"
    assert (expired["return_code"], inner(expired)) == (3, "8005")
    assert fresh != short
    assert revoked["return_code"] == 0
    assert inner(again) == "8015"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "1501"),
        ({"api-id": "ka10079"}, "1513"),
        ({"api-id": "ka10079", "authorization": "Basic"}, "1514"),
        ({"api-id": "ka10079", "authorization": "Bearer "}, "1516"),
        ({"api-id": "ka10079", "authorization": "Bearer nonsense"}, "8005"),
    ],
)
def test_calls_without_proper_headers_have_their_codes(
    kiwoom: dict[str, Any], headers: dict[str, str], code: str
) -> None:
    """Checked in the order api-id, authorization, token (docs/wire/kiwoom.md 1.5)."""
    answer = post(kiwoom["kiwoom"]["rest_url"] + "/api/dostk/chart", {}, headers).json()

    assert code == inner(answer)


def test_what_is_sent_before_the_login_reply_is_ignored_and_said_so(kiwoom: dict[str, Any]) -> None:
    """100013 with the literal %s comes before the LOGIN reply, though LOGIN was sent first (docs/wire/kiwoom.md 2.2)."""
    client = KiwoomClient(kiwoom, "early", login=False)
    client.send({"trnm": "LOGIN", "token": client.token})
    client.send({"trnm": "REG", "grp_no": "1", "refresh": "1", "data": [{"item": ["005930"], "type": ["0B"]}]})
    replies = [json.loads(client.receive()), json.loads(client.receive())]
    client.read_for(0.6)
    client.close()

    assert [(reply["trnm"], reply["return_code"]) for reply in replies] == [("REG", 100013), ("LOGIN", 0)]
    assert "(TRNM=%s)" in replies[0]["return_msg"]
    assert replies[1] == {"trnm": "LOGIN", "return_code": 0, "return_msg": "", "sor_yn": "Y"}
    assert client.collect_entries("0B") == []


def test_a_login_without_token_and_with_a_bad_one_are_refused(kiwoom: dict[str, Any]) -> None:
    """805002; CODE=8005 inside the text, then a close (docs/wire/kiwoom.md 2.2)."""
    client = KiwoomClient(kiwoom, "refused", login=False)
    client.send({"trnm": "LOGIN"})
    without = json.loads(client.receive())
    client.send({"trnm": "LOGIN", "token": "nonsense"})
    bad = json.loads(client.receive())

    assert without["return_code"] == 805002
    assert bad["return_code"] != 0
    assert "CODE=8005" in bad["return_msg"]
    assert client.await_end().startswith("1000")


def test_nobody_may_stay_without_login(kiwoom: dict[str, Any]) -> None:
    """Closed after some seconds (a parameter)."""
    client = KiwoomClient(kiwoom, "silent", login=False)

    assert client.await_end(5).startswith("1000")


def test_unknown_and_incomplete_messages_have_their_codes(kiwoom: dict[str, Any]) -> None:
    """100002 without trnm, 105108 for a trnm that does not exist (docs/wire/kiwoom.md 2.8)."""
    client = KiwoomClient(kiwoom, "unknown")
    codes = []
    for message in ({"hello": 1}, {"trnm": "HELLO"}, {"trnm": "REG", "grp_no": "1"}):
        client.send(message)
        reply = client.await_frame(lambda frame: b"return_code" in frame)
        codes.append(json.loads(reply)["return_code"])
    client.close()

    assert codes == [100002, 105108, 100002]


def test_the_newer_login_of_a_key_ends_the_older_session(kiwoom: dict[str, Any]) -> None:
    """R10001, then close 1000 "Bye" to the older; the newer works (docs/wire/kiwoom.md 2.7)."""
    older = KiwoomClient(kiwoom, "twice")
    newer = KiwoomClient(kiwoom, "twice")
    told = json.loads(older.await_trnm("SYSTEM"))

    assert told["code"] == "R10001"
    assert older.await_end() == "1000 Bye"
    assert newer.request("REG", ["005930"], ["0B"])["return_code"] == 0
    newer.close()


def test_an_echoed_ping_keeps_the_session_and_three_missed_end_it(kiwoom: dict[str, Any]) -> None:
    """PING comes in its rhythm from LOGIN on; R10002 and a close to who does not answer (docs/wire/kiwoom.md 2.3)."""
    good, mute = KiwoomClient(kiwoom, "echo"), KiwoomClient(kiwoom, "mute")
    mute.echo = False
    good.read_for(2.6)
    pings = good.frames.count(b'{"trnm":"PING"}')
    good.close()
    told = json.loads(mute.await_trnm("SYSTEM"))

    assert pings >= 5
    assert good.end_reason is None
    assert told["code"] == "R10002"
    assert mute.await_end().startswith("1000")


def test_five_registrations_a_second_are_accepted(kiwoom: dict[str, Any]) -> None:
    """The sixth gets 105110; a second later there is room again (docs/wire/kiwoom.md 2.5)."""
    client = KiwoomClient(kiwoom, "hasty")
    codes = [client.request("REG", ["005930"], ["0B"])["return_code"] for _ in range(7)]
    time.sleep(1.1)
    codes.append(client.request("REG", ["005930"], ["0B"])["return_code"])
    client.close()

    assert codes == [0] * 5 + [105110] * 2 + [0]


def test_items_are_limited_by_group_and_by_connection(kiwoom: dict[str, Any]) -> None:
    """105118 and 105115; types do not count, a refused message changes nothing (docs/wire/kiwoom.md 2.5)."""
    client = KiwoomClient(kiwoom, "full")
    codes = [
        client.request("REG", [f"{n:06}" for n in range(5)], ["0B"])["return_code"],
        client.request("REG", [f"{n:06}" for n in range(4)], ["0B", "0D"])["return_code"],
        client.request("REG", [f"{n:06}" for n in range(4, 7)], ["0B"], group="2")["return_code"],
        client.request("REG", [f"{n:06}" for n in range(4, 6)], ["0B"], group="2")["return_code"],
    ]
    time.sleep(1.1)
    codes.append(client.request("REG", ["000099"], ["0B"], group="3", refresh="0")["return_code"])
    client.close()

    assert codes == [105118, 0, 105115, 0, 0]


def test_garbage_codes_are_accepted_and_stay_silent(kiwoom: dict[str, Any]) -> None:
    """The reply proves nothing (docs/wire/kiwoom.md 2.4); a removed item falls silent too."""
    client = KiwoomClient(kiwoom, "garbage")
    accepted = client.request("REG", ["GARBAGE", "005930"], ["0B", "0D"])
    client.await_frame(lambda frame: b'"0D"' in frame)
    removed = client.request("REMOVE", ["005930", "999999"], ["0B", "0D"])
    client.read_for(0.3)
    items = {entry["item"] for entry in client.collect_entries("0D") + client.collect_entries("0B")}
    client.frames.clear()
    client.read_for(1.0)
    client.close()

    assert (accepted["return_code"], removed["return_code"]) == (0, 0)
    assert {"005930"} == items
    assert client.collect_entries("0D") == []


def test_frames_leave_in_a_rhythm_with_all_entries_of_the_slot(start: Start) -> None:
    """Flushes of one connection lie a multiple of the flush time apart, with entries of several items and types."""
    ready = start("--kiwoom-flush-ms", "200", "--books-per-s", "40").ready
    client = KiwoomClient(ready, "rhythm")
    client.request("REG", ["005930", "000660", "0074K0", "500001"], ["0B", "0D"])
    stamps, mixed = [], 0
    while len(stamps) < 9:
        frame = json.loads(client.await_trnm("REAL"))
        stamps.append(time.monotonic())
        mixed += len({entry["item"] for entry in frame["data"]}) > 1 and len({e["type"] for e in frame["data"]}) > 1
    client.close()
    gaps = [after - before for before, after in itertools.pairwise(stamps)]
    median = sorted(gaps)[len(gaps) // 2]

    assert mixed > 4
    assert abs(median - 0.2) < 0.05


def test_a_book_comes_four_times_a_second_at_most(start: Start) -> None:
    """0D is conflated (docs/wire/kiwoom.md 2.6): the newest state, at its time."""
    ready = start("--books-per-s", "40").ready
    client = KiwoomClient(ready, "conflated")
    client.request("REG", ["005930"], ["0D"])
    client.read_for(2.0)
    client.close()

    assert 5 <= len(client.collect_entries("0D")) <= 9
