"""Rows of the broker's lists that cannot be read: they cost themselves, never their page, and complete no day."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest
from support.day_fixture import DAY, FinishedDay, a_finished_day, assert_matches_truth, lose_between
from support.process_tree import run_collectorctl, temporary_home
from support.spoiled_rest import Spoil, spoiled_rest

from collectorctl.demo.environment import SimulatorProcess, set_addresses

CLOSING = "888888"
US_DAY = "2026-11-19"
US_SETTINGS = """
[universe]
us = ["NAS.AAPL"]
[clock]
start = "2026-11-20T12:00:00-05:00"
[us]
enabled = true
[recover]
calls_per_s_first = 10.0
max_calls_per_s = 10.0
"""


@pytest.fixture(scope="module")
def the_day() -> Iterator[FinishedDay]:
    """A day of 005930, over."""
    with a_finished_day(names=["005930"]) as day:
        yield day


@contextmanager
def spoiled(day: FinishedDay, spoil: Spoil) -> Iterator[None]:
    """The home's Kiwoom answers through `spoil`."""
    settings = day.root / "collector.toml"
    text, url = settings.read_text(), day.simulator.addresses["kiwoom"]["rest_url"]
    with spoiled_rest(url, spoil) as other:
        settings.write_text(text.replace(url, other))
        try:
            yield
        finally:
            settings.write_text(text)


def insert_rows(api_id: str, name: str, time_field: str) -> Spoil:
    """Rows that are no trades stand between, before and behind the others."""

    def spoil(called: str, body: dict[str, Any]) -> None:
        if called == api_id:
            rows = body[name]
            closing = [rows[0] | {time_field: code} for code in (CLOSING, "999999", f"20261120{CLOSING}")]
            body[name] = [closing[0], *rows[:3], dict.fromkeys(rows[0], ""), None, *rows[3:], *closing[1:], "?"]

    return spoil


def spoil_row(api_id: str, name: str, find: Callable[[dict[str, str]], bool], **fields: object) -> Spoil:
    """The rows that `find` names have these fields."""

    def spoil(called: str, body: dict[str, Any]) -> None:
        if called == api_id:
            body[name] = [row | fields if find(row) else row for row in body[name]]

    return spoil


LISTS = {
    "chart": ("ka10079", "stk_tic_chart_qry", "cntr_tm", lose_between("10:00", "14:00")),
    "trades": ("ka10084", "tdy_pred_cntr", "tm", lose_between("13:00", "13:04")),
    "bars": ("ka10080", "stk_min_pole_chart_qry", "cntr_tm", lose_between("13:00", "13:04")),
    "days": ("ka10081", "stk_dt_pole_chart_qry", "dt", lose_between("13:00", "13:04")),
}


@pytest.mark.parametrize("kind", LISTS)
def test_rows_that_are_none_cost_neither_a_page_nor_the_proof(the_day: FinishedDay, kind: str) -> None:
    """Empty rows, closing codes for a time, null and text among the rows: the rest proves the day, and they are reported."""
    api_id, name, time_field, lost = LISTS[kind]
    the_day.clear_data()
    the_day.publish_live(lost, ["005930"])

    with spoiled(the_day, insert_rows(api_id, name, time_field)):
        ran = the_day.run("recover", "--date", DAY)
        certificates = the_day.recover()

    assert "PROVEN" == certificates["005930"]["certificate"], certificates["005930"]["reasons"]
    assert_matches_truth(the_day)
    assert "cannot be read" in ran.output


@pytest.mark.parametrize("kind", ["chart", "trades"])
def test_a_trade_that_cannot_be_read_stays_a_gap_and_the_day_is_incomplete_until_it_can(
    the_day: FinishedDay, kind: str
) -> None:
    """It is never taken for volume off the book; the next run asks again and proves the day."""
    *_, lost = LISTS[kind]
    the_day.clear_data()
    the_day.publish_live(lost, ["005930"])
    trades = the_day.true_trades("005930")
    victim = trades[lost(trades)][5]
    at = pd.Timestamp(victim["exch_s"], unit="s", tz="Asia/Seoul")
    volume = str(victim["cum_volume"])

    def spoil(called: str, body: dict[str, Any]) -> None:
        for row in body.get("tdy_pred_cntr", []):
            if row["acc_trde_qty"] == volume:
                row["cntr_trde_qty"] = ""
        for row in body.get("stk_tic_chart_qry", []):
            if row["cntr_tm"] == f"{at:%Y%m%d%H%M%S}" and row["trde_qty"] == str(victim["size"]):
                row["trde_qty"] = None

    with spoiled(the_day, spoil):
        certificate = the_day.recover()["005930"]
    assert "INCOMPLETE" == certificate["certificate"]
    assert any("cannot be read" in reason for reason in certificate["reasons"])
    assert certificate["missing_shares"] < int(trades[lost(trades)]["size"].sum())

    assert "PROVEN" == the_day.recover()["005930"]["certificate"]
    assert_matches_truth(the_day)


def test_a_minute_that_cannot_be_read_explains_no_gap(the_day: FinishedDay) -> None:
    """Of a day whose lists leave a trade out, a bar that cannot be read is no witness that nothing was traded."""
    lost = lose_between("13:00", "13:04")
    the_day.clear_data()
    the_day.publish_live(lost, ["005930"])
    trades = the_day.true_trades("005930")
    victim = trades[lost(trades)][5]
    minute = f"{pd.Timestamp(victim['exch_s'], unit='s', tz='Asia/Seoul'):%Y%m%d%H%M}00"

    def spoil(called: str, body: dict[str, Any]) -> None:
        if called == "ka10084":
            left = [row for row in body["tdy_pred_cntr"] if row["acc_trde_qty"] != str(victim["cum_volume"])]
            body["tdy_pred_cntr"] = left
        for row in body.get("stk_min_pole_chart_qry", []):
            if row["cntr_tm"] == minute:
                row["trde_qty"] = ""

    with spoiled(the_day, spoil):
        certificate = the_day.recover()["005930"]

    assert "INCOMPLETE" == certificate["certificate"]
    assert "1 minute bars cannot be read" in certificate["reasons"]


def test_a_day_whose_total_cannot_be_read_is_incomplete(the_day: FinishedDay) -> None:
    """Without the official volume nothing is proven."""
    the_day.clear_data()
    the_day.publish_live(lose_between("13:00", "13:04"), ["005930"])

    with spoiled(the_day, spoil_row("ka10081", "stk_dt_pole_chart_qry", lambda row: True, trde_qty="")):
        certificate = the_day.recover()["005930"]

    assert "INCOMPLETE" == certificate["certificate"]
    assert "the official volume is not known" in certificate["reasons"]


def test_a_us_bar_that_cannot_be_read_costs_no_page_and_its_day_is_incomplete_until_it_can() -> None:
    """The last bar of a page has no time, one no volume, null stands between: the others are stored; the next run asks again."""
    options = ("--earlier-days", "2", "--earlier-trades", "400")
    pages = []

    def spoil(called: str, body: dict[str, Any]) -> None:
        if called == "HHDFS76950200":
            rows = body["output2"]
            pages.append(len(rows))
            rows[-1]["xhms"], rows[3]["evol"] = CLOSING, None
            rows.insert(5, None)

    with temporary_home(US_SETTINGS) as root, SimulatorProcess(root, root / "truth", *options) as simulator:
        set_addresses(root, simulator.addresses)
        settings, url = root / "collector.toml", simulator.addresses["us"]["rest_url"]
        text = settings.read_text()
        with spoiled_rest(url, spoil) as other:
            settings.write_text(text.replace(url, other))
            first = recover_us(root)
        bars = len(pd.read_parquet(root / "data" / "us" / "bar_1m"))
        settings.write_text(text)
        second = recover_us(root)

    assert len(pages) > 1
    assert first["certificate"] == "INCOMPLETE" and second["certificate"] == "MINUTE_ONLY"
    assert any("cannot be read: recover again" in reason for reason in first["reasons"])
    assert 0 < second["minutes"] - bars <= 2 * len(pages)


def recover_us(root: Path) -> dict[str, Any]:
    """The certificate of a run."""
    ran = run_collectorctl(root, "recover", "--market", "us", "--date", US_DAY, "--json", check=False)
    return msgspec.json.decode(ran.stdout)[0]
