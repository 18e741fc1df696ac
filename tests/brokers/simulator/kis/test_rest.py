"""KIS's REST calls that a gap is filled from: they say what the stream and the truth say (docs/wire/kis.md 5)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.vendor_clients import KisClient, KisRest, start_simulator

from brokers.simulator.ground_truth import load

CONCLUSION, BARS, LAST = "inquire-time-itemconclusion", "inquire-time-itemchartprice", "inquire-ccnl"
KOREA_S = 9 * 3600
ROW = {"stck_cntg_hour", "stck_prpr", "prdy_vrss", "prdy_vrss_sign", "prdy_ctrt", "askp", "bidp", "tday_rltv"}


@pytest.fixture(scope="module")
def evening() -> Iterator[tuple[KisRest, np.ndarray, dict[str, Any]]]:
    """20:30 on a Friday: a client, today's trades of 005930."""
    root = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    (root / "collector.toml").write_text('[clock]\nstart = "2026-11-20T20:30:00+09:00"\nspeed = 1.0\n')
    options = ("--symbols", "005930", "--history", "400", "--truth", str(root / "t"), "--kis-calls-per-s", "10000")
    with start_simulator(root, *options) as running:
        yield KisRest(running.ready), load(root / "t").trades, running.ready
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


def test_minute_bars_are_the_trades_of_their_minutes(evening: tuple) -> None:
    """At most thirty, newest first, up to the time asked for; acml_tr_pbmn is the day's value so far."""
    rest, truth, _ = evening
    bars = ask(rest, BARS, "110000", FID_PW_DATA_INCU_YN="N", FID_ETC_CLS_CODE="")["output2"]
    minutes = [list(part) for _, part in groupby(truth, key=lambda one: one["exch_s"] // 60)]
    by_hand = {
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
    names = ("stck_oprc", "stck_hgpr", "stck_lwpr", "stck_prpr", "cntg_vol", "acml_tr_pbmn")

    assert len(bars) == 30
    assert [at for at in by_hand if at <= "110000"][:-31:-1] == [bar["stck_cntg_hour"] for bar in bars]
    assert [by_hand[bar["stck_cntg_hour"]] for bar in bars] == [tuple(int(bar[name]) for name in names) for bar in bars]
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
    assert rest.call(LAST, "999999").json()["output"] == []
    assert rest.call(LAST, "005930", division="NX").json()["output"] == []


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
