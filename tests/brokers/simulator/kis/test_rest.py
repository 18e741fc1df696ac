"""KIS's REST calls that a gap is filled from: they say what the stream and the truth say (docs/wire/kis.md 5)."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.process_tree import wait_until
from support.vendor_clients import SAMPLES, KisClient, KisRest, start_simulator

from brokers.simulator.ground_truth import load

CONCLUSION, BARS, LAST = "inquire-time-itemconclusion", "inquire-time-itemchartprice", "inquire-ccnl"
PAST_BARS, BOOK, HOLIDAYS = "inquire-time-dailychartprice", "inquire-asking-price-exp-ccn", "chk-holiday"
KOREA_S = 9 * 3600
ROW = {"stck_cntg_hour", "stck_prpr", "prdy_vrss", "prdy_vrss_sign", "prdy_ctrt", "askp", "bidp", "tday_rltv"}


@pytest.fixture(scope="module")
def evening() -> Iterator[tuple[KisRest, np.ndarray, np.ndarray]]:
    """20:30 on a Friday: a client, today's trades of 005930, and those of the days before."""
    root = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    (root / "collector.toml").write_text('[clock]\nstart = "2026-11-20T20:30:00+09:00"\nspeed = 1.0\n')
    options = ("--symbols", "005930", "--history", "400", "--earlier-days", "2", "--truth", str(root / "t"))
    with start_simulator(root, *options, "--kis-calls-per-s", "10000") as running:
        yield KisRest(running.ready), load(root / "t").trades, load(root / "t").earlier_trades
    shutil.rmtree(root)


def hours(trades: np.ndarray) -> list[str]:
    """HHMMSS of each trade."""
    return [f"{at:%H%M%S}" for at in (trades["exch_s"] + KOREA_S).astype("datetime64[s]").tolist()]


def ask(rest: KisRest, name: str, at: str = "", **more: str) -> Any:
    """The body of a successful call."""
    answer = rest.call(name, "005930", **({"FID_INPUT_HOUR_1": at} if at else {}), **more)
    assert (answer.status_code, answer.json()["rt_cd"]) == (200, "0"), answer.text
    return answer.json()


def test_trades_by_time_chain_and_reach_back_to_the_first(evening: tuple) -> None:
    """Thirty rows at or before a second, acml_vol - cnqn is the row behind; going back by the oldest row's time finds all
    trades but those beyond thirty in one second."""
    rest, truth, _ = evening
    found: dict[int, dict[str, str]] = {}
    at = "235959"
    while True:
        rows = ask(rest, CONCLUSION, at)["output2"]
        assert all(row["stck_cntg_hour"] <= at for row in rows)
        assert all(int(new["acml_vol"]) - int(new["cnqn"]) == int(old["acml_vol"]) for new, old in pairwise(rows))
        fresh = {int(row["acml_vol"]): row for row in rows}.keys() - found.keys()
        found |= {int(row["acml_vol"]): row for row in rows}
        if not fresh:
            break
        at = rows[-1]["stck_cntg_hour"]
    rows = [found[volume] for volume in sorted(found)]

    assert truth["cum_volume"].tolist() == sorted(found)
    assert hours(truth) == [row["stck_cntg_hour"] for row in rows]
    for name, field in (("price", "stck_prpr"), ("size", "cnqn"), ("ask_price_1", "askp"), ("bid_price_1", "bidp")):
        assert truth[name].tolist() == [int(row[field]) for row in rows]
    assert all(set(row) == ROW | {"acml_vol", "cnqn"} and all(isinstance(v, str) for v in row.values()) for row in rows)


def test_the_day_is_told_beside_the_trades(evening: tuple) -> None:
    """output1: price and volume of the day, not of the time asked for."""
    rest, truth, _ = evening
    told = ask(rest, CONCLUSION, "093000")["output1"]

    assert int(told["acml_vol"]) == truth["cum_volume"][-1]
    assert int(told["stck_prpr"]) == truth["price"][-1]
    assert {"prdy_vrss", "prdy_vrss_sign", "prdy_ctrt", "prdy_vol", "rprs_mrkt_kor_name"} < set(told)


def test_the_last_thirty_have_no_cumulative_volume(evening: tuple) -> None:
    """inquire-ccnl (docs/wire/kis.md 5)."""
    rest, truth, _ = evening
    rows = ask(rest, LAST)["output"]

    assert [(int(row["stck_prpr"]), int(row["cntg_vol"])) for row in rows] == list(
        zip(truth["price"].tolist()[:-31:-1], truth["size"].tolist()[:-31:-1], strict=True)
    )
    assert set(rows[0]) == ROW - {"askp", "bidp"} | {"cntg_vol"}


def bars_by_hand(trades: np.ndarray) -> dict[str, tuple]:
    """HHMM00 -> open, high, low, close, shares and the day's value so far."""
    minutes = [list(part) for _, part in groupby(trades, key=lambda one: one["exch_s"] // 60)]
    return {
        hours(np.array(minute[:1]))[0][:4] + "00": (
            minute[0]["price"],
            max(one["price"] for one in minute),
            min(one["price"] for one in minute),
            minute[-1]["price"],
            sum(one["size"] for one in minute),
            minute[-1]["cum_value"],
        )
        for minute in minutes
    }


def numbers_of(bar: dict[str, str]) -> tuple[int, ...]:
    """The same of a bar that was answered."""
    names = ("stck_oprc", "stck_hgpr", "stck_lwpr", "stck_prpr", "cntg_vol", "acml_tr_pbmn")
    return tuple(int(bar[name]) for name in names)


def test_minute_bars_are_the_trades_of_their_minutes(evening: tuple) -> None:
    """At most thirty, newest first, up to the time asked for; acml_tr_pbmn is the day's value so far."""
    rest, truth, _ = evening
    bars = ask(rest, BARS, "110000", FID_PW_DATA_INCU_YN="N", FID_ETC_CLS_CODE="")["output2"]
    expected = bars_by_hand(truth)

    assert len(bars) == 30
    assert [at for at in expected if at <= "110000"][:-31:-1] == [bar["stck_cntg_hour"] for bar in bars]
    assert [expected[bar["stck_cntg_hour"]] for bar in bars] == list(map(numbers_of, bars))
    assert {bar["stck_bsop_date"] for bar in bars} == {"20261120"}


def test_bars_of_the_day_before_come_when_asked_for_and_the_future_repeats_the_price(evening: tuple) -> None:
    """FID_PW_DATA_INCU_YN; a time that has not come is filled (docs/wire/kis.md 5)."""
    rest, truth, _ = evening
    first = hours(truth)[0][:4] + "00"
    mixed = ask(rest, BARS, first, FID_PW_DATA_INCU_YN="Y")["output2"]
    alone = ask(rest, BARS, first, FID_PW_DATA_INCU_YN="N")["output2"]
    future = ask(rest, BARS, "204500", FID_PW_DATA_INCU_YN="N")["output2"]

    assert [bar["stck_bsop_date"] for bar in mixed] == ["20261120"] + ["20261119"] * 29
    assert mixed[:1] == alone
    assert future[0]["stck_cntg_hour"] == "204500"
    assert {(bar["stck_prpr"], bar["cntg_vol"]) for bar in future if bar["stck_cntg_hour"] > "203500"} == {
        (str(truth["price"][-1]), "0")
    }


def test_wrong_requests_are_refused(evening: tuple) -> None:
    """A time that is none, an unknown division, a TR id that is not the call's, a token that is none."""
    rest, _, _ = evening
    answers = [
        rest.call(CONCLUSION, "005930"),
        rest.call(CONCLUSION, "005930", FID_INPUT_HOUR_1="2500"),
        rest.call(LAST, "005930", division="ZZ"),
    ]
    headers = {"authorization": f"Bearer {rest.token}", "tr_id": "FHKST01010100"}
    url = f"{rest.url}/uapi/domestic-stock/v1/quotations/{LAST}"
    answers.append(rest.session.get(url, headers=headers, timeout=5))
    headers = {"authorization": "Bearer nonsense", "tr_id": "FHKST01010300"}
    answers.append(rest.session.get(url, headers=headers, timeout=5))

    assert ["OPSQ2001", "OPSQ2001", "OPSQ2001", "OPSQ0002", "EGW00121"] == [a.json()["msg_cd"] for a in answers]


def test_what_the_stream_sent_is_what_rest_says(home: Path) -> None:
    """While the market trades: time, price, size and cumulative volume of every H0STCNT0 record."""
    options = ("--always-open", "--symbols", "005930", "--kis-loss", "0", "--books-per-s", "20")
    with start_simulator(home, *options, "--kis-calls-per-s", "10000") as running:
        client = KisClient(running.ready)
        client.subscribe("H0STCNT0", "005930")
        client.read_for(2.0)
        running.send_command("market rest")
        client.read_for(0.5)
        client.close()
        rows = ask(KisRest(running.ready), CONCLUSION, "235959")["output2"]
    sent = {
        record[13]: (record[1], record[2], record[12], record[10], record[11])
        for record in client.collect_records("H0STCNT0")
    }
    told = {
        row["acml_vol"]: tuple(row[name] for name in ("stck_cntg_hour", "stck_prpr", "cnqn", "askp", "bidp"))
        for row in rows
    }
    both = sent.keys() & told.keys()

    assert len(both) >= min(len(sent), 30) > 5
    assert {volume: sent[volume] for volume in both} == {volume: told[volume] for volume in both}


def test_minute_bars_of_a_past_date_are_its_trades(evening: tuple) -> None:
    """Up to 120, newest first; into the days before if they are asked for; today's are those of the other call."""
    rest, _, earlier = evening
    dates = (earlier["exch_s"] + KOREA_S).astype("datetime64[s]").astype("datetime64[D]").astype(str)
    thursday, wednesday = (bars_by_hand(earlier[dates == f"2026-11-{day}"]) for day in (19, 18))

    def past(date: str, at: str, more: str) -> list[dict[str, str]]:
        return ask(rest, PAST_BARS, at, FID_INPUT_DATE_1=date, FID_PW_DATA_INCU_YN=more, FID_FAKE_TICK_INCU_YN="")[
            "output2"
        ]

    bars = past("20261119", "110000", "N")
    both = past("20261119", list(thursday)[4], "Y")
    today = past("20261120", "110000", "N")

    assert [at for at in thursday if at <= "110000"][:-121:-1] == [bar["stck_cntg_hour"] for bar in bars]
    assert [thursday[bar["stck_cntg_hour"]] for bar in bars] == list(map(numbers_of, bars))
    assert len(both) == 120 and {bar["stck_bsop_date"] for bar in both} == {"20261119", "20261118"}
    assert [wednesday[bar["stck_cntg_hour"]] for bar in both if bar["stck_bsop_date"] == "20261118"] == [
        numbers_of(bar) for bar in both if bar["stck_bsop_date"] == "20261118"
    ]
    assert today[:30] == ask(rest, BARS, "110000", FID_PW_DATA_INCU_YN="N")["output2"]
    assert past("20250102", "110000", "Y") == []
    for wrong in ({}, {"FID_INPUT_DATE_1": "2026-11-19"}, {"FID_INPUT_DATE_1": "20261319"}):
        answer = rest.call(PAST_BARS, "005930", FID_INPUT_HOUR_1="110000", FID_PW_DATA_INCU_YN="N", **wrong)
        assert answer.json()["msg_cd"] == "OPSQ2001"


@pytest.mark.parametrize("name", [CONCLUSION, BARS, LAST, PAST_BARS, BOOK, "inquire-price", "search-info"])
def test_an_unknown_code_is_refused_by_every_call(evening: tuple, name: str) -> None:
    """Never a price of zero with success; neither is a stock that the venue does not list."""
    rest, _, _ = evening
    more = {"FID_INPUT_HOUR_1": "110000", "FID_INPUT_DATE_1": "20261119", "FID_PW_DATA_INCU_YN": "N"}

    answers = [rest.call(name, "999999", **more), rest.call(name, "", **more), rest.call(name, "005930", "NX", **more)]

    assert [("7", "KIER2620")] * 3 == [(answer.json()["rt_cd"], answer.json()["msg_cd"]) for answer in answers]
    assert {"rt_cd", "msg_cd", "msg1"} == set(answers[0].json())
    assert "0" == rest.call(name, "005930", **more).json()["rt_cd"]


def test_lower_case_names_and_two_slashes_are_taken(evening: tuple) -> None:
    """As public clients write them."""
    rest, _, _ = evening
    query = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": "005930", "FID_INPUT_HOUR_1": "110000"}
    lower = {name.lower(): value for name, value in query.items()}

    answers = [rest.get(CONCLUSION, asked, slashes).json() for asked in (query, lower) for slashes in ("/", "//")]

    assert answers[0]["output2"] and answers.count(answers[0]) == 4
    assert "OPSQ2001" == rest.get(CONCLUSION, lower | {"fid_input_hour_1": "2500"}).json()["msg_cd"]
    token = rest.session.post(
        f"{rest.url}//oauth2/tokenP", json={"appkey": rest.app_key, "appsecret": "S" * 180}, timeout=5
    )
    assert rest.token == token.json()["access_token"]


def test_business_days_are_the_calendars_and_go_on_by_key_or_by_date(evening: tuple) -> None:
    """24 a page; KIOK0500 and F, then M, while more follow (docs/wire/kis.md 5)."""
    rest, _, _ = evening
    blank = {"CTX_AREA_NK": "", "CTX_AREA_FK": ""}

    first = rest.get(HOLIDAYS, {"BASS_DT": "20261120"} | blank)
    body = first.json()
    second = rest.get(
        HOLIDAYS, {"BASS_DT": "20261120", "CTX_AREA_NK": body["ctx_area_nk"], "CTX_AREA_FK": ""}, tr_cont="N"
    )
    by_date = rest.get(HOLIDAYS, {"BASS_DT": "20261214"} | blank)

    days = {row["bass_dt"]: row for row in body["output"] + second.json()["output"]}
    assert (len(days), body["rt_cd"], body["msg_cd"]) == (48, "0", "KIOK0500")
    assert ("F", "M") == (first.headers["tr_cont"], second.headers["tr_cont"])
    assert second.json()["output"] == by_date.json()["output"]
    assert [days[f"202611{day}"]["wday_dvsn_cd"] for day in range(20, 29)] == [
        "06",
        "07",
        *(f"0{n}" for n in range(1, 8)),
    ]
    assert {at for at, row in days.items() if row["opnd_yn"] == "N"} >= {"20261121", "20261122", "20261225"}
    assert {at for at, row in days.items() if row["opnd_yn"] == "Y"} >= {"20261120", "20261123", "20261224"}
    assert "OPSQ2001" == rest.get(HOLIDAYS, blank).json()["msg_cd"]


def test_the_book_is_that_of_the_market_and_a_minute_to_come_shows_the_unfinished_one(tmp_path: Path) -> None:
    """Ten levels, sizes, changes, totals and price; bars asked ahead have the form of the recorded answer."""
    (tmp_path / "collector.toml").write_text('[clock]\nstart = "2026-11-20T10:00:02+09:00"\nspeed = 1.0\n')
    options = ("--symbols", "005930", "--history", "300", "--truth", str(tmp_path / "t"), "--books-per-s", "30")
    with start_simulator(tmp_path, *options, "--kis-calls-per-s", "10000") as running:
        rest = KisRest(running.ready)
        wait_until("the market has moved", lambda: len(load(tmp_path / "t").books) > 40)
        running.send_command("market rest")
        book = ask(rest, BOOK)
        bars = ask(rest, BARS, "101500", FID_PW_DATA_INCU_YN="N")["output2"]
        running.stop()
        truth = load(tmp_path / "t")
    last, levels = truth.books[-1], book["output1"]
    minute = truth.trades[(truth.trades["exch_s"] + KOREA_S) % 86_400 >= 36_000]

    for name, field in (
        ("ask_price", "askp"),
        ("bid_price", "bidp"),
        ("ask_size", "askp_rsqn"),
        ("bid_size", "bidp_rsqn"),
    ):
        assert last[name].tolist() == [int(levels[f"{field}{level}"]) for level in range(1, 11)]
    assert (last["total_ask"], last["total_bid"]) == (int(levels["total_askp_rsqn"]), int(levels["total_bidp_rsqn"]))
    changes = [[int(levels[f"{side}_rsqn_icdc{level}"]) for level in range(1, 11)] for side in ("askp", "bidp")]
    assert changes == [(last[name] - truth.books[-2][name]).tolist() for name in ("ask_size", "bid_size")]
    assert int(book["output2"]["stck_prpr"]) == truth.trades["price"][-1]
    assert levels["new_mkop_cls_code"] == "20"

    assert len(minute) and bars[0]["stck_cntg_hour"] == "101500"
    assert int(bars[0]["cntg_vol"]) == minute["size"].sum()
    fillers = [bar for bar in bars[1:] if bar["stck_cntg_hour"] >= "100000"]
    assert [f"10{minute:02}00" for minute in range(14, -1, -1)] == [bar["stck_cntg_hour"] for bar in fillers]
    assert {bar["cntg_vol"] for bar in fillers} == {"0"}


@pytest.mark.parametrize(
    ("file", "name", "at"),
    [
        ("kis_rest_inquire-time-itemconclusion_005930_20260527.json", CONCLUSION, "150822"),
        ("kis_rest_inquire-time-itemchartprice_005930_20260527.json", BARS, "204500"),
    ],
)
def test_an_answer_has_the_names_and_types_of_the_recorded_one(evening: tuple, file: str, name: str, at: str) -> None:
    """In their order, in both outputs; every value is text of the same form."""
    path = SAMPLES / "2026-11" / file
    if not path.exists():
        pytest.skip(f"recorded answers are not beside the checkout: {path}")
    rest, _, _ = evening
    recorded = json.loads(path.read_text(encoding="utf-8"))

    answer = ask(rest, name, at, FID_PW_DATA_INCU_YN="N")

    assert list(recorded["output1"]) == list(answer["output1"])
    assert [list(row) for row in recorded["output2"][:1]] * 30 == [list(row) for row in answer["output2"]]
    for row, mine in ((recorded["output1"], answer["output1"]), (recorded["output2"][0], answer["output2"][0])):
        forms = {
            field: (form(text), form(mine[field]))
            for field, text in row.items()
            if field not in ("hts_kor_isnm", "rprs_mrkt_kor_name")
        }
        assert all(one == other for one, other in forms.values()), forms


def form(text: str) -> str:
    """A value with its digits folded, sign left out: "-1.25" is "0.0"."""
    return re.sub(r"\d+", "0", text.lstrip("-"))
