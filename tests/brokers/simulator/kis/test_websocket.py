"""KIS's rules, met by a plain client over a real socket (docs/wire/kis.md 1, 2, 9)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
import websocket
from support.vendor_clients import KisClient, SimulatorHandle, connect, post, request_kis_approval

Start = Callable[..., SimulatorHandle]


@pytest.fixture(scope="module")
def kis(start: Start) -> dict[str, Any]:
    """Addresses of a simulator with a quick heartbeat and a slot that is released after 0.6 s."""
    options = ("--kis-ping-idle-s", "0.3", "--kis-ping-grace-s", "1.2", "--kis-slot-release-s", "0.6")
    return start(*options, "--kis-cut-on-empty-pong", "--books-per-s", "5").ready


def credentials(app_key: str, secret_name: str = "appsecret", secret: str = "s") -> dict[str, str]:
    """The body of an /oauth2 call."""
    return {"grant_type": "client_credentials", "appkey": app_key, secret_name: secret}


def test_a_token_is_the_same_for_hours_and_a_new_one_is_refused_within_a_minute(kis: dict[str, Any]) -> None:
    """tokenP answers alike until it is revoked; then EGW00133 comes as 403 without rt_cd (docs/wire/kis.md 1.2)."""
    url = kis["kis"]["rest_url"]
    first = post(url + "/oauth2/tokenP", credentials("token-key")).json()
    again = post(url + "/oauth2/tokenP", credentials("token-key")).json()
    revoked = post(url + "/oauth2/revokeP", credentials("token-key") | {"token": first["access_token"]})
    refused = post(url + "/oauth2/tokenP", credentials("token-key"))

    assert first["access_token"] == again["access_token"]
    assert first["token_type"] == "Bearer"
    assert 86_390 <= first["expires_in"] <= 86_400
    assert time.strptime(first["access_token_token_expired"], "%Y-%m-%d %H:%M:%S")
    assert revoked.status_code == 200
    assert (403, {"error_description", "error_code"}) == (refused.status_code, set(refused.json()))
    assert refused.json()["error_code"] == "EGW00133"


def test_an_approval_wants_the_secret_under_another_name(kis: dict[str, Any]) -> None:
    """`secretkey`, not `appsecret` (docs/wire/kis.md 1.3); a second one within a second is refused; so is another secret."""
    url = kis["kis"]["rest_url"] + "/oauth2/Approval"
    wrong_name = post(url, credentials("approval-key"))
    good = post(url, credentials("approval-key", "secretkey"))
    hasty = post(url, credentials("approval-key", "secretkey"))
    wrong_secret = post(url, credentials("approval-key", "secretkey", "another"))

    assert wrong_name.json()["error_code"] == "EGW00105"
    assert len(good.json()["approval_key"]) == 36
    assert (hasty.status_code, hasty.json()["msg_cd"]) == (500, "EGW00201")
    assert wrong_secret.json()["error_code"] == "EGW00105"


@pytest.mark.parametrize("path", ["", "/", "/tryitout", "/tryitout/H0STCNT0"])
def test_every_documented_path_is_accepted(kis: dict[str, Any], path: str) -> None:
    """Bare base, /tryitout and /tryitout/ANYTHING (docs/wire/kis.md 2.1)."""
    ws = connect(kis["kis"]["ws_url"] + path)

    assert ws.connected
    ws.close()


def test_registrations_are_acknowledged_in_the_recorded_form(kis: dict[str, Any]) -> None:
    """Compact JSON, iv of 16 and key of 32 characters, the same for every TR of a connection; no snapshot follows."""
    client = KisClient(kis, "ack")
    acks = [client.request("1", tr_id, "005930") for tr_id in ("H0STASP0", "H0STCNT0")]
    raw = [frame.decode() for frame in client.frames if frame.startswith(b"{")]
    client.close()

    assert [json.dumps(ack, ensure_ascii=False, separators=(",", ":")) for ack in acks] == raw
    outputs = [ack["body"].pop("output") for ack in acks]
    assert outputs[0] == outputs[1]
    assert (len(outputs[0]["iv"]), len(outputs[0]["key"])) == (16, 32)
    assert acks[0] == {
        "header": {"tr_id": "H0STASP0", "tr_key": "005930", "encrypt": "N"},
        "body": {"rt_cd": "0", "msg_cd": "OPSP0000", "msg1": "SUBSCRIBE SUCCESS"},
    }


def test_duplicates_releases_and_unknown_releases_have_their_codes(kis: dict[str, Any]) -> None:
    """OPSP0002, OPSP0001, OPSP0003 (docs/wire/kis.md 2.4); after a release nothing more comes."""
    client = KisClient(kis, "codes")
    client.subscribe("H0STASP0", "005930")
    codes = [
        (ack["body"]["rt_cd"], ack["body"]["msg_cd"])
        for ack in (
            client.request("1", "H0STASP0", "005930"),
            client.request("2", "H0STASP0", "005930"),
            client.request("2", "H0STASP0", "005930"),
        )
    ]
    client.read_for(0.3)
    client.frames.clear()
    client.read_for(1.0)
    client.close()

    assert codes == [("1", "OPSP0002"), ("0", "OPSP0001"), ("1", "OPSP0003")]
    assert client.collect_records("H0STASP0") == []


def test_the_42nd_registration_is_refused(kis: dict[str, Any]) -> None:
    """41 registrations a session, all products summed (docs/wire/kis.md 2.6); releasing one makes room."""
    client = KisClient(kis, "slots")
    client.subscribe("H0STCNT0", *(f"{number:06}" for number in range(1, 31)))
    client.subscribe("H0STASP0", *(f"{number:06}" for number in range(1, 12)))
    over = client.request("1", "H0STASP0", "000099")
    client.request("2", "H0STASP0", "000001")
    room = client.request("1", "H0STASP0", "000099")
    client.close()

    assert (over["body"]["rt_cd"], over["body"]["msg_cd"]) == ("1", "OPSP0008")
    assert room["body"]["msg_cd"] == "OPSP0000"


def test_malformed_requests_name_what_is_wrong(kis: dict[str, Any]) -> None:
    """The parsing codes of docs/wire/kis.md 2.4, each with the literal (null) where the TR is not known."""
    client = KisClient(kis, "malformed")
    header = {"approval_key": client.approval, "custtype": "P", "tr_type": "1", "content-type": "utf-8"}
    body = {"input": {"tr_id": "H0STCNT0", "tr_key": "005930"}}
    sent = {
        "no json": "OPSP9999",
        json.dumps({"body": body}): "OPSP9998",
        json.dumps({"header": header}): "OPSP9992",
        json.dumps({"header": header, "body": {}}): "OPSP9991",
        json.dumps({"header": header, "body": {"input": {"tr_id": "H0STCNT0"}}}): "OPSP9990",
        json.dumps({"header": header | {"custtype": "X"}, "body": body}): "OPSP8998",
        json.dumps({"header": header | {"tr_type": "0"}, "body": body}): "OPSP8997",
        json.dumps({"header": header, "body": {"input": {"tr_id": "NOTATR00", "tr_key": "005930"}}}): "OPSP8991",
        json.dumps({"header": header, "body": {"input": {"tr_id": "H0STCNT0", "tr_key": "5930"}}}): "OPSP8992",
    }
    answers = {}
    for text in sent:
        client.send(text)
        answers[text] = json.loads(client.await_frame(lambda frame: b"msg_cd" in frame))
    client.close()

    assert sent == {text: answer["body"]["msg_cd"] for text, answer in answers.items()}
    assert (answers["no json"]["header"]["tr_id"], answers["no json"]["header"]["tr_key"]) == ("(null)", "")
    assert {"1"} == {answer["body"]["rt_cd"] for answer in answers.values()}


def test_an_unknown_approval_key_is_quoted_back(kis: dict[str, Any]) -> None:
    """OPSP0011 with the key in its text (docs/wire/kis.md 2.4); the connection stays."""
    client = KisClient(kis, approval="11111111-2222-3333-4444-555555555555")
    first = client.request("1", "H0STCNT0", "005930")
    second = client.request("1", "H0STCNT0", "005930")
    client.close()

    assert first == second
    assert (first["header"]["tr_id"], first["header"]["tr_key"]) == ("H0STCNT0", "005930")
    assert (first["body"]["rt_cd"], first["body"]["msg_cd"]) == ("1", "OPSP0011")
    assert first["body"]["msg1"] == "invalid approval : 11111111-2222-3333-4444-555555555555"


def test_a_second_session_of_an_appkey_is_refused_and_the_older_survives(kis: dict[str, Any]) -> None:
    """Handshake good, first registration answered OPSP8996 with rt_cd 9, then cut without a close frame (docs/wire/kis.md 2.6)."""
    older = KisClient(kis, "one-session")
    older.subscribe("H0STASP0", "005930")
    newer = KisClient(kis, approval=older.approval)
    refused = newer.request("1", "H0STASP0", "000660")
    older.frames.clear()
    older.await_frame(lambda frame: b"H0STASP0|" in frame)

    assert refused == {
        "header": {"tr_id": "(null)", "tr_key": "", "encrypt": "N"},
        "body": {"rt_cd": "9", "msg_cd": "OPSP8996", "msg1": "ALREADY IN USE appkey"},
    }
    assert newer.await_end(0.8) == "cut"  # long before a heartbeat could be missed
    older.close()


def test_a_slot_is_free_at_once_after_a_close_and_later_after_an_abnormal_end(kis: dict[str, Any]) -> None:
    """The slot-release delay holds for clients that vanish only (docs/wire/kis.md 9.2)."""
    client = KisClient(kis, "slot-release")
    client.subscribe("H0STCNT0", "005930")
    client.close()
    after_close = KisClient(kis, approval=client.approval)
    after_close.subscribe("H0STCNT0", "005930")
    after_close.vanish()
    time.sleep(0.1)  # the end has to arrive before the next attempt; the slot is held for 0.6 s
    too_early = KisClient(kis, approval=client.approval).request("1", "H0STCNT0", "005930")
    deadline_s = time.monotonic() + 5
    later = too_early
    while later["body"]["msg_cd"] == "OPSP8996" and time.monotonic() < deadline_s:
        time.sleep(0.2)
        late = KisClient(kis, approval=client.approval)
        later = late.request("1", "H0STCNT0", "005930")
    late.close()

    assert too_early["body"]["msg_cd"] == "OPSP8996"
    assert later["body"]["msg_cd"] == "OPSP0000"


@pytest.mark.parametrize("answer", ["echo", "pong"])
def test_an_idle_session_is_pinged_and_either_answer_keeps_it(kis: dict[str, Any], answer: str) -> None:
    """PINGPONG when idle; the echoed text and a Pong with the same payload are equally good (docs/wire/kis.md 2.5)."""
    client = KisClient(kis, f"ping-{answer}")
    deadline_s = time.monotonic() + 1.8  # longer than the grace
    pings = 0
    while time.monotonic() < deadline_s:
        ping = client.await_frame(lambda frame: b"PINGPONG" in frame)
        pings += 1
        if answer == "echo":
            client.send(ping.decode())
        else:
            client.ws.pong(ping)
    header = json.loads(ping)["header"]
    client.close()

    assert pings >= 4
    assert {"tr_id", "datetime"} == set(header)
    assert time.strptime(header["datetime"], "%Y%m%d%H%M%S")


def test_a_client_that_leaves_the_heartbeat_unanswered_is_cut(kis: dict[str, Any]) -> None:
    """After the grace, without a close frame."""
    client = KisClient(kis, "mute")

    assert client.await_end(6) == "cut"
    assert any(b"PINGPONG" in frame for frame in client.frames)


def test_control_pings_are_answered_and_empty_pongs_can_be_fatal(kis: dict[str, Any]) -> None:
    """The server answers Pings; the optional cut on unsolicited empty Pongs works (docs/wire/kis.md 2.5)."""
    client = KisClient(kis, "pongs")
    client.ws.ping("hello")
    opcode, data = client.ws.recv_data(control_frame=True)
    while opcode != websocket.ABNF.OPCODE_PONG:
        opcode, data = client.ws.recv_data(control_frame=True)
    client.ws.pong("")

    assert data == b"hello"
    assert client.await_end() == "cut"


def test_a_new_approval_key_does_not_need_a_new_connection(kis: dict[str, Any]) -> None:
    """A session that is established goes on with whatever key it was opened with (docs/wire/kis.md 1.3)."""
    client = KisClient(kis, "renewed")
    client.subscribe("H0STCNT0", "005930")
    time.sleep(1.0)  # one approval a second
    client.approval = request_kis_approval(kis, "renewed")

    assert client.request("1", "H0STASP0", "005930")["body"]["msg_cd"] == "OPSP0000"
    client.close()


def test_quotations_answer_from_the_market_and_refuse_strangers(start: Start) -> None:
    """The gateway's codes for a bad token, TR and market division; the price is the stream's (docs/wire/kis.md 1.5, 1.7)."""
    ready = start("--books-per-s", "20").ready
    url = ready["kis"]["rest_url"]
    token = post(url + "/oauth2/tokenP", credentials("quotations")).json()["access_token"]
    client = KisClient(ready, "quotations-ws")
    client.subscribe("H0STCNT0", "005930")
    client.await_frame(lambda frame: b"H0STCNT0|" in frame)

    def ask(name: str, tr_id: str, division: str = "J", bearer: str = token) -> requests.Response:
        query = {"FID_COND_MRKT_DIV_CODE": division, "FID_INPUT_ISCD": "005930"}
        headers = {"authorization": f"Bearer {bearer}", "tr_id": tr_id}
        with requests.Session() as session:
            session.trust_env = False
            return session.get(
                f"{url}/uapi/domestic-stock/v1/quotations/{name}", params=query, headers=headers, timeout=10
            )

    good = ask("inquire-price", "FHKST01010100")
    refusals = [
        ask("inquire-price", "FHKST01010100", bearer="nonsense"),
        ask("inquire-price", "FHKST01010400"),
        ask("inquire-nothing", "FHKST01010100"),
        ask("inquire-price", "FHKST01010100", division="X"),
    ]
    volume = int(good.json()["output"]["acml_vol"])
    while (
        client.collect_records("H0STCNT0")[-1][13] != str(volume)
        and int(client.collect_records("H0STCNT0")[-1][13]) < volume
    ):
        client.receive()
    seen = {row[13]: row[2] for row in client.collect_records("H0STCNT0")}
    client.close()

    assert (good.json()["rt_cd"], good.json()["msg_cd"]) == ("0", "MCA00000")
    assert seen[str(volume)] == good.json()["output"]["stck_prpr"]
    assert [answer.json()["msg_cd"] for answer in refusals] == ["EGW00121", "OPSQ0002", "OPSQ0002", "OPSQ2001"]
    assert {500} == {answer.status_code for answer in refusals}
