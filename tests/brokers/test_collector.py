"""The collector process against a foreign server: real sockets, real rings, real signals."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from support.process_tree import wait_until

from ringbuf import layout
from ringbuf.records import Flag, Session

FAST = "\n[feed]\nbackoff_first_s = 0.1\nbackoff_max_s = 0.3\n"
PINGPONG = '{"header":{"tr_id":"PINGPONG","datetime":"20261120100000"}}'


def kis_tick(size: int, cum: int, symbol: str = "005930", width: int = 47, tr: str = "H0STCNT0") -> str:
    """A trade frame of one record; fields that no test looks at are zero."""
    fields = ["0"] * width
    fields[0:3] = [symbol, "100000", "72000"]
    fields[12:15] = [str(size), str(cum), str(cum * 72000)]
    fields[21], fields[34], fields[35], fields[43] = "1", "20", "N", "0"
    if width > 46:
        fields[46] = "2"
    return f"0|{tr}|001|{'^'.join(fields)}"


def kis_book(cum: int, symbol: str = "005930") -> str:
    """A book frame of 63 fields whose totals are right."""
    fields = ["0"] * 63
    fields[0:3] = [symbol, "100000", "0"]
    fields[3:13] = [str(72000 + 100 * level) for level in range(10)]
    fields[13:23] = [str(71900 - 100 * level) for level in range(10)]
    fields[23:43] = ["10"] * 20
    fields[43:45] = ["100", "100"]
    fields[53], fields[62] = str(cum), "2"
    return f"0|H0STASP0|001|{'^'.join(fields)}"


def kiwoom_entry(kind: str, item: str = "005930") -> dict:
    """A trade or book entry with the FIDs that matter."""
    if kind == "0B":
        values = {"20": "100000", "10": "-72000", "15": "-3", "13": "100", "14": "7", "27": "-72100", "28": "-72000"}
    else:
        values = {"21": "100000", **{str(fid): "-72000" for fid in range(41, 61)}}
        values |= {str(fid): "5" for fid in range(61, 81)} | {"121": "50", "125": "50"}
    return {"type": kind, "name": "x", "item": item, "values": values}


def real(*entries: dict) -> str:
    """A REAL frame, keys in the order of the wire."""
    return json.dumps({"data": entries, "trnm": "REAL"}, ensure_ascii=False, separators=(",", ":"))


def test_kis_registers_books_and_ticks_and_publishes_what_comes(run):
    """Everything is registered with the vendor's fields, and frames arrive in the rings with receive times and SNAPSHOT once."""
    vendor, process = run("kis", universe='"005930", "000660_NX", "Q500001"')

    vitals = process.until_state("streaming")
    vendor.send(kis_tick(3, 100))
    vendor.send(kis_tick(2, 102))
    vendor.send(kis_book(102))
    ticks, books = process.records("tick", 2), process.records("orderbook", 1)

    asked = [m["body"]["input"] for m in vendor.messages()]
    assert asked == [
        {"tr_id": "H0STASP0", "tr_key": "005930"},
        {"tr_id": "H0NXASP0", "tr_key": "000660"},
        {"tr_id": "H0STASP0", "tr_key": "Q500001"},
        {"tr_id": "H0STCNT0", "tr_key": "005930"},
        {"tr_id": "H0NXCNT0", "tr_key": "000660"},
        {"tr_id": "H0STCNT0", "tr_key": "Q500001"},
    ]
    assert vendor.messages()[0]["header"] == {
        "approval_key": "approval-1",
        "custtype": "P",
        "tr_type": "1",
        "content-type": "utf-8",
    }
    assert vendor.posts[0][1] == {
        "grant_type": "client_credentials",
        "appkey": "key-of-kis",
        "secretkey": "secret-of-kis",
    }
    assert vitals.counters["acknowledged"] == 6
    assert ticks["seq"].tolist() == [1, 2]
    assert ticks["flags"].tolist() == [Flag.SNAPSHOT, 0]
    assert books["flags"].tolist() == [Flag.SNAPSHOT]
    assert ticks["session"].tolist() == [Session.REGULAR] * 2
    assert (ticks["recv_ns"] - ticks["mono_ns"] == ticks["recv_ns"][0] - ticks["mono_ns"][0]).all()
    assert 0 < time.monotonic_ns() - int(ticks["mono_ns"][-1]) < 20e9
    assert process.stop() < 1.5


def test_kis_spaces_its_registrations(run):
    """Two registrations are never closer than subscribe_spacing_ms (docs/wire/kis.md 2.2)."""
    vendor, process = run("kis", universe='"005930", "000660"')

    process.until_state("streaming")

    times = [at for _, _, at in vendor.texts]
    assert len(times) == 4
    assert min(np.diff(times)) > 0.015


def test_kis_heartbeats_are_echoed_verbatim_as_text(run):
    """PINGPONG comes back as the same text (docs/wire/kis.md 2.5)."""
    vendor, process = run("kis")
    process.until_state("streaming")

    vendor.send(PINGPONG)

    wait_until("the echo", lambda: PINGPONG in [text for _, text, _ in vendor.texts])


def test_a_garbled_frame_is_kept_raw_and_the_next_one_is_read(run):
    """What cannot be decoded is in data/quarantine with time, broker and reason; bad UTF-8 does not end the connection."""
    vendor, process = run("kis")
    process.until_state("streaming")
    truncated = kis_tick(3, 100)[:-30]

    vendor.send(truncated)
    vendor.send(b"0|H0STCNT0|001|\xff\xfe")
    vendor.send(kis_tick(3, 100))
    process.records("tick", 1)

    file = process.home.quarantine_directory() / "date=2026-11-20" / "kis.jsonl"
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert truncated == kept[0]["text"]
    assert base64.b64decode(kept[1]["base64"]) == b"0|H0STCNT0|001|\xff\xfe"
    assert {"kis"} == {line["broker"] for line in kept}
    assert all(line["reason"] and line["recv_ns"] and line["mono_ns"] for line in kept)
    assert process.vitals().counters["quarantined"] == 2
    assert len(vendor.opened) == 1


def test_a_wider_frame_is_read_kept_and_alarmed_once(run):
    """A width beyond the known ones is read by its prefix, the surplus is in `extra`, the log says so once."""
    vendor, process = run("kis")
    process.until_state("streaming")

    vendor.send(kis_tick(3, 100, width=49))
    vendor.send(kis_tick(3, 103, width=49))
    ticks = process.records("tick", 2)

    assert ticks["extra"].tolist() == [b"0^0"] * 2
    assert all(flags & Flag.EXTRA for flags in ticks["flags"])
    wait_until("the count", lambda: process.vitals().counters["wide_frames"] == 2)
    assert process.log().count("an unknown width") == 1


@pytest.mark.parametrize("kind", ["kis", "kiwoom"])
@pytest.mark.parametrize("how", ["drop", "close"])
def test_after_a_lost_connection_everything_is_registered_again(run, kind, how):
    """Registrations die with the connection, however it ended; the first record after it is a SNAPSHOT again."""
    vendor, process = run(kind, FAST)
    process.until_state("streaming")
    tick = kis_tick(3, 100) if kind == "kis" else real(kiwoom_entry("0B"))
    vendor.send(tick)
    process.records("tick", 1)

    getattr(vendor, how)()
    wait_until("the second connection", lambda: len(vendor.opened) == 2)
    wait_until("the same registrations", lambda: _asked(vendor.messages(0)) == _asked(vendor.messages(1)))
    process.until_state("streaming")
    vendor.send(tick)

    assert [flags & Flag.SNAPSHOT for flags in process.records("tick", 2)["flags"]] == [Flag.SNAPSHOT] * 2
    assert process.vitals().counters["connects"] == 2


@pytest.mark.parametrize(("how", "waits"), [("drop", True), ("close", False)])
def test_a_session_that_was_cut_is_given_time_to_end(run, how, waits):
    """Without a close frame KIS may hold the slot: no attempt before cut_wait_s, else at once (docs/wire/kis.md 2.6)."""
    vendor, process = run("kis", "cut_wait_s = 2.0" + FAST)
    process.until_state("streaming")

    getattr(vendor, how)()
    began = time.monotonic()
    wait_until("the second connection", lambda: len(vendor.opened) == 2)

    assert waits == (time.monotonic() - began >= 2.0)


def _asked(messages: list[dict]) -> list:
    """Registrations, without the credentials they came with."""
    return [m.get("body") or m.get("data") for m in messages if m.get("trnm") != "LOGIN"]


def test_kis_waits_ten_seconds_while_its_appkey_is_in_use(run):
    """OPSP8996 is said in words and not answered by another attempt within 10 s (docs/wire/kis.md 2.6)."""
    in_use = json.dumps(
        {
            "header": {"tr_id": "(null)", "tr_key": "", "encrypt": "N"},
            "body": {"rt_cd": "9", "msg_cd": "OPSP8996", "msg1": "ALREADY IN USE appkey"},
        }
    )

    def prepare(vendor):
        usual = vendor.answer
        vendor.answer = lambda number, message: [in_use, "DROP"] if number == 0 else usual(number, message)

    vendor, process = run("kis", FAST, prepare)

    vitals = process.until_state("refused")
    assert "ALREADY IN USE" in vitals.detail
    process.until_state("streaming")
    assert vendor.opened[1] - vendor.opened[0] > 9.9
    beats = process.vitals()
    assert time.monotonic_ns() - beats.heartbeat_mono_ns < 1.5e9


def test_kis_takes_a_new_approval_key_after_an_invalid_one(run):
    """OPSP0011 spoils the key: the next session shows another one, and the refused key is in no log."""

    def prepare(vendor):
        usual = vendor.answer
        refusal = json.dumps(
            {
                "header": {"tr_id": "H0STASP0", "tr_key": "005930", "encrypt": "N"},
                "body": {
                    "rt_cd": "1",
                    "msg_cd": "OPSP0011",
                    "msg1": "invalid approval : 1a2b3c4d-0000-1111-2222-abcdefabcdef",
                },
            }
        )
        vendor.answer = lambda number, message: [refusal] if number == 0 else usual(number, message)

    vendor, process = run("kis", FAST, prepare)

    process.until_state("streaming")

    assert [vendor.messages(n)[0]["header"]["approval_key"] for n in (0, 1)] == ["approval-1", "approval-2"]
    assert "OPSP0011" in process.log()
    assert "1a2b3c4d" not in process.log()


def test_kis_goes_on_without_what_the_vendor_refuses(run):
    """OPSP0008 is told by name in the vitals; the other registrations collect."""

    def prepare(vendor):
        usual = vendor.answer

        def answer(number, message):
            if message.get("body", {}).get("input", {}).get("tr_key") == "000660":
                return [
                    json.dumps(
                        {
                            "header": {"tr_id": message["body"]["input"]["tr_id"], "tr_key": "000660"},
                            "body": {"rt_cd": "1", "msg_cd": "OPSP0008", "msg1": "MAX SUBSCRIBE OVER"},
                        }
                    )
                ]
            return usual(number, message)

        vendor.answer = answer

    _, process = run("kis", FAST, prepare, '"005930", "000660"')

    process.until_state("streaming")
    vitals = wait_until("the words", lambda: (v := process.vitals()).detail and v)

    assert (vitals.counters["acknowledged"], vitals.counters["refused"]) == (2, 2)
    assert "000660 orderbook: OPSP0008 MAX SUBSCRIBE OVER" in vitals.detail


def test_a_registration_without_an_answer_is_sent_again(run):
    """After acknowledge_within_s the registration alone is repeated (settings [feed])."""

    def prepare(vendor):
        usual, seen = vendor.answer, set()

        def answer(number, message):
            key = json.dumps(message["body"])
            if "H0STCNT0" in key and key not in seen:
                seen.add(key)
                return []
            return usual(number, message)

        vendor.answer = answer

    vendor, process = run("kis", "[feed]\nacknowledge_within_s = 0.5\n", prepare)

    process.until_state("streaming")

    trs = [m["body"]["input"]["tr_id"] for m in vendor.messages()]
    assert trs == ["H0STASP0", "H0STCNT0", "H0STCNT0"]


def test_a_silent_connection_is_renewed_in_a_session(run):
    """Heartbeats alone are no health: without data for silent_after_s the connection is begun again (docs/wire/kis.md 2.5)."""
    vendor, process = run("kis", "[feed]\nsilent_after_s = 1.0\nbackoff_first_s = 0.1\n")
    process.until_state("streaming")

    def renewed():
        with suppress(ConnectionError):  # it may just be closing
            vendor.send(PINGPONG)
        return len(vendor.opened) == 2

    wait_until("a second connection", renewed)
    assert "no market data for" in process.log()


def test_a_dead_connection_is_noticed(run):
    """Without any frame for dead_after_s the connection is begun again, though TCP says nothing."""
    vendor, process = run("kis", "[feed]\ndead_after_s = 1.0\nbackoff_first_s = 0.1\n")
    process.until_state("streaming")

    wait_until("a second connection", lambda: len(vendor.opened) == 2)
    assert "no frame of any kind" in process.log()


def test_one_silent_symbol_is_registered_again_alone(run):
    """While others speak, a silent registration is released and registered anew; the connection stays."""
    vendor, process = run("kis", "[feed]\nsymbol_silent_after_s = 2.0\n", universe='"005930", "000660"')
    process.until_state("streaming")

    def released():
        for text in (kis_tick(1, 1), kis_book(1), kis_book(1, "000660")):
            vendor.send(text)
        return [m for m in vendor.messages() if m["header"]["tr_type"] == "2"]

    found = wait_until("a release", released)
    assert found[0]["body"]["input"] == {"tr_id": "H0STCNT0", "tr_key": "000660"}
    wait_until("its new registration", lambda: vendor.messages()[-1]["header"]["tr_type"] == "1")
    assert found[0]["body"] == vendor.messages()[-1]["body"]
    assert len(vendor.opened) == 1
    wait_until("the count", lambda: process.vitals().counters["resubscribed"] >= 1)


def test_a_stop_closes_the_connection_properly(run):
    """SIGTERM sends a close frame at once, frees the slot, says `stopped` and exits 0 (docs/wire/kis.md 2.6)."""
    vendor, process = run("kis")
    process.until_state("streaming")

    took = process.stop()

    wait_until("the close", lambda: 0 in vendor.closed)
    assert vendor.closed[0] == 1000
    assert took < 1.5
    assert process.vitals().state == "stopped"


def test_a_stop_during_the_backoff_is_prompt(run):
    """Waiting for the next attempt does not hold a stop up."""
    vendor, process = run("kis", "[feed]\nbackoff_first_s = 30.0\n")
    process.until_state("streaming")
    vendor.drop()
    process.until_state("retrying")

    assert process.stop() < 1.5


def test_the_heart_beats_while_nothing_comes_and_nobody_answers(run):
    """Every second at least, also while the REST server takes its time."""

    def prepare(vendor):
        usual = vendor.rest

        def slow(path, body):
            time.sleep(4)
            return usual(path, body)

        vendor.rest = slow

    _, process = run("kis", prepare=prepare)
    process.until_state("connecting")
    ages = []
    for _ in range(30):
        ages.append(time.monotonic_ns() - process.vitals().heartbeat_mono_ns)
        time.sleep(0.1)

    assert process.vitals().state == "connecting"
    assert max(ages) < 1e9


def test_kiwoom_logs_in_waits_and_registers_in_chunks(run):
    """LOGIN first and alone, then one REG at a time, a symbol's types in one, 0s and 1h last (docs/wire/kiwoom.md 2.2, 2.4)."""
    vendor, process = run("kiwoom", "subscribe_chunk = 2", universe='"005930", "000660_NX", "Q500001"')

    process.until_state("streaming")
    wait_until("all requests", lambda: len(vendor.texts) == 5)
    vendor.send(real(kiwoom_entry("0B"), kiwoom_entry("0D"), kiwoom_entry("0D", "500001"), kiwoom_entry("0w")))
    books = process.records("orderbook", 2)

    assert vendor.messages()[0] == {"trnm": "LOGIN", "token": "token-1"}
    assert [(m["grp_no"], m["data"]) for m in vendor.messages()[1:]] == [
        ("1", [{"item": ["005930", "000660_NX"], "type": ["0B", "0D"]}]),
        ("1", [{"item": ["500001"], "type": ["0B", "0D"]}]),
        ("9999", [{"item": [""], "type": ["0s"]}]),
        ("9999", [{"item": [""], "type": ["1h"]}]),
    ]
    assert {"1"} == {m["refresh"] for m in vendor.messages()[1:]}
    assert books["symbol"].tolist() == [b"005930", b"Q500001"]
    assert books["session"].tolist() == [Session.REGULAR] * 2
    wait_until("the unknown type is kept", lambda: process.vitals().counters["quarantined"] == 1)


def test_kiwoom_heartbeats_are_echoed_verbatim(run):
    """PING comes back as the same text (docs/wire/kiwoom.md 2.3)."""
    vendor, process = run("kiwoom")
    process.until_state("streaming")

    vendor.send('{"trnm":"PING"}')

    wait_until("the echo", lambda: '{"trnm":"PING"}' in [text for _, text, _ in vendor.texts])


def test_kiwoom_slows_down_and_repeats_what_came_too_fast(run):
    """105110 costs time, not a registration (docs/wire/kiwoom.md 2.5)."""

    def prepare(vendor):
        usual, refusals = vendor.answer, [1]

        def answer(number, message):
            if message["trnm"] == "REG" and refusals:
                refusals.pop()
                return ['{"trnm":"REG","return_code":105110,"return_msg":"too many (TRNM=REG)"}']
            return usual(number, message)

        vendor.answer = answer

    vendor, process = run("kiwoom", prepare=prepare)

    process.until_state("streaming")

    (_, first, at), (_, again, later) = [text for text in vendor.texts if "REG" in text[1]][:2]
    assert first == again
    assert later - at > 0.9


def test_kiwoom_renews_its_token_once_and_then_waits(run):
    """8005 at LOGIN: a new token at once; if that is refused too, the state is `refused` in words and no loop follows."""

    def prepare(vendor):
        vendor.answer = lambda number, message: [
            '{"trnm":"LOGIN","return_code":3,"return_msg":"인증에 실패했습니다[CODE=8005:Token이 유효하지 않습니다]"}'
        ]

    vendor, process = run("kiwoom", FAST, prepare)

    vitals = process.until_state("refused")

    assert "8005" in vitals.detail
    assert [m["token"] for m in vendor.messages()] == ["token-1", "token-2"]
    time.sleep(1)
    assert len(vendor.opened) == 2


def test_data_around_a_refusal_is_published(run):
    """What came in the same read as the end of the session is kept; R10001 says who else holds the key."""
    vendor, process = run("kiwoom", FAST)
    process.until_state("streaming")

    trade = real(kiwoom_entry("0B"))
    vendor.send_together(trade, '{"trnm":"SYSTEM","code":"R10001","message":"x"}', trade)

    vitals = process.until_state("refused")
    assert "R10001" in vitals.detail
    assert len(process.records("tick", 2)) == 2


def test_kiwoom_does_not_renew_what_renewing_cannot_mend(run):
    """8050 (address not registered) is told in words, with no second token asked for (docs/wire/kiwoom.md 1.2)."""

    def prepare(vendor):
        vendor.rest = lambda path, body: (
            200,
            {"return_code": 3, "return_msg": "인증에 실패했습니다[8050:IP가 등록되지 않았습니다]"},
        )

    vendor, process = run("kiwoom", FAST, prepare)

    vitals = process.until_state("refused")
    time.sleep(1)

    assert "8050" in vitals.detail
    assert "IP가 등록되지" in vitals.detail
    assert len(vendor.posts) == 1
    assert len(vendor.opened) == 0


def test_kiwoom_keeps_its_token_for_the_next_process(run):
    """The token outlives the process in a file only the owner reads; no secret is in the log."""
    vendor, process = run("kiwoom")
    process.until_state("streaming")
    process.stop()

    file = process.home.token_path("kiwoom")
    again = type(process)("kiwoom", process.home.root)
    again.until_state("streaming")
    again.stop()

    assert len(vendor.posts) == 1
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    for secret in ("token-1", "secret-of-kiwoom", "key-of-kiwoom"):
        assert secret not in process.log()


def test_a_killed_collector_is_followed_by_one_that_continues_the_ring(run):
    """SIGKILL at any time: the next process goes on with the numbering."""
    vendor, process = run("kis")
    process.until_state("streaming")
    vendor.send(kis_tick(3, 100))
    process.records("tick", 1)

    process.popen.send_signal(signal.SIGKILL)
    process.popen.wait(10)
    again = type(process)("kis", process.home.root)
    again.until_state("streaming")
    vendor.send(kis_tick(2, 102))

    assert again.records("tick", 2)["seq"].tolist() == [1, 2]
    again.stop()


def test_a_ring_of_another_layout_is_refused_in_words_until_it_is_gone(run):
    """By the state, once by the log, and never as a bug; the process stays, and collects when the file was deleted."""
    _, process = run("kis")
    process.until_state("streaming")
    process.stop()
    ring = process.home.ring_path("kis", "tick")
    with ring.open("r+b") as file:
        file.seek(8 * layout.VERSION)
        file.write((layout.RING_VERSION + 1).to_bytes(8, "little"))

    again = type(process)("kis", process.home.root)
    seen = again.until_state("failing")
    words = f"{ring.name}: layout version is {layout.RING_VERSION + 1}, this version has {layout.RING_VERSION}: "
    words += "let the version that made it drain it (collectorctl stop), then delete the file"
    assert words in seen.detail
    ring.unlink()
    again.until_state("streaming")

    assert again.log().count(words) == 1 and "Traceback" not in again.log()
    again.stop()


def test_a_collector_is_small(run):
    """Resident minus shared stays under 60 MB, and neither pyarrow nor pandas is loaded."""
    _, process = run("kiwoom")
    process.until_state("streaming")

    proc = Path(f"/proc/{process.popen.pid}")
    resident, shared = map(int, (proc / "statm").read_text().split()[1:3])
    maps = (proc / "maps").read_text()

    own_mb = (resident - shared) * os.sysconf("SC_PAGE_SIZE") / 1e6
    assert own_mb < 60
    assert not re.search(r"pyarrow|pandas", maps)


def test_an_unknown_broker_is_refused_by_name():
    """Exit 2, naming the brokers there are."""
    ran = subprocess.run([sys.executable, "-m", "brokers", "kos"], capture_output=True, text=True, check=False)

    assert ran.returncode == 2
    assert "kis, kiwoom" in ran.stderr


def test_a_plan_that_does_not_fit_runs_with_what_fits(run):
    """Four registrations are wanted, three are allowed: the books, and the more important symbol's ticks."""
    vendor, process = run("kis", "max_subscriptions = 3", universe='"005930", "000660"')

    process.until_state("streaming")

    asked = [m["body"]["input"] for m in vendor.messages()]
    assert [(a["tr_id"], a["tr_key"]) for a in asked] == [
        ("H0STASP0", "005930"),
        ("H0STASP0", "000660"),
        ("H0STCNT0", "005930"),
    ]


def test_a_broker_that_is_not_enabled_waits(run):
    """An exit would be taken for a crash and answered with a restart."""
    _, process = run("kiwoom")
    idle = type(process)("kis", process.home.root)

    vitals = idle.until_state("disabled")

    assert "kis.enabled is false" in vitals.detail
    idle.stop()
