"""Recovery of a day with several venues: each from its own calls, against its own official volume, never one for another."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from support.day_fixture import (
    FinishedDay,
    a_finished_day,
    assert_matches_truth,
    collect_grades,
    lose_long_and_short,
    publish_ticks,
    to_tick_records,
)

from ringbuf.records import Venue

NAMES = ["005930", "005930_NX", "005930_AL", "000660_NX"]


@pytest.fixture(scope="module")
def the_day() -> Iterator[FinishedDay]:
    """A day of one symbol on KRX, on NXT and on both unified, and of one on NXT alone."""
    with a_finished_day(names=NAMES, trades="1000") as day:
        yield day


@pytest.fixture
def finished(the_day: FinishedDay) -> FinishedDay:
    """The same day, of which nothing is stored."""
    the_day.clear_data()
    return the_day


def test_each_venue_is_recovered_from_its_own_calls_and_judged_by_its_own_volume(finished: FinishedDay) -> None:
    """Every trade once, of its own venue; the volumes differ, and every one is proven."""
    finished.publish_live(lose_long_and_short, NAMES)

    certificates = finished.recover()

    assert set(NAMES) == set(certificates)
    assert {"PROVEN"} == collect_grades(certificates)
    assert_matches_truth(finished, NAMES)
    volumes = {name: one["official_volume"] for name, one in certificates.items()}
    assert {name: int(finished.true_trades(name)["size"].sum()) for name in NAMES} == volumes
    assert len(NAMES) == len(set(volumes.values()))
    assert all(one["recovered_ticks"] > 0 for one in certificates.values())
    before = finished.read_published()
    finished.recover()
    assert before == finished.read_published()


def test_one_venue_alone_can_be_recovered_and_the_others_stay_as_they_are(finished: FinishedDay) -> None:
    """Their rows lie in the same files, of the same symbol."""
    finished.publish_live(lose_long_and_short, NAMES)
    others = {name: finished.load_stored(name) for name in NAMES if name != "005930_NX"}

    certificates = finished.recover("--symbols", "005930_NX")

    assert {"005930_NX": "PROVEN"} == {name: one["certificate"] for name, one in certificates.items()}
    assert_matches_truth(finished, ["005930_NX"])
    for name, rows in others.items():
        pd.testing.assert_frame_equal(
            rows, finished.load_stored(name), check_dtype=False
        )  # null makes a number a float


@pytest.mark.parametrize(("told", "venue"), [("005930_AL", "KRX"), ("005930", "UN"), ("005930_NX", "KRX")])
def test_ticks_stored_under_another_venue_prove_nothing(finished: FinishedDay, told: str, venue: str) -> None:
    """A line that moved to another venue by mistake: whole as they are there, they do not make this venue's day."""
    ticks = to_tick_records(finished.true_trades(told))
    ticks["venue"] = Venue[venue]
    publish_ticks(finished.root, ticks)
    name = {"KRX": "005930", "UN": "005930_AL"}[venue]
    rows = len(finished.load_stored(name))

    certificates = finished.recover("--symbols", f"{name},000660_NX")

    assert {name: "INCOMPLETE", "000660_NX": "PROVEN"} == {n: one["certificate"] for n, one in certificates.items()}
    assert rows <= len(finished.load_stored(name))
    assert 1 == finished.run("verify", "--date", "2026-11-20").exit_code


def test_a_whole_venue_needs_no_other(finished: FinishedDay) -> None:
    """All of KRX is there, and less than the unified volume: nothing is missing."""
    publish_ticks(finished.root, to_tick_records(finished.true_trades("005930")))

    certificates = finished.recover("--symbols", "005930")

    assert ("PROVEN", 0) == (certificates["005930"]["certificate"], certificates["005930"]["recovered_ticks"])


def test_a_broker_that_answers_for_krx_whatever_is_asked_makes_no_other_venue_proven() -> None:
    """Its lists agree with each other; that they are those of KRX is noticed by the day's figures and by the prints."""
    with a_finished_day("--kiwoom-krx-only", names=NAMES[:3], trades="600") as day:
        day.publish_live(lose_long_and_short, ["005930"])

        day.recover("--mode", "minutes")
        certificates = day.recover()

        assert {"005930": "PROVEN", "005930_NX": "INCOMPLETE", "005930_AL": "INCOMPLETE"} == {
            name: one["certificate"] for name, one in certificates.items()
        }
        assert_matches_truth(day, ["005930"])
        assert {"KRX"} == {
            venue
            for path in (day.root / "data/kr").rglob("*.parquet")
            if "completeness" not in str(path)
            for venue in np.unique(pq.ParquetFile(path).read().column("venue").to_pylist())
        }
