"""What is registered where: books on both, ticks by shard, limits before anything starts."""

from __future__ import annotations

import msgspec
import pytest

from brokers.broker import PlanError
from brokers.plan import plan
from conf.settings import Settings, load


@pytest.fixture
def settings(tmp_path):
    """Settings of an empty home with this universe, these shards and other tables changed."""

    def make(kr: list[str], A: tuple[str, ...] = (), B: tuple[str, ...] = (), **tables) -> Settings:
        base = msgspec.to_builtins(load(tmp_path))
        base["universe"]["kr"] = kr
        base["shards"] = {"A": list(A), "B": list(B)}
        for name, values in tables.items():
            base[name] |= values
        return msgspec.convert(base, Settings)

    return make


def asked(plans, name: str, stream: str) -> list[str]:
    """Instruments of one stream on a broker's connections."""
    return [str(r.instrument) for c in plans[name] for r in c.registrations if r.stream == stream]


def test_books_go_to_both_and_ticks_are_shared_out_in_turn(settings):
    """Every book on both brokers, every tick on exactly one, in order of priority."""
    kr = ["005930", "000660", "373220", "005930_NX", "Q500001"]

    plans = plan(settings(kr))

    assert kr == asked(plans, "kis", "orderbook") == asked(plans, "kiwoom", "orderbook")
    assert asked(plans, "kis", "tick") == ["005930", "373220", "Q500001"]
    assert asked(plans, "kiwoom", "tick") == ["000660", "005930_NX"]
    assert [len(connections) for connections in plans.values()] == [1, 1]


def test_named_groups_are_kept_and_the_rest_goes_to_the_shorter(settings):
    """[shards] decides; what it leaves open evens the lists out."""
    plans = plan(settings(["000001", "000002", "000003", "000004"], B=("000001", "000002")))

    assert asked(plans, "kis", "tick") == ["000003", "000004"]
    assert asked(plans, "kiwoom", "tick") == ["000001", "000002"]


@pytest.mark.parametrize(("down", "up"), [("kis", "kiwoom"), ("kiwoom", "kis")])
def test_the_ticks_of_a_broker_that_is_off_go_to_the_other(settings, down, up):
    """Nothing is left out because a broker is disabled."""
    kr = ["005930", "000660"]

    plans = plan(settings(kr, A=("005930",), B=("000660",), **{down: {"enabled": False}}))

    assert [up] == list(plans)
    assert kr == asked(plans, up, "tick")


def test_both_off_is_an_empty_plan(settings):
    """Nothing enabled, nothing planned."""
    assert plan(settings(["005930"], kis={"enabled": False}, kiwoom={"enabled": False})) == {}


def test_kis_counts_registrations_and_kiwoom_symbols(settings):
    """27 books and 14 ticks fill 41 registrations exactly; for Kiwoom 27 symbols are 27 whatever their streams."""
    kr = [f"{n:06}" for n in range(27)]

    plans = plan(settings(kr, kiwoom={"registrations": 27}))

    assert len(plans["kis"][0].registrations) == 41
    assert len(plans["kiwoom"][0].registrations) == 40


def test_what_does_not_fit_is_named(settings):
    """Not the first that fit, but those beyond."""
    kr = [f"{n:06}" for n in range(30)]

    with pytest.raises(PlanError, match=r"kis\.registrations: 45 registrations are wanted, 41 are allowed") as caught:
        plan(settings(kr))
    assert "000022 tick, 000024 tick, 000026 tick, 000028 tick: take" in str(caught.value)
    with pytest.raises(PlanError, match=r"kiwoom\.registrations: 30 symbols are wanted, 10 are allowed.*and 23 more"):
        plan(settings(kr, kis={"registrations": 100}, kiwoom={"registrations": 10}))
