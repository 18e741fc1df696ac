"""Faults on command: their words, and what a client sees of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest
import websocket
from support.vendor_clients import (
    ROOT,
    KisClient,
    KisRest,
    KiwoomClient,
    KiwoomRest,
    SimulatorHandle,
    connect,
    post,
    request_kiwoom_token,
    start_simulator,
)

from brokers.simulator.faults import Fault, FaultError, FeedFaults, parse, parse_timed

Start = Callable[..., SimulatorHandle]
OPTIONS = ("--always-open", "--kis-loss", "0", "--kiwoom-loss", "0", "--symbols", "005930,000660,0074K0,Q500001")


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Starts simulators that end with the test: as many as this file has, all trading, would be too many at once."""
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(start_simulator(home, *OPTIONS, *options))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("kis drop", Fault("kis", "drop", 0)),
        ("kiwoom silence 2.5", Fault("kiwoom", "silence", 2.5)),
        ("kis width 48", Fault("kis", "width", 48)),
        ("  kiwoom   duplicate 3 ", Fault("kiwoom", "duplicate", 3)),
    ],
)
def test_commands_are_a_line_a_word_and_an_amount(text: str, fault: Fault) -> None:
    """The same words on stdin and in --fault."""
    assert fault == parse(text)
    assert (fault, 12.0) == parse_timed(f"{fault.feed}:{' '.join(text.split()[1:])}@12")


@pytest.mark.parametrize(
    "text",
    [
        *["", "kis", "drop", "nyse drop", "kis fly", "kis drop 3", "kis silence", "kis silence x", "kis garble 1.5"],
        *["kis garble -1", "kis silence 1 2", "kiwoom width 48", "kis width 43", "us width 19", "kis silence nan"],
    ],
)
def test_what_is_no_command_is_refused_in_words(text: str) -> None:
    """FaultError, never an unexpected exception; the same with a time."""
    with pytest.raises(FaultError, match=r"no (timed )?fault|takes|counts"):
        parse(text)
    with pytest.raises(FaultError, match=r"no (timed )?fault|takes|counts"):
        parse_timed(text.replace(" ", ":", 1) + "@1")


@pytest.mark.parametrize("timed", ["kis:drop", "kis:drop@", "kis:drop@-1", "kis drop@3", "@", "kis:drop@x"])
def test_a_timed_fault_needs_its_time(timed: str) -> None:
    """LINE:WORDS@SECONDS."""
    with pytest.raises(FaultError):
        parse_timed(timed)


@pytest.mark.parametrize("seed", range(20))
def test_spoiled_frames_cannot_be_read(seed: int) -> None:
    """No JSON, no envelope with a known TR, or fewer fields than any record has; each fault as often as asked."""
    kis = b"0|H0STCNT0|002|" + b"^".join(b"%d" % number for number in range(94))
    kiwoom = b'{"data":[{"values":{"20":"115618"},"type":"0B","name":"x","item":"005930"}],"trnm":"REAL"}'
    faults = FeedFaults(pending=Counter(garble=2, truncate=2, badutf8=2))
    random = Random(seed)
    spoiled = [faults.corrupt(frame, random) for _ in range(3) for frame in (kis, kiwoom)]

    assert faults.corrupt(kis, random) is None
    for frame in spoiled[0::2]:
        parts = frame.split(b"|", 3)
        assert len(parts) != 4 or parts[1] != b"H0STCNT0" or len(parts[3].split(b"^")) < 46
    for frame in spoiled[1::2]:
        with pytest.raises((ValueError, KeyError)):
            json.loads(frame.decode("utf-8", "replace"))["trnm"]


def test_a_drop_is_a_cut_and_the_server_goes_on(start: Start) -> None:
    """No close frame; the next connection works."""
    running = start()
    client = KiwoomClient(running.ready, "drop")
    assert running.send_command("kiwoom drop") == {"ok": True, "feed": "kiwoom", "name": "drop", "value": 0}

    assert client.await_end() == "cut"
    again = KiwoomClient(running.ready, "drop")
    assert again.request("REG", ["005930"], ["0B"])["return_code"] == 0
    again.close()


def test_silence_is_half_open_and_ends(start: Start) -> None:
    """TCP lives, nothing comes, not even heartbeats or replies; a new connection is served; afterwards data comes again."""
    running = start("--kiwoom-ping-every-s", "0.3", "--books-per-s", "20")
    client = KiwoomClient(running.ready, "silence")
    client.request("REG", ["005930"], ["0D"])
    client.await_trnm("REAL")
    running.send_command("kiwoom lateack 0.6")  # a reply that falls due in the silence
    client.send({"trnm": "REG", "grp_no": "8", "refresh": "1", "data": []})
    client.read_for(0.1)
    running.send_command("kiwoom silence 1.5")
    client.read_for(0.2)  # what was under way
    client.frames.clear()
    client.send({"trnm": "REG", "grp_no": "9", "refresh": "1", "data": []})
    client.read_for(0.8)
    during = list(client.frames)
    other = KiwoomClient(running.ready, "another")
    client.await_trnm("REAL")

    assert during == []
    assert client.end_reason is None
    other.close()
    client.close()


def test_quiet_keeps_heartbeats_only(start: Start) -> None:
    """No data, but PINGPONG."""
    running = start("--kis-ping-idle-s", "0.3", "--books-per-s", "20")
    client = KisClient(running.ready, "quiet")
    client.subscribe("H0STASP0", "005930")
    client.await_frame(lambda frame: b"H0STASP0|" in frame)
    running.send_command("kis quiet 1.2")
    client.read_for(0.2)
    client.frames.clear()
    client.read_for(0.8)
    during = list(client.frames)
    client.await_frame(lambda frame: b"H0STASP0|" in frame)
    client.close()

    assert during
    assert all(b"PINGPONG" in frame for frame in during)


def test_width_changes_in_mid_session(start: Start) -> None:
    """From 47/63 to 48/64 without a reconnect; truth and old fields go on."""
    running = start("--books-per-s", "20")
    client = KisClient(running.ready, "width")
    client.subscribe("H0STASP0", "005930")
    client.subscribe("H0STCNT0", "005930")
    client.await_frame(lambda frame: b"H0STCNT0|" in frame)
    running.send_command("kis width 48")
    client.read_for(0.3)
    before = {len(record) for record in client.collect_records("H0STASP0")}
    client.frames.clear()
    client.await_frame(lambda frame: b"H0STCNT0|" in frame)
    client.await_frame(lambda frame: b"H0STASP0|" in frame)
    client.close()

    assert 63 in before
    assert {64} == {len(record) for record in client.collect_records("H0STASP0")}
    assert {48} == {len(record) for record in client.collect_records("H0STCNT0")}


def test_late_acknowledgements_come_behind_data_and_refusals_once(start: Start) -> None:
    """lateack delays replies, data does not wait; refuse answers one registration with the internal error."""
    running = start("--books-per-s", "20")
    running.send_command("kis lateack 1.0")
    client = KisClient(running.ready, "late")
    begun_s = time.monotonic()
    client.subscribe("H0STASP0", "005930")
    took_s = time.monotonic() - begun_s
    running.send_command("kis lateack 0")
    running.send_command("kis refuse 1")
    refused = client.request("1", "H0STASP0", "000660")
    accepted = client.request("1", "H0STASP0", "000660")
    client.close()

    assert 0.95 < took_s < 5
    assert b"H0STASP0|" in client.frames[0]
    assert [answer["body"]["msg_cd"] for answer in (refused, accepted)] == ["OPSP0007", "OPSP0000"]


def test_an_outage_cuts_and_refuses_until_it_is_over(start: Start) -> None:
    """Connections are cut, new ones get no handshake; then all is well."""
    running = start()
    client = KisClient(running.ready, "outage")
    running.send_command("kis outage 1")

    assert client.await_end() == "cut"
    with pytest.raises((ConnectionError, websocket.WebSocketException)):
        connect(running.ready["kis"]["ws_url"])
    deadline_s = time.monotonic() + 5
    while True:
        try:
            connect(running.ready["kis"]["ws_url"]).close()
            break
        except (ConnectionError, websocket.WebSocketException):
            assert time.monotonic() < deadline_s
            time.sleep(0.1)


def test_faults_can_be_planned_and_bad_ones_end_it_with_a_sentence(home: Path, start: Start) -> None:
    """--fault is timed from the start; a bad one is a usage error."""
    client = KisClient(start("--fault", "kis:drop@1").ready, "planned")

    assert client.await_end() == "cut"
    refused = subprocess.run(
        [sys.executable, "-m", "brokers.simulator", "--home", str(home), "--fault", "kis:fly@1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert refused.returncode == 2
    assert "is no fault" in refused.stderr


def test_an_unknown_command_is_answered_and_does_no_harm(start: Start) -> None:
    """One JSON line for each line on stdin."""
    running = start()

    assert not running.send_command("make it so")["ok"]
    assert "kis" in running.send_command("status")


@pytest.mark.parametrize(
    "text",
    [
        *["kiwoom pingcut 101", "kiwoom release 1", "kiwoom expirekey 0", "kis expirekey 2", "us omitrow 1"],
        *["kiwoom omitrow 1", "kis release", "kis block", "kis restbreak 0.5", "kis pingcut -1"],
    ],
)
def test_a_recorded_fault_of_one_vendor_is_refused_for_the_other(text: str) -> None:
    """And so is an amount that it has not."""
    with pytest.raises(FaultError, match=r"takes"):
        parse(text)


def test_a_heartbeat_whose_answer_is_lost_is_followed_by_the_cut(start: Start) -> None:
    """pingcut: a PINGPONG at once, on a busy connection too; echoing it helps nothing (docs/wire/kis.md 2.5)."""
    running = start("--books-per-s", "20")
    client = KisClient(running.ready, "pingcut")
    client.subscribe("H0STASP0", "005930")
    running.send_command("kis pingcut 1.5")
    begun_s = time.monotonic()
    client.send(client.await_frame(lambda frame: b"PINGPONG" in frame).decode())

    assert client.await_end() == "cut"
    assert time.monotonic() - begun_s > 1.0


@pytest.mark.parametrize("acknowledged", [0, 1])
def test_an_expired_approval_key_gets_no_data_and_no_error(start: Start, acknowledged: int) -> None:
    """An open session goes on; a new one hears nothing, or an acknowledgement; a fresh key works (docs/wire/kis.md 1.3)."""
    running = start("--books-per-s", "20", "--kis-ping-idle-s", "0.4")
    client = KisClient(running.ready, "expired")
    client.subscribe("H0STASP0", "005930")
    running.send_command(f"kis expirekey {acknowledged}")
    client.read_for(0.3)
    client.frames.clear()
    client.await_frame(lambda frame: b"H0STASP0|" in frame)
    client.close()
    old = KisClient(running.ready, "expired", approval=client.approval)
    header = {"approval_key": old.approval, "custtype": "P", "tr_type": "1", "content-type": "utf-8"}
    old.send({"header": header, "body": {"input": {"tr_id": "H0STASP0", "tr_key": "005930"}}})
    old.await_frame(lambda frame: b"PINGPONG" in frame)
    old.await_frame(lambda frame: b"PINGPONG" in frame)
    answers = [frame for frame in old.frames if b"PINGPONG" not in frame]
    fresh = KisClient(running.ready, "expired")
    fresh.subscribe("H0STASP0", "005930")
    fresh.await_frame(lambda frame: b"H0STASP0|" in frame)

    assert [b"OPSP0000" in frame for frame in answers] == [True] * acknowledged
    old.close()
    fresh.close()


def test_the_server_releases_what_nobody_asked_it_to(start: Start) -> None:
    """release: OPSP0001 for the oldest registration, and no more of its data; the others go on; it can be registered again."""
    running = start("--books-per-s", "20")
    client = KisClient(running.ready, "release")
    client.subscribe("H0STASP0", "005930", "000660")
    client.await_frame(lambda frame: b"^" in frame and b"005930" in frame)
    running.send_command("kis release 1")
    told = json.loads(client.await_frame(lambda frame: b"OPSP0001" in frame))
    client.read_for(0.3)
    client.frames.clear()
    client.read_for(0.7)
    codes = {record[0] for record in client.collect_records("H0STASP0")}
    client.subscribe("H0STASP0", "005930")
    client.close()

    assert (told["header"]["tr_key"], told["body"]["rt_cd"]) == ("005930", "0")
    assert codes == {"000660"}


def test_a_blocked_address_gets_no_answer_from_kis(start: Start) -> None:
    """Connections are cut, handshakes and REST calls hang until the block ends; then all is well."""
    running = start()
    client = KisClient(running.ready, "blocked")
    running.send_command("kis block 1.5")
    begun_s = time.monotonic()

    assert client.await_end() == "cut"
    with pytest.raises((ConnectionError, websocket.WebSocketException)):
        connect(running.ready["kis"]["ws_url"])
    assert time.monotonic() - begun_s > 1.0
    KisClient(running.ready, "blocked").close()


def test_an_address_that_is_not_registered_is_refused_by_kiwoom_everywhere(start: Start) -> None:
    """8050 for tokens, calls and LOGIN, with the outer code of a token that ended (docs/wire/kiwoom.md 1.2)."""
    running = start()
    rest = KiwoomRest(running.ready, "blocked")
    client = KiwoomClient(running.ready, "blocked")
    running.send_command("kiwoom block 30")
    end = client.await_end()
    call = rest.call("ka10003", stk_cd="005930").json()
    issue = request_kiwoom_token(running.ready, "blocked")
    newcomer = KiwoomClient(running.ready, token=client.token, login=False)
    newcomer.send({"trnm": "LOGIN", "token": client.token})
    login = json.loads(newcomer.await_trnm("LOGIN"))
    refused = newcomer.await_end()
    running.send_command("kiwoom block 0")

    assert end == "cut"
    assert [answer["return_code"] for answer in (call, issue)] == [3, 3]
    assert all("8050" in answer["return_msg"] for answer in (call, issue, login))
    assert refused == "1000 Bye"
    KiwoomClient(running.ready, "blocked").close()


def test_a_rest_answer_may_have_a_line_break_inside_a_text(start: Start) -> None:
    """restbreak: the next answer with a message is no strict JSON, but means the same."""
    running = start()
    running.send_command("kiwoom restbreak 1")
    body = {"grant_type": "client_credentials", "appkey": "break", "secretkey": "S"}
    first, second = (post(running.ready["kiwoom"]["rest_url"] + "/oauth2/token", body) for _ in range(2))

    with pytest.raises(json.JSONDecodeError):
        first.json()
    lenient = json.loads(first.text, strict=False)
    assert lenient.pop("return_msg") == "\n" + second.json()["return_msg"]
    assert lenient["token"] == second.json()["token"]


def test_a_list_of_trades_may_lack_a_row(start: Start) -> None:
    """omitrow: one step of the cumulative volume is larger than its trade, as recorded; the next answer is whole."""
    running = start("--history", "200", "--kis-calls-per-s", "1000")
    running.send_command("market rest")
    rest = KisRest(running.ready, "omit")
    running.send_command("kis omitrow 1")
    broken, whole = (
        rest.call("inquire-time-itemconclusion", "005930", FID_INPUT_HOUR_1="235959").json()["output2"]
        for _ in range(2)
    )

    assert [len(broken), len(whole)] == [29, 30]
    assert [row for row in whole if row not in broken] == [whole[15]]
