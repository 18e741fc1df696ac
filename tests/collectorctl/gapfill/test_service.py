"""The process that fills gaps, against a vendor that lies, refuses and hangs: nothing wrong is handed over, and it stays."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from support.fake_vendor import (
    FakeVendor,
    Response,
    Rows,
    build_market,
    build_refusal,
    build_response,
    format_settings,
    read_counter,
    read_ring,
    read_vitals,
    respond_correctly,
    start_gapfill,
    write_gap_report,
)
from support.process_tree import temporary_home, wait_until
from support.small_disk import fill_disk, small_disk

from conf.home import Home
from ringbuf.records import FeedId, Session

GAP = slice(50, 62)


@contextmanager
def a_vendor(**options: object) -> Iterator[tuple[Home, FakeVendor]]:
    """A home with a gap of twelve trades in it, and the vendor who knows them."""
    liar = FakeVendor(build_market())
    with temporary_home(format_settings(liar.url, **options)) as root:  # type: ignore[arg-type]
        home = Home(root)
        home.create_directories()
        write_gap_report(home, liar.market[: GAP.start], liar.market[GAP.stop :])
        try:
            yield home, liar
        finally:
            liar.close()


@contextmanager
def at_work(home: Home) -> Iterator[None]:
    """The process runs, and ends when it is asked to."""
    process = start_gapfill(home)
    try:
        wait_until("it works", lambda: (at := read_vitals(home)) and at.pid == process.pid and at.state != "starting")
        yield
        assert process.poll() is None
        process.terminate()
        assert 0 == process.wait(10)
    finally:
        process.kill()
        process.wait()


def changed(rows: Rows, volume: np.int64, **fields: str) -> Rows:
    """One trade is told otherwise."""
    return [row | fields if row["acml_vol"] == str(volume) else row for row in rows]


def test_a_gap_is_filled_with_the_trades_that_happened() -> None:
    """Three pages are needed; the rows carry the session of the calendar and nothing that was not told."""
    with a_vendor() as (home, liar), at_work(home):
        liar.respond = lambda rows: build_response(rows[:7])
        wait_until("the gap is handed over", lambda: len(read_ring(home)))
        ticks = read_ring(home)
        write_gap_report(home, liar.market)
        wait_until("the writer's word is heard", lambda: read_counter(home, "gaps_filled") == 1)
        assert [1, 3, 1] == [read_counter(home, "gaps_asked"), read_counter(home, "calls"), liar.tokens_issued]

    for name in ("exch_ns", "price_e4", "size", "cum_volume"):
        assert np.array_equal(liar.market[GAP][name], ticks[name]), name
    assert [{FeedId.GAPFILL}, {Session.REGULAR}, {0}] == [
        set(ticks[name].tolist()) for name in ("line", "session", "side")
    ]
    assert (ticks["ask_price_1_e4"] == 70_500 * 10_000).all()


def test_while_the_last_room_on_the_disk_is_the_writers_no_gap_is_asked_for() -> None:
    """It says where, how much and what to do; it goes on when there is room again."""
    with a_vendor() as (home, _), small_disk(home.data, 16) as disk:
        with (home.root / "collector.toml").open("a") as settings:
            settings.write("[disk]\nmin_free_bytes = 8000000\n")
        ballast = fill_disk(disk)
        with at_work(home):
            wait_until("it is paused", lambda: read_vitals(home).state == "paused")
            assert "0 MB free, less than disk.min_free_bytes (8 MB)" in read_vitals(home).detail
            time.sleep(1.5)  # longer than the gap needs to settle
            assert [0, 0] == [read_counter(home, "calls"), len(read_ring(home))]
            ballast.unlink()
            wait_until("the gap is handed over", lambda: len(read_ring(home)))
            wait_until("and nothing else is said", lambda: read_vitals(home).state == "running")


LIES: dict[str, Callable[[Rows, np.int64], Response]] = {
    "price": lambda rows, volume: build_response(changed(rows, volume, stck_prpr="1")),
    "size": lambda rows, volume: build_response(changed(rows, volume, cnqn="1000")),
    "time": lambda rows, volume: build_response(changed(rows, volume, stck_cntg_hour="095900")),
    "volume": lambda rows, volume: build_response(changed(rows, volume, acml_vol=str(volume - 1))),
    "empty row": lambda rows, volume: build_response([{}]),
    "text": lambda rows, volume: build_response("rows"),
    "no data": lambda rows, volume: build_refusal(200, "KIER2620")(rows),
}


def test_what_is_not_proven_is_not_handed_over() -> None:
    """One process, a gap and a lie after the other: each is given up, nothing is in the ring; then the truth is."""
    with a_vendor(attempts=1, settle_s=0.0) as (home, liar):
        liar.respond = lambda rows: build_response([])
        with at_work(home):
            wait_until("nothing is given up", lambda: read_counter(home, "gaps_given_up") == 1)
            for number, (name, lie) in enumerate(LIES.items(), 1):
                hole = slice(GAP.start - number, GAP.stop - number)
                volume = liar.market["cum_volume"][hole.start + 5]
                liar.respond = lambda rows, lie=lie, volume=volume: lie(rows, volume)
                write_gap_report(home, liar.market[: hole.start], liar.market[hole.stop :])
                wait_until(
                    f"{name} is given up", lambda number=number: read_counter(home, "gaps_given_up") == number + 1
                )
                assert 0 == len(read_ring(home)), name
            liar.respond = respond_correctly
            write_gap_report(home, liar.market[:80], liar.market[90:])
            wait_until("the truth is handed over", lambda: len(read_ring(home)))

        assert np.array_equal(liar.market["cum_volume"][80:90], read_ring(home)["cum_volume"])


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {"acml_vol": "9" * 18},
        {"cnqn": "-3"},
        {"stck_cntg_hour": "888888"},
        dict.fromkeys(("stck_cntg_hour", "stck_prpr", "acml_vol", "cnqn"), ""),
        {"stck_prpr": None},
        {"cnqn": 7},
    ],
    ids=str,
)
def test_a_row_that_the_vendor_leaves_out_costs_its_own_shares_only(wrong: dict | None) -> None:
    """The list reaches over the whole gap and lacks one row, or has it unreadable: the others are published, once."""
    with a_vendor(attempts=1, settle_s=0.0) as (home, liar):
        left_out = liar.market["cum_volume"][GAP.start + 5]
        liar.respond = lambda rows: build_response(
            changed(rows, left_out, **wrong) if wrong else [row for row in rows if row["acml_vol"] != str(left_out)]
        )
        write_gap_report(home, liar.market[: GAP.start], liar.market[GAP.stop :])
        with at_work(home):
            wait_until("the rest is published", lambda: len(read_ring(home)))
            is_readable = wrong is None or ("acml_vol" in wrong and wrong["acml_vol"])
            assert is_readable or read_counter(home, "rows_rejected") >= 1

        volumes = liar.market[GAP]["cum_volume"]
        assert volumes[volumes != left_out].tolist() == read_ring(home)["cum_volume"].tolist()


def test_an_answer_that_is_none_is_waited_out() -> None:
    """The gap keeps its attempts: afterwards it is filled."""
    with a_vendor(attempts=1) as (home, liar):
        liar.respond = lambda rows: (502, b"<html>maintenance</html>")
        with at_work(home):
            wait_until("it says so", lambda: read_vitals(home).state == "retrying")
            liar.respond = respond_correctly
            wait_until("the gap is handed over", lambda: len(read_ring(home)))
            wait_until("and nothing else is said", lambda: read_vitals(home).state == "running")


def logged(home: Home) -> str:
    """What it wrote."""
    return (home.log / "gapfill.log").read_text()


def test_more_trades_in_a_second_than_a_page_has_are_left_alone() -> None:
    """Paging cannot advance (docs/wire/kis.md 5): given up at once, not asked for again."""
    with a_vendor() as (home, liar):
        liar.market["exch_ns"] = liar.market["exch_ns"][0]
        write_gap_report(home, liar.market[: GAP.start], liar.market[GAP.stop :])
        with at_work(home):
            wait_until("it is given up", lambda: read_counter(home, "gaps_given_up") == 1)
            calls = len(liar.call_times_s)
            time.sleep(1.0)

        assert calls == len(liar.call_times_s) <= 3
        assert "more trades in one second than a page has" in logged(home)


def test_refusals_slow_it_down_and_it_never_asks_faster_than_it_may() -> None:
    """A refusal for the rate halves it; afterwards the gap is filled."""
    with a_vendor(calls_per_s=4.0, settle_s=0.0) as (home, liar):
        liar.respond = build_refusal(500, "EGW00201")
        with at_work(home):
            wait_until("it was refused three times", lambda: read_counter(home, "calls_limited") >= 3)
            liar.respond = respond_correctly
            wait_until("the gap is handed over", lambda: len(read_ring(home)))
            assert 0 == read_counter(home, "gaps_given_up")

        # half a second is what the rate has become by then; up to half a pause may be made up for
        assert (np.diff(liar.call_times_s)[:3] > [0.95, 0.95, 1.2]).all(), liar.call_times_s


def test_it_is_healthy_while_the_vendor_hangs_and_leaves_at_once() -> None:
    """The heart beats during a call that brings no answer."""
    with a_vendor() as (home, liar):

        def hang(rows: Rows) -> Response:
            time.sleep(20)
            return respond_correctly(rows)

        liar.respond = hang
        with at_work(home):
            wait_until("it has asked", lambda: len(liar.call_times_s))
            time.sleep(1.5)
            assert time.monotonic_ns() - read_vitals(home).heartbeat_mono_ns < 1e9
            began = time.monotonic()
        assert time.monotonic() - began < 5


def test_keys_that_are_refused_are_said_and_waited_for() -> None:
    """Refused in words, no second call within the minute."""
    with a_vendor() as (home, liar):
        liar.respond = build_refusal(403, "EGW00206")
        with at_work(home):
            wait_until("it says so", lambda: read_vitals(home).state == "refused")
            assert "EGW00206" in read_vitals(home).detail
            time.sleep(1.0)

        assert 1 == len(liar.call_times_s)


@pytest.mark.parametrize("clock", ["2026-11-20T21:00:00+09:00", "2026-11-23T10:01:00+09:00"])
def test_nothing_is_asked_outside_the_session_nor_of_another_day(clock: str) -> None:
    """In the evening, and on the Monday after."""
    with a_vendor(clock=clock) as (home, liar):
        with at_work(home):
            wait_until("it has come round", lambda: read_vitals(home).state in ("closed_market", "running"))
            time.sleep(1.5)

        assert [] == liar.call_times_s
        assert 0 == liar.tokens_issued


def test_killed_at_any_instant_it_begins_anew_and_asks_no_faster() -> None:
    """A life shorter than the pause between two calls asks nothing; what another hands over again is the same."""
    with a_vendor(calls_per_s=0.4, settle_s=0.0) as (home, liar):
        for lives in (1, 2):
            live_for(home, lambda: False)
            assert [] == liar.call_times_s, lives
        for lives in (1, 2):
            live_for(home, lambda lives=lives: len(read_ring(home)) == 12 * lives, most_s=30)

        volumes = read_ring(home)["cum_volume"].reshape(2, 12)
        assert (volumes == liar.market[GAP]["cum_volume"]).all()
        assert (np.diff(liar.call_times_s) > 2.4).all()


def live_for(home: Home, enough: Callable[[], bool], most_s: float = 2.0) -> None:
    """A process that is killed after a while, or as soon as it is enough."""
    process = start_gapfill(home)
    try:
        give_up = time.monotonic() + most_s
        while not enough() and time.monotonic() < give_up:
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("more", ["[gapfill]\nenabled = false\n", "[kis]\nenabled = false\n", ""])
def test_with_nothing_to_do_it_stays_and_says_why(more: str) -> None:
    """Switched off, without KIS, or without its keys."""
    with temporary_home(f'[paths]\nring = "run/rings"\n{more}') as root:
        if not more:
            (root / ".env").write_text("")
        home = Home(root)
        home.create_directories()
        with at_work(home):
            assert "disabled" == read_vitals(home).state
            assert ("enabled is false" if more else "KIS_APP_KEY") in read_vitals(home).detail
