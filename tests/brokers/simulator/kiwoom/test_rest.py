"""Kiwoom's REST market data, met by a plain client: the rows, the pages, equal to the ground truth (docs/wire/kiwoom.md 5)."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support.vendor_clients import SAMPLES, KiwoomClient, KiwoomRest, SimulatorHandle, extract_rows, start_simulator

from brokers.simulator.ground_truth import load

Start = Callable[..., SimulatorHandle]
SYMBOLS = ("005930", "000660", "0074K0", "005930_NX", "005930_AL")
TICKS = {"stk_cd": "005930", "tic_scope": "1", "upd_stkpc_tp": "0"}
PRINTS = {"stk_cd": "005930", "tdy_pred": "1", "tic_min": "0", "tm": ""}
UNLIMITED = ("--kiwoom-calls-per-s", "10000", "--kiwoom-burst", "10000")
KOREA_S = 9 * 3600


class Evening(NamedTuple):
    """A market after its close, with three days of history, and what the truth says about 005930."""

    rest: KiwoomRest
    earlier: np.ndarray
    today: np.ndarray
    ids: tuple[list[int], list[int]]
    """Of all trades in the truth: of the days before, and of today."""


@pytest.fixture(scope="module")
def evening() -> Iterator[Evening]:
    """20:30 on a Friday: nothing moves any more."""
    root = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    (root / "collector.toml").write_text('[clock]\nstart = "2026-11-20T20:30:00+09:00"\nspeed = 1.0\n')
    options = ("--history", "3000", "--earlier-days", "2", "--earlier-trades", "700", "--truth", str(root / "truth"))
    with start_simulator(root, "--symbols", ",".join(SYMBOLS), *options, *UNLIMITED) as running:
        truth = load(root / "truth")
        mine = [of(trades, b"005930", b"KRX") for trades in (truth.earlier_trades, truth.trades)]
        yield Evening(
            KiwoomRest(running.ready), *mine, (truth.earlier_trades["id"].tolist(), truth.trades["id"].tolist())
        )
    shutil.rmtree(root)


def of(trades: np.ndarray, symbol: bytes, venue: bytes) -> np.ndarray:
    """The trades of one instrument."""
    return trades[(trades["symbol"] == symbol) & (trades["venue"] == venue)]


def stamps(trades: np.ndarray, form: str = "%Y%m%d%H%M%S") -> list[str]:
    """Korean times."""
    local = (trades["exch_s"] + KOREA_S).astype("datetime64[s]").tolist()
    return [f"{at:{form}}" for at in local]


def whole(text: str) -> int:
    """A magnitude."""
    return int(text.lstrip("+-"))


def inner(answer: Any) -> str:
    """The fine-grained code inside return_msg."""
    return answer.json()["return_msg"].split("[")[1].split(":")[0]


def test_the_tick_chart_is_the_truth_of_all_days_newest_first(evening: Evening) -> None:
    """900 rows a page; together every trade of three days once, in order; the last page says that it is the last."""
    pages = list(evening.rest.iterate_pages("ka10079", **TICKS))
    rows = [row for page in pages for row in page][::-1]
    truth = np.concatenate((evening.earlier, evening.today))

    assert [900, 900, 900, 900, 800] == [len(page) for page in pages]
    assert stamps(truth) == [row["cntr_tm"] for row in rows]
    assert truth["price"].tolist() == [int(row["cur_prc"]) for row in rows]
    assert truth["size"].tolist() == [int(row["trde_qty"]) for row in rows]
    assert all(row["cur_prc"] == row["open_pric"] == row["high_pric"] == row["low_pric"] for row in rows)
    assert len({row["cntr_tm"][:8] for row in pages[3]}) == 2


def test_trades_made_at_once_are_numbered_like_others(evening: Evening) -> None:
    """1, 2, 3 ... over the whole market; the days before on their own."""
    earlier, today = evening.ids

    venues = len(SYMBOLS) + 1  # what is on the unified venue are the trades of two
    assert list(range(1, 2 * 700 * venues + 1)) == earlier
    assert list(range(1, 3000 * venues + 1)) == today


def test_volume_summed_back_from_the_day_chart_is_zero_at_the_first_trade(evening: Evening) -> None:
    """ka10081's volume and value are those of the trades, day by day (docs/wire/kiwoom.md 5.10)."""
    days = extract_rows(evening.rest.call("ka10081", stk_cd="005930", base_dt="20261120", upd_stkpc_tp="0"))
    older = extract_rows(evening.rest.call("ka10081", stk_cd="005930", base_dt="20261119", upd_stkpc_tp="0"))
    ticks = [row for page in evening.rest.iterate_pages("ka10079", **TICKS) for row in page]

    assert [day["dt"] for day in days] == ["20261120", "20261119", "20261118"]
    assert older == days[1:]
    for day in days:
        mine = [row for row in ticks if row["cntr_tm"].startswith(day["dt"])]
        value = sum(int(row["trde_qty"]) * int(row["cur_prc"]) for row in mine)
        assert int(day["trde_qty"]) == sum(int(row["trde_qty"]) for row in mine)
        assert int(day["trde_prica"]) == (value + 500_000) // 1_000_000
        assert (int(day["open_pric"]), int(day["cur_prc"])) == (int(mine[-1]["cur_prc"]), int(mine[0]["cur_prc"]))
        assert int(day["high_pric"]) == max(int(row["cur_prc"]) for row in mine)
        assert re.fullmatch(r"\+\d+\.\d\d", day["trde_tern_rt"])


def test_larger_scopes_put_trades_of_one_day_together(evening: Evening) -> None:
    """tic_scope 30: open, high, low and shares of thirty trades each, counted from the day's first."""
    rows = [row for page in evening.rest.iterate_pages("ka10079", **TICKS | {"tic_scope": "30"}) for row in page][::-1]
    today = [row for row in rows if row["cntr_tm"].startswith("20261120")]
    parts = [evening.today[start : start + 30] for start in range(0, len(evening.today), 30)]

    assert [(p["price"][0], p["price"].max(), p["price"].min(), p["price"][-1], p["size"].sum()) for p in parts] == [
        tuple(int(row[name]) for name in ("open_pric", "high_pric", "low_pric", "cur_prc", "trde_qty")) for row in today
    ]


def test_prints_carry_side_quotes_and_a_gapless_cumulative_volume(evening: Evening) -> None:
    """ka10084 by trades: 100 a page, cont-yn to the day's first; acc - |qty| is the next row's acc (docs/wire/kiwoom.md 5.5)."""
    pages = list(evening.rest.iterate_pages("ka10084", **PRINTS))
    rows = [row for page in pages for row in page]
    oldest_first, truth = rows[::-1], evening.today
    marks = ["+" if side > 0 else "-" if side < 0 else "" for side in truth["side"]]

    assert {len(page) for page in pages} == {100}
    assert all(
        int(newer["acc_trde_qty"]) - whole(newer["cntr_trde_qty"]) == int(older["acc_trde_qty"])
        for newer, older in pairwise(rows)
    )
    assert int(rows[-1]["acc_trde_qty"]) == whole(rows[-1]["cntr_trde_qty"])
    assert [f"{m}{size}" for m, size in zip(marks, truth["size"], strict=True)] == [
        row["cntr_trde_qty"] for row in oldest_first
    ]
    assert stamps(truth, "%H%M%S") == [row["tm"] for row in oldest_first]
    assert truth["cum_volume"].tolist() == [int(row["acc_trde_qty"]) for row in oldest_first]
    assert ((truth["cum_value"] + 500_000) // 1_000_000).tolist() == [
        int(row["acc_trde_prica"]) for row in oldest_first
    ]
    for name, field in (("price", "cur_prc"), ("ask_price_1", "pri_sel_bid_unit"), ("bid_price_1", "pri_buy_bid_unit")):
        assert truth[name].tolist() == [whole(row[field]) for row in oldest_first]


def test_prints_start_at_a_minute_and_reach_one_day_back(evening: Evening) -> None:
    """`tm` includes its minute; tdy_pred 2 is the trading day before; no key of another body is taken."""
    rows = extract_rows(evening.rest.call("ka10084", **PRINTS | {"tm": "1009"}))
    before = [row for page in evening.rest.iterate_pages("ka10084", **PRINTS | {"tdy_pred": "2"}) for row in page][::-1]
    until = [at for at in stamps(evening.today, "%H%M%S") if at < "101000"]

    assert until[::-1][:100] == [row["tm"] for row in rows]
    assert evening.earlier["cum_volume"].tolist()[700:] == [int(row["acc_trde_qty"]) for row in before]


def test_minutes_of_prints_come_in_one_answer(evening: Evening) -> None:
    """One row a minute from the first to `tm`, quantity and sums of the minute (docs/wire/kiwoom.md 5.5)."""
    answer = evening.rest.call("ka10084", **PRINTS | {"tic_min": "1", "tm": "1009"})
    rows = extract_rows(answer)
    truth = evening.today[np.array(stamps(evening.today, "%H%M")) <= "1009"]
    minutes = [list(part) for _, part in groupby(truth, key=lambda one: one["exch_s"] // 60)][::-1]

    assert answer.headers["cont-yn"] == "N"
    assert [sum(int(one["size"]) for one in minute) for minute in minutes] == [
        int(row["cntr_trde_qty"]) for row in rows
    ]
    assert [int(minute[-1]["cum_volume"]) for minute in minutes] == [int(row["acc_trde_qty"]) for row in rows]


def test_the_last_prints_are_the_first_of_the_day_list_with_value_in_won(evening: Evening) -> None:
    """ka10003: thirty rows; only the unit of the value differs (docs/wire/kiwoom.md 5.4)."""
    last = extract_rows(evening.rest.call("ka10003", stk_cd="005930"))
    day = extract_rows(evening.rest.call("ka10084", **PRINTS))[:30]
    value = {"acc_trde_prica"}

    assert evening.today["cum_value"].tolist()[:-31:-1] == [int(row["acc_trde_prica"]) for row in last]
    assert [{k: v for k, v in row.items() if k not in value} for row in day] == [
        {k: v for k, v in row.items() if k not in value} for row in last
    ]


@pytest.mark.parametrize("minutes", ["1", "5", "60"])
def test_minute_bars_add_up_to_the_day_and_are_stamped_with_their_start(evening: Evening, minutes: str) -> None:
    """sum(trde_qty) is the last acc_trde_qty; highs and lows are the trades'; prices signed by yesterday's close."""
    asked = TICKS | {"tic_scope": minutes, "base_dt": ""}
    rows = [row for page in evening.rest.iterate_pages("ka10080", **asked) for row in page]
    bars = [row for row in rows if row["cntr_tm"].startswith("20261120")][::-1]
    length_s = 60 * int(minutes)
    parts = [list(part) for _, part in groupby(evening.today, key=lambda one: one["exch_s"] // length_s)]
    base = int(extract_rows(evening.rest.call("ka10095", stk_cd="005930"))[0]["base_pric"])

    assert [stamps(np.array([part[0]["exch_s"] // length_s * length_s], [("exch_s", "<i8")]))[0] for part in parts] == [
        bar["cntr_tm"] for bar in bars
    ]
    assert sum(int(bar["trde_qty"]) for bar in bars) == int(bars[-1]["acc_trde_qty"]) == evening.today["size"].sum()
    assert [max(int(one["price"]) for one in part) for part in parts] == [whole(bar["high_pric"]) for bar in bars]
    assert [min(int(one["price"]) for one in part) for part in parts] == [whole(bar["low_pric"]) for bar in bars]
    for bar in bars:
        price = whole(bar["cur_prc"])
        assert bar["cur_prc"][0] == ("+" if price > base else "-" if price < base else str(price)[0])
        assert int(bar["pred_pre"]) == price - base


def test_minute_bars_begin_with_the_newest_day_asked_for(evening: Evening) -> None:
    """base_dt; no row of the day after."""
    rows = extract_rows(evening.rest.call("ka10080", **TICKS | {"base_dt": "20261119"}))

    assert rows[0]["cntr_tm"].startswith("20261119")
    assert rows[-1]["cntr_tm"].startswith("20261118")


def test_a_snapshot_of_many_tells_their_volume(evening: Evening) -> None:
    """ka10095: up to a hundred codes, unknown ones left out; one more is 1634, for ever (docs/wire/kiwoom.md 5.8)."""
    rows = extract_rows(evening.rest.call("ka10095", stk_cd="|".join(("999999", *SYMBOLS, *["000660"] * 90))))
    refused = evening.rest.call("ka10095", stk_cd="|".join(["000660"] * 101))

    assert [*SYMBOLS, *["000660"] * 90] == [row["stk_cd"] for row in rows]
    assert int(rows[0]["trde_qty"]) == evening.today["cum_volume"][-1]
    assert whole(rows[0]["cur_prc"]) == evening.today["price"][-1]
    assert (refused.status_code, refused.json()["return_code"], inner(refused)) == (429, 5, "1634")


def test_venues_are_different_lines(evening: Evening) -> None:
    """The suffix selects the venue; the answer's code has none (docs/wire/kiwoom.md 4)."""
    volumes = {}
    for code in ("005930", "005930_NX", "005930_AL"):
        answer = evening.rest.call("ka10081", stk_cd=code, base_dt="20261120", upd_stkpc_tp="0")
        assert answer.json()["stk_cd"] == "005930"
        volumes[extract_rows(answer)[0]["trde_qty"]] = extract_rows(evening.rest.call("ka10003", stk_cd=code))[0][
            "stex_tp"
        ]

    assert sorted(volumes.values()) == ["KRX", "NXT", "통합"]


@pytest.mark.parametrize(
    ("tr", "body"),
    [
        ("ka10079", TICKS | {"stk_cd": "999999"}),
        ("ka10079", TICKS | {"stk_cd": "000660_NX"}),
        ("ka10080", TICKS | {"base_dt": "20250102"}),
        ("ka10081", {"stk_cd": "123456", "base_dt": "20261120", "upd_stkpc_tp": "0"}),
        ("ka10084", PRINTS | {"tm": "0001"}),
        ("ka10003", {"stk_cd": "999999"}),
    ],
)
def test_nothing_is_one_row_of_empty_values(evening: Evening, tr: str, body: dict[str, str]) -> None:
    """Unknown codes and days that are not kept: success, the usual names, no value (docs/wire/kiwoom.md 1.5)."""
    answer = evening.rest.call(tr, **body)
    (row,) = extract_rows(answer)
    usual = extract_rows(evening.rest.call(tr, **body | {"stk_cd": "005930", "base_dt": "20261120", "tm": ""}))[0]

    assert list(usual) == list(row)
    assert set(row.values()) == {""}
    assert answer.headers["cont-yn"] == "N"


@pytest.mark.parametrize(
    ("tr", "body", "code"),
    [
        ("ka10079", TICKS | {"stk_cd": "59300"}, "1902"),
        ("ka10079", TICKS | {"tic_scope": "7"}, "1517"),
        ("ka10079", TICKS | {"tic_scope": ""}, "1511"),
        ("ka10080", TICKS | {"base_dt": "2026-11-20"}, "1517"),
        ("ka10081", {"stk_cd": "005930", "upd_stkpc_tp": "0"}, "1511"),
        ("ka10084", PRINTS | {"tdy_pred": "3"}, "1517"),
        ("ka10084", PRINTS | {"tm": "2460"}, "1517"),
        ("ka10003", {}, "1511"),
        ("ka10095", {}, "1511"),
        ("ka10055", {"stk_cd": "005930", "tdy_pred": "3"}, "1517"),
        ("ka10099", {"mrkt_tp": "1"}, "1517"),
        ("ka10087", {"stk_cd": "005930_NX"}, "1902"),
        *((tr, {"stk_cd": "999999"}, "1902") for tr in ("ka10001", "ka10004", "ka10087", "ka10100")),
        *((tr, {}, "1511") for tr in ("ka10001", "ka10004", "ka10087", "ka10099", "ka10100")),
        *((tr, {"stk_cd": "000660_NX"}, "1903") for tr in ("ka10001", "ka10004")),
        ("ka99999", {}, "1505"),
    ],
)
def test_wrong_requests_have_their_codes(evening: Evening, tr: str, body: dict[str, str], code: str) -> None:
    """HTTP 200, return_code 2, the fine code inside the text; no list, no page headers (docs/wire/kiwoom.md 1.5)."""
    answer = evening.rest.call(tr, **body)

    assert (answer.status_code, answer.json()["return_code"], inner(answer)) == (200, 2, code)
    assert set(answer.json()) == {"return_code", "return_msg"}
    assert "cont-yn" not in answer.headers


def test_a_tr_is_bound_to_its_path_and_its_scheme(evening: Evening) -> None:
    """1504 on another path; 1515 for a scheme nobody knows."""
    elsewhere = evening.rest.call("ka10079", path="stkinfo", **TICKS)
    headers = {"api-id": "ka10079", "authorization": "Basic abc"}
    scheme = evening.rest.session.post(evening.rest.url + "chart", json=TICKS, headers=headers, timeout=5)

    assert ["1504", "1515"] == [inner(elsewhere), inner(scheme)]


def test_without_a_good_key_it_is_page_one_again(evening: Evening) -> None:
    """cont-yn or next-key forgotten, an invented key, a key of another TR or body: no error, the first page."""
    first = evening.rest.call("ka10079", **TICKS)
    key = first.headers["next-key"]
    other = evening.rest.call("ka10084", **PRINTS).headers["next-key"]
    second = extract_rows(evening.rest.call("ka10079", key, **TICKS))
    again = extract_rows(evening.rest.call("ka10079", key, **TICKS))
    wrong = [evening.rest.call("ka10079", bad, **TICKS) for bad in ("nonsense", other)]
    wrong.append(evening.rest.call("ka10079", key, **TICKS | {"stk_cd": "000660"}))
    headers = {"authorization": f"Bearer {evening.rest.token}", "api-id": "ka10079", "next-key": key}
    wrong.append(evening.rest.session.post(evening.rest.url + "chart", json=TICKS, headers=headers, timeout=5))
    firsts = [
        extract_rows(first),
        extract_rows(first),
        extract_rows(evening.rest.call("ka10079", **TICKS | {"stk_cd": "000660"})),
    ]

    assert len(key) <= 50
    assert second == again != extract_rows(first)
    assert [*firsts, extract_rows(first)] == [extract_rows(answer) for answer in wrong]


def test_page_keys_can_become_stale_or_be_left_out() -> None:
    """--kiwoom-key-life-s: after that it is page 1 again; --kiwoom-prints-unpaged: ka10084 has none."""
    root = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    options = ("--always-open", "--symbols", "005930", "--history", "1000", "--kiwoom-key-life-s", "0.0001")
    with start_simulator(root, *options, "--kiwoom-prints-unpaged") as running:
        running.send_command("market rest")
        rest = KiwoomRest(running.ready)
        first = rest.call("ka10079", **TICKS)
        second = rest.call("ka10079", first.headers["next-key"], **TICKS)
        prints = rest.call("ka10084", **PRINTS)
    shutil.rmtree(root)

    assert extract_rows(first) == extract_rows(second)
    assert (len(extract_rows(prints)), prints.headers["cont-yn"], prints.headers["next-key"]) == (100, "N", "")


def test_what_the_socket_sent_is_what_rest_says(home: Path) -> None:
    """While the market moves: every 0B is a row of ka10084, field by field, and its trade in ka10079."""
    options = (
        "--always-open",
        "--symbols",
        "005930",
        "--kiwoom-loss",
        "0",
        "--kiwoom-merge",
        "0",
        "--books-per-s",
        "60",
    )
    with start_simulator(home, *options, *UNLIMITED) as running:
        client = KiwoomClient(running.ready)
        client.request("REG", ["005930"], ["0B"])
        client.read_for(2.0)
        running.send_command("market rest")
        client.read_for(0.5)
        client.close()
        rest = KiwoomRest(running.ready)
        prints = [row for page in rest.iterate_pages("ka10084", **PRINTS) for row in page]
        ticks = [row for page in rest.iterate_pages("ka10079", **TICKS) for row in page]
    fids = {
        "20": "tm",
        "10": "cur_prc",
        "11": "pred_pre",
        "12": "pre_rt",
        "27": "pri_sel_bid_unit",
        "15": "cntr_trde_qty",
    }
    fids |= {"28": "pri_buy_bid_unit", "25": "sign", "13": "acc_trde_qty", "14": "acc_trde_prica", "228": "cntr_str"}
    by_volume = {row["acc_trde_qty"]: row for row in prints}
    sent = [entry["values"] for entry in client.collect_entries("0B")]

    assert len(sent) > 30
    assert [{fid: by_volume[values["13"]][name] for fid, name in fids.items()} for values in sent] == [
        {fid: values[fid] for fid in fids} for values in sent
    ]
    assert [row["tm"] for row in prints] == [row["cntr_tm"][8:] for row in ticks[: len(prints)]]
    assert [row["cntr_trde_qty"].lstrip("+-") for row in prints] == [row["trde_qty"] for row in ticks[: len(prints)]]


def flat(rest: KiwoomRest, tr: str, **body: str) -> dict[str, Any]:
    """A successful answer that has no list."""
    answer = rest.call(tr, **body)
    assert (answer.status_code, answer.json()["return_code"]) == (200, 0), answer.text
    return answer.json()


def test_the_sums_of_prints_are_the_prints(evening: Evening) -> None:
    """ka10055: every row of ka10084 in eight fields, page by page, today and the day before (docs/wire/kiwoom.md 5.6)."""
    names = {
        "cntr_tm": "tm",
        "cntr_pric": "cur_prc",
        "pred_pre_sig": "sign",
        "flu_rt": "pre_rt",
        "cntr_qty": "cntr_trde_qty",
    }
    names |= {name: name for name in ("pred_pre", "acc_trde_qty", "acc_trde_prica")}
    for day in ("1", "2"):
        rows = [row for page in evening.rest.iterate_pages("ka10055", stk_cd="005930", tdy_pred=day) for row in page]
        prints = [row for page in evening.rest.iterate_pages("ka10084", **PRINTS | {"tdy_pred": day}) for row in page]
        assert rows == [{name: row[old] for name, old in names.items()} for row in prints]


def test_a_stock_is_told_as_the_market_has_it(evening: Evening) -> None:
    """ka10001: price, range, volume and limits are those of the truth, and of ka10095."""
    told = flat(evening.rest, "ka10001", stk_cd="005930")
    (row,) = extract_rows(evening.rest.call("ka10095", stk_cd="005930"))
    prices = evening.today["price"]

    assert (whole(told["cur_prc"]), whole(told["open_pric"])) == (prices[-1], prices[0])
    assert (whole(told["high_pric"]), whole(told["low_pric"])) == (prices.max(), prices.min())
    assert int(told["trde_qty"]) == evening.today["cum_volume"][-1]
    assert whole(told["250hgst"]) == max(prices.max(), evening.earlier["price"].max())
    same = (
        "stk_cd",
        "stk_nm",
        "base_pric",
        "upl_pric",
        "lst_pric",
        "pred_pre",
        "flu_rt",
        "exp_cntr_pric",
        "exp_cntr_qty",
    )
    assert {name: told[name] for name in same} == {name: row[name] for name in same}
    assert (told["pre_sig"], told["trde_pre"]) == (row["pred_pre_sig"], row["pred_trde_qty_pre"])


def test_master_data_names_the_stocks_of_a_market_and_the_venues_they_have(evening: Evening) -> None:
    """ka10099 and ka10100: zero-padded numbers, nxtEnable where NXT lists it (docs/wire/kiwoom.md 5.9)."""
    rows = extract_rows(evening.rest.call("ka10099", mrkt_tp="0"))
    one = flat(evening.rest, "ka10100", stk_cd="005930")
    base = extract_rows(evening.rest.call("ka10095", stk_cd="005930"))[0]["base_pric"]

    traded = {row["code"]: row["nxtEnable"] for row in rows if row["name"].startswith("SIM ")}
    assert {"005930": "Y", "000660": "N", "0074K0": "N"} == traded
    assert one["code"] == "005930" and {name: one[name] for name in rows[0]} in rows
    assert [row["state"] for row in rows if row["code"] == "001234"] == [
        "증거금100%|거래정지|관리종목|담보대출|신용가능"
    ]
    assert (len(one["listCount"]), len(one["lastPrice"]), int(one["lastPrice"])) == (16, 8, int(base))
    assert [row["marketCode"] for row in extract_rows(evening.rest.call("ka10099", mrkt_tp="10"))] == ["10", "10"]


def test_the_single_price_session_has_its_fields_and_no_trade(evening: Evening) -> None:
    """ka10087: it ended in September 2026."""
    told = flat(evening.rest, "ka10087", stk_cd="005930")

    assert len(told) == 46 + 2
    assert (told["ovt_sigpric_acc_trde_qty"], told["ovt_sigpric_sel_bid_5"]) == ("0", "-0")


def test_the_book_is_the_last_one_of_the_socket(tmp_path: Path) -> None:
    """ka10004: prices, sizes and changes as in 0D; totals are the sums of the levels."""
    options = (
        "--always-open",
        "--symbols",
        "005930",
        "--kiwoom-loss",
        "0",
        "--kiwoom-books-per-s",
        "0",
        "--books-per-s",
        "20",
    )
    with start_simulator(tmp_path, *options, *UNLIMITED) as running:
        client = KiwoomClient(running.ready)
        client.request("REG", ["005930"], ["0D"])
        client.read_for(1.5)
        running.send_command("market rest")
        client.read_for(0.5)
        client.close()
        told = flat(KiwoomRest(running.ready), "ka10004", stk_cd="005930")
    fids = client.collect_entries("0D")[-1]["values"]

    assert fids["21"] == told["bid_req_base_tm"]
    for side, price, size, change in (("sel", 41, 61, 81), ("buy", 51, 71, 91)):
        names = [f"{side}_fpr", *(f"{side}_{level}th_pre" for level in range(2, 11))]
        assert [fids[str(price + n)] for n in range(10)] == [told[f"{name}_bid"] for name in names]
        assert [fids[str(size + n)] for n in range(10)] == [told[f"{name}_req"] for name in names]
        assert [fids[str(change + n)] for n in range(10)] == [told[f"{side}_{n}th_pre_req_pre"] for n in range(1, 11)]
        assert int(told[f"tot_{side}_req"]) == sum(int(told[f"{name}_req"]) for name in names)


@pytest.mark.parametrize(
    ("file", "tr"),
    [
        ("2026-11/kiwoom_rest_ka10001_006360_20260819_1628.json", "ka10001"),
        ("2026-11/kiwoom_rest_ka10095_006360_20260819_1628.json", "ka10095"),
        ("kiwoom/rest_ka10004_005930_20260918.json", "ka10004"),
    ],
)
def test_a_recorded_snapshot_has_the_same_names_and_types(evening: Evening, file: str, tr: str) -> None:
    """In the same order; what is known there and here has the same form."""
    if not (SAMPLES / file).exists():
        pytest.skip(f"recorded answers are not beside the checkout: {SAMPLES / file}")
    recorded = json.loads((SAMPLES / file).read_text(encoding="utf-8"))
    recorded = recorded.get("body", recorded)
    told = flat(evening.rest, tr, stk_cd="005930")
    assert list(recorded) == list(told)
    pairs = [(recorded, told)]
    if tr == "ka10095":
        pairs = [(recorded["atn_stk_infr"][0], told["atn_stk_infr"][0])]

    for theirs, mine in pairs:
        assert list(theirs) == list(mine)
        assert {name: type(value) for name, value in theirs.items()} == {
            name: type(value) for name, value in mine.items()
        }
        for name, value in theirs.items():
            if isinstance(value, str) and value and mine[name] and name not in ("stk_nm", "return_msg"):
                assert form(value).lstrip("+-") == form(mine[name]).lstrip("+-"), name


def test_recorded_answers_have_the_same_names_and_forms(evening: Evening) -> None:
    """Names in order, and each value's form, of the recorded ka10084 and ka10080 and the documented ka10079."""
    if not SAMPLES.exists():
        pytest.skip("specs/samples is not beside the checkout")
    asked = {
        "rest_ka10079_005930_doc.json": ("ka10079", TICKS),
        "rest_ka10080_005930_20260720_rows.json": ("ka10080", TICKS),
        "rest_ka10084_006360_head.json": ("ka10084", PRINTS),
    }
    for name, (tr, body) in asked.items():
        recorded = json.loads((SAMPLES / "kiwoom" / name).read_text(encoding="utf-8"))["body"]
        answer = evening.rest.call(tr, **body).json()
        assert set(recorded) <= set(answer), name
        (key,) = (key for key, value in recorded.items() if isinstance(value, list))
        trimmed = [field for field in answer[key][0] if field in recorded[key][0]]
        assert list(recorded[key][0]) == trimmed, name
        rows = [row for page in evening.rest.iterate_pages(tr, **body) for row in page]
        for field in recorded[key][0]:
            forms = {form(row[field]) for row in rows}
            assert {form(row[field]) for row in recorded[key]} <= forms | {"", "+0", "-0", "0"}, (name, field, forms)


def form(text: str) -> str:
    """A value with its digits folded: "+34950" is "+0", "1.25" is "0.0"."""
    return re.sub(r"\d+", "0", text)
