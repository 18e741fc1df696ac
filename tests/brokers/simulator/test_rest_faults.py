"""What can go wrong with REST market data, on command and by the vendors' limits."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.vendor_clients import (
    SAMPLES,
    KisRest,
    KiwoomClient,
    KiwoomRest,
    SimulatorHandle,
    extract_rows,
    start_simulator,
)

from brokers.simulator.faults import FaultError, parse
from brokers.simulator.ground_truth import load

Start = Callable[..., SimulatorHandle]
TICKS = {"stk_cd": "005930", "tic_scope": "1", "upd_stkpc_tp": "0"}
PRINTS = {"stk_cd": "005930", "tdy_pred": "1", "tic_min": "0"}
HOUR = {"FID_INPUT_HOUR_1": "235959"}
UNLIMITED = ("--kiwoom-calls-per-s", "10000", "--kiwoom-burst", "10000", "--kis-calls-per-s", "10000")


@pytest.fixture(scope="module")
def resting() -> Iterator[tuple[SimulatorHandle, KiwoomRest, Path]]:
    """A market with 4,000 trades that rests, its client, its truth."""
    root = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    options = ("--always-open", "--symbols", "005930,000660", "--history", "4000", "--truth", str(root / "truth"))
    with start_simulator(root, *options, *UNLIMITED) as running:
        running.send_command("market rest")
        yield running, KiwoomRest(running.ready), root / "truth"
    shutil.rmtree(root)


def inner(answer: Any) -> str:
    """The fine-grained code inside return_msg."""
    return answer.json()["return_msg"].split("[")[1].split(":")[0]


def volume(rest: KiwoomRest) -> int:
    """The day's volume."""
    return int(extract_rows(rest.call("ka10095", stk_cd="005930"))[0]["trde_qty"])


def test_more_than_the_quota_is_refused_for_that_key_and_tr_alone(home: Path) -> None:
    """Five at once, then 4.5 a second: HTTP 429, code 5, the recorded sentence, no page headers (docs/wire/kiwoom.md 1.5, 1.6)."""
    with start_simulator(home, "--always-open", "--symbols", "005930") as running:
        rest, other = KiwoomRest(running.ready), KiwoomRest(running.ready, "another")
        statuses = [rest.call("ka10079", **TICKS).status_code for _ in range(5)]
        refused = rest.call("ka10079", **TICKS)
        free = [rest.call("ka10003", stk_cd="005930").status_code, other.call("ka10079", **TICKS).status_code]
        time.sleep(0.5)
        later = rest.call("ka10079", **TICKS).status_code

    assert [200] * 5 == statuses
    assert (refused.status_code, refused.json()["return_code"], inner(refused)) == (429, 5, "1700")
    assert not {"cont-yn", "next-key", "retry-after"} & {name.lower() for name in refused.headers}
    assert [200, 200] == free
    assert later == 200
    if SAMPLES.exists():
        recorded = json.loads((SAMPLES / "kiwoom/rest_error_429_1700.json").read_text(encoding="utf-8"))
        assert recorded["body"]["return_msg"].replace("ka10080", "ka10079") == refused.json()["return_msg"]


def test_kis_refuses_the_nineteenth_call_of_a_second(home: Path) -> None:
    """HTTP 500, EGW00201 (docs/wire/kis.md 1.6)."""
    with start_simulator(home, "--always-open", "--symbols", "005930") as running:
        rest = KisRest(running.ready)
        answers = [rest.call("inquire-ccnl", "005930") for _ in range(40)]
    refused = [answer for answer in answers if answer.status_code != 200]

    assert all(answer.status_code == 200 for answer in answers[:18])
    assert refused
    assert {(answer.status_code, answer.json()["msg_cd"]) for answer in refused} == {(500, "EGW00201")}


def test_a_token_can_end_at_once(resting: tuple[SimulatorHandle, KiwoomRest, Path]) -> None:
    """HTTP 200, code 3, 8005 as recorded; the next token is another one and good."""
    running = resting[0]
    rest = KiwoomRest(running.ready, "ends")
    before = rest.call("ka10003", stk_cd="005930")
    running.send_command("kiwoom expire")
    expired = rest.call("ka10003", stk_cd="005930")
    fresh = KiwoomRest(running.ready, "ends")
    resting[1].token = KiwoomRest(running.ready).token

    assert extract_rows(before)
    assert (expired.status_code, expired.json()["return_code"], inner(expired)) == (200, 3, "8005")
    assert fresh.token != rest.token
    assert extract_rows(fresh.call("ka10003", stk_cd="005930"))
    if SAMPLES.exists():
        recorded = json.loads((SAMPLES / "kiwoom/rest_error_token_invalid_8005.json").read_text(encoding="utf-8"))
        assert recorded["body"] == expired.json()


def test_calls_can_be_refused_and_broken_in_any_number(resting: tuple[SimulatorHandle, KiwoomRest, Path]) -> None:
    """`limit`: 429 whatever the rate; `error`: a gateway's page, 502 and 500 in turn, which is no JSON."""
    running, rest, _ = resting
    running.send_command("kiwoom limit 2")
    limited = [rest.call("ka10079", **TICKS).status_code for _ in range(3)]
    running.send_command("kiwoom error 2")
    broken = [rest.call("ka10079", **TICKS) for _ in range(3)]

    assert [429, 429, 200] == limited
    assert [500, 502, 200] == [answer.status_code for answer in broken]
    assert all(answer.headers["content-type"].startswith("text/html") for answer in broken[:2])
    for answer in broken[:2]:
        with pytest.raises(ValueError):
            answer.json()


def test_a_page_can_be_the_one_before_again(resting: tuple[SimulatorHandle, KiwoomRest, Path]) -> None:
    """Same rows, same key: the list does not advance; asked once more it does."""
    running, rest, _ = resting
    first = rest.call("ka10079", **TICKS)
    second = rest.call("ka10079", first.headers["next-key"], **TICKS)
    key = second.headers["next-key"]
    running.send_command("kiwoom repeatpage 1")
    repeated = rest.call("ka10079", key, **TICKS)
    third = rest.call("ka10079", key, **TICKS)

    assert extract_rows(first) != extract_rows(second) == extract_rows(repeated) != extract_rows(third)
    assert repeated.headers["next-key"] == key
    assert repeated.headers["cont-yn"] == "Y"


def test_a_page_can_be_empty_with_an_error_code(resting: tuple[SimulatorHandle, KiwoomRest, Path]) -> None:
    """It looks like the end of the list to who does not read the code (docs/wire/kiwoom.md 5.1)."""
    running, rest, _ = resting
    key = rest.call("ka10079", **TICKS).headers["next-key"]
    running.send_command("kiwoom emptypage 1")
    empty = rest.call("ka10079", key, **TICKS)
    again = rest.call("ka10079", key, **TICKS)

    assert (empty.status_code, empty.json()["stk_tic_chart_qry"], empty.headers["cont-yn"]) == (200, [], "N")
    assert (empty.json()["return_code"], inner(empty)) == (1, "1999")
    assert len(extract_rows(again)) == 900


@pytest.mark.parametrize(("tr", "body"), [("ka10079", TICKS), ("ka10084", PRINTS)])
def test_new_trades_can_move_the_pages(
    resting: tuple[SimulatorHandle, KiwoomRest, Path], tr: str, body: dict[str, str]
) -> None:
    """`movehead`: pages overlap by the trades that came, which are in the day's volume and in the truth."""
    running, rest, truth = resting
    before = volume(rest)
    first = rest.call(tr, **body)
    running.send_command("kiwoom movehead 1")
    moved = rest.call(tr, first.headers["next-key"], **body)
    third = rest.call(tr, moved.headers["next-key"], **body)
    newest = extract_rows(rest.call(tr, **body))
    grown = volume(rest) - before
    came = next(number for number in range(1, 50) if extract_rows(first)[-number:] == extract_rows(moved)[:number])
    quantity = "trde_qty" if tr == "ka10079" else "cntr_trde_qty"
    deadline_s = time.monotonic() + 10
    while (trades := load(truth).trades)[-1]["cum_volume"] != before + grown:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)

    assert came == 3
    assert newest[came:] == extract_rows(first)[:-came]
    assert sum(int(row[quantity].lstrip("+-")) for row in newest[:came]) == grown
    assert trades["size"][-came:].sum() == grown
    assert len(extract_rows(third)) == len(extract_rows(moved))
    assert extract_rows(third)[:3] != extract_rows(moved)[-3:]


def test_cursors_do_not_move_and_offsets_do(home: Path) -> None:
    """--kiwoom-keys: what a page key stands for while the market trades."""
    for keys, overlap in (("cursor", 0), ("offset", 1)):
        options = ("--always-open", "--symbols", "005930", "--history", "3000", "--books-per-s", "200")
        with start_simulator(home, *options, *UNLIMITED, "--kiwoom-keys", keys) as running:
            rest = KiwoomRest(running.ready)
            first = rest.call("ka10084", **PRINTS)
            told = volume(rest)
            deadline_s = time.monotonic() + 10
            while volume(rest) == told:
                assert time.monotonic() < deadline_s
            second = rest.call("ka10084", first.headers["next-key"], **PRINTS)
        last, next_one = extract_rows(first)[-1], extract_rows(second)[0]
        joins = int(last["acc_trde_qty"]) - int(last["cntr_trde_qty"].lstrip("+-")) == int(next_one["acc_trde_qty"])

        assert joins is not bool(overlap), keys


def test_a_block_is_in_the_volume_and_in_no_trade(home: Path, tmp_path: Path) -> None:
    """Off-book volume: day total and cumulative volume jump, no list explains it, the truth names it."""
    options = ("--always-open", "--symbols", "005930", "--history", "500", "--truth", str(tmp_path / "t"))
    with start_simulator(home, *options, *UNLIMITED) as running:
        rest = KiwoomRest(running.ready)
        answer = running.send_command("market block 005930 54321")
        wrong = [
            running.send_command(f"market block {words}")
            for words in ("", "005930", "999999 5", "005930 -3", "005930 0")
        ]
        deadline_s = time.monotonic() + 10
        size = 0
        while not size:
            rows = extract_rows(rest.call("ka10003", stk_cd="005930"))
            gaps = [
                int(new["acc_trde_qty"]) - int(new["cntr_trde_qty"].lstrip("+-")) - int(old["acc_trde_qty"])
                for new, old in pairwise(rows)
            ]
            size = sum(gaps)
            assert time.monotonic() < deadline_s
        running.send_command("market rest")
        day = extract_rows(rest.call("ka10081", stk_cd="005930", base_dt="20991231", upd_stkpc_tp="0"))[0]
        ticks = [
            row for page in rest.iterate_pages("ka10079", **TICKS) for row in page if row["cntr_tm"][:8] == day["dt"]
        ]
        bars = [
            row for page in rest.iterate_pages("ka10080", **TICKS) for row in page if row["cntr_tm"][:8] == day["dt"]
        ]
        running.stop()
    truth = load(tmp_path / "t")
    (block,) = truth.blocks

    assert answer["ok"]
    assert not any(told["ok"] for told in wrong)
    assert size == 54_321
    assert int(day["trde_qty"]) - sum(int(row["trde_qty"]) for row in ticks) == 54_321
    assert int(day["trde_qty"]) == sum(int(row["trde_qty"]) for row in bars) == truth.trades["cum_volume"][-1]
    assert (block["symbol"], block["shares"], block["cum_volume"]) == ("005930", 54_321, answer["cum_volume"])


def test_merged_prints_and_equal_trades_of_a_second_are_there(home: Path) -> None:
    """The socket puts trades together that REST lists one by one; equal rows are different trades (docs/wire/kiwoom.md 2.6)."""
    options = (
        "--always-open",
        "--symbols",
        "005930",
        "--kiwoom-loss",
        "0",
        "--kiwoom-merge",
        "1",
        "--books-per-s",
        "300",
    )
    with start_simulator(home, *options, *UNLIMITED) as running:
        client = KiwoomClient(running.ready)
        client.request("REG", ["005930"], ["0B"])
        client.read_for(2.5)
        running.send_command("market rest")
        client.read_for(0.5)
        client.close()
        rest = KiwoomRest(running.ready)
        rows = [row for page in rest.iterate_pages("ka10084", **PRINTS) for row in page]
    entries = [entry["values"] for entry in client.collect_entries("0B")]
    ends = {int(row["acc_trde_qty"]) for row in rows}
    inside = [
        sum(int(values["13"]) - abs(int(values["15"])) < end <= int(values["13"]) for end in ends) for values in entries
    ]
    equal = [(row["tm"], row["cur_prc"], row["cntr_trde_qty"]) for row in rows]

    assert all(int(values["13"]) in ends for values in entries)
    assert max(inside) > 1
    assert len(set(equal)) < len(equal)


def test_kis_can_be_limited_broken_and_expired(resting: tuple[SimulatorHandle, KiwoomRest, Path]) -> None:
    """EGW00201; a gateway's page and EGW00002; EGW00123 until a new token is there, which is issued at once."""
    running = resting[0]
    rest = KisRest(running.ready)
    ask = lambda: rest.call("inquire-time-itemconclusion", "005930", **HOUR)  # noqa: E731
    running.send_command("kis limit 1")
    limited = [ask(), ask()]
    running.send_command("kis error 2")
    broken = [ask(), ask(), ask()]
    running.send_command("kis expire")
    expired, old = ask(), rest.token
    rest.renew_token()

    assert [(500, "EGW00201"), (200, "MCA00000")] == [(a.status_code, a.json()["msg_cd"]) for a in limited]
    assert [500, 502, 200] == [answer.status_code for answer in broken]
    assert broken[0].json()["msg_cd"] == "EGW00002"
    with pytest.raises(ValueError):
        broken[1].json()
    assert (expired.status_code, expired.json()["msg_cd"]) == (500, "EGW00123")
    assert rest.token != old
    assert ask().status_code == 200


@pytest.mark.parametrize(
    "text", ["kis repeatpage 1", "kis movehead 1", "kis emptypage 1", "kiwoom limit", "kis expire 3"]
)
def test_rest_faults_have_their_words(text: str) -> None:
    """KIS has no pages; a number where one is wanted, none where not."""
    with pytest.raises(FaultError, match=r"pages|takes"):
        parse(text)


def test_long_lists_are_served_without_holding_up_the_socket(home: Path) -> None:
    """60,000 trades made at start, paged through while the market trades: frames keep coming, memory stays modest."""
    options = ("--always-open", "--symbols", "005930,000660", "--history", "005930=60000", "--books-per-s", "100")
    with (
        start_simulator(home, *options, "--kiwoom-flush-ms", "20", *UNLIMITED) as running,
        contextlib.closing(KiwoomClient(running.ready)) as client,
    ):
        client.request("REG", ["000660"], ["0B", "0D"])
        rest, rows, late_s = KiwoomRest(running.ready), 0, []
        for page in rest.iterate_pages("ka10079", **TICKS):
            rows += len(page)
            begun_s = time.monotonic()
            client.await_frame(lambda frame: b"REAL" in frame)
            late_s.append(time.monotonic() - begun_s)
        memory_mb = psutil.Process(running.process.pid).memory_info().rss / 1e6

    assert rows >= 60_300
    assert sorted(late_s)[len(late_s) // 2] < 0.3
    assert memory_mb < 200


def test_history_before_the_session_ends_the_start_with_a_sentence(tmp_path: Path) -> None:
    """A Sunday has no session: exit 2, in words."""
    (tmp_path / "collector.toml").write_text('[clock]\nstart = "2026-11-22T10:00:00+09:00"\nspeed = 1.0\n')
    with (
        pytest.raises(AssertionError, match="has not begun"),
        start_simulator(tmp_path, "--symbols", "005930", "--history", "5"),
    ):
        pass
