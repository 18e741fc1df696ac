"""Demo scenarios: timed actions on the process tree (pure).

    08:30  the market ──────── kill kis ── start kis ──────────────> 12:00 the close

An action is one line: `kill NAME` (SIGKILL, and stopped), `start NAME`, or any command of the simulator (`kiwoom outage 5`,
`market block 005930 5000`). Faults at the brokers alone are scenarios of the simulator (brokers/simulator/scenarios.py), which it
plays by itself.

Guarantees:
    * Actions are in the order of their times; every scenario of the simulator has a demo scenario.
"""

from __future__ import annotations

from typing import NamedTuple

from brokers.simulator.scenarios import SCENARIOS, TimedCommand
from collectorctl.demo import assertions
from collectorctl.demo.environment import CLOCK_CHANGE, FRIDAY, SYMBOLS, MarketDay
from collectorctl.demo.result import LOSSY, NO_MIDPOINT, Bounds


class DemoScenario(NamedTuple):
    """A demo: its name, description and actions.

    `simulator_scenario` and options of the simulator; `compare_stamps`: whether both feeds stamp equally; assertions on the
    result; `untrusted_feed`: shows another venue than it names, so none of its rows can be right, and no day that rests on it may
    be PROVEN; `universe`: what is collected. `real_time`: the clock has a speed of 1, and the day ends at its close after as many
    seconds as the demo is given. `bounds` of arbitration; `compare_midpoint`: whether both feeds have the midpoint.
    """

    name: str
    description: str
    actions: tuple[TimedCommand, ...] = ()
    simulator_scenario: str = ""
    options: tuple[str, ...] = ()
    compare_stamps: bool = True
    untrusted_feed: str = ""
    universe: tuple[str, ...] = tuple(SYMBOLS)
    market_day: MarketDay = FRIDAY
    assertion: assertions.Assertion = lambda _: []
    real_time: bool = False
    bounds: Bounds = Bounds()
    compare_midpoint: bool = True


MORNING = DemoScenario(
    "morning",
    "kis is killed at 10:30 and stays down for ten minutes; what it missed is recovered after the close",
    (TimedCommand("10:30:00", "kill kis"), TimedCommand("10:40:00", "start kis")),
    assertion=assertions.check_morning,
)

_STOCKS = ("005930", "000660", "0074K0")
VENUES = DemoScenario(
    "venues",
    "three stocks on KRX, on NXT and on both unified; kis is killed at 10:30 and stays down for ten minutes",
    MORNING.actions,
    universe=tuple(f"{stock}{suffix}" for stock in _STOCKS for suffix in ("", "_NX", "_AL")),
    assertion=assertions.check_venues,
)

US_NIGHT = DemoScenario(
    "us-night",
    "New York sets its clocks back in the middle of a session, beside KIS and Kiwoom; us is killed in the second one o'clock",
    (TimedCommand("15:05:00", "kill us"), TimedCommand("15:15:00", "start us")),
    universe=_STOCKS,
    market_day=CLOCK_CHANGE,
)

_NO_CONFLATION = ("--kiwoom-books-per-s", "0")
"""Without its usual conflation: what a feed then lacks is caused by the scenario."""
_WITH_UNIFIED = ("--symbols", ",".join(f"{symbol},{symbol}_AL" for symbol in SYMBOLS))


def _build_fault_scenario(
    scenario: str,
    assertion: assertions.Assertion,
    extra_options: tuple[str, ...] = (),
    compare_stamps: bool = True,
    untrusted_feed: str = "",
) -> DemoScenario:
    """A demo in which the simulator causes every fault, with options of its own."""
    description = SCENARIOS[scenario].description
    return DemoScenario(
        scenario,
        description,
        (),
        scenario,
        (*_NO_CONFLATION, *extra_options),
        compare_stamps,
        untrusted_feed,
        assertion=assertion,
    )


REAL_TIME = (
    DemoScenario(
        "real-time", "both feeds as usual, at a speed of 1", assertion=assertions.check_real_time, real_time=True
    ),
    DemoScenario(
        "both-conflate",
        "both feeds send at most four books a second and symbol, at a speed of 1",
        options=("--kis-books-per-s", "4", "--kiwoom-books-per-s", "4"),
        assertion=assertions.check_both_conflate,
        real_time=True,
        bounds=LOSSY,
    ),
    DemoScenario(
        "lossy-feed",
        "KIS loses one packet in ten, at a speed of 1",
        options=("--kis-loss", "0.1"),
        assertion=assertions.check_lossy_feed,
        real_time=True,
        bounds=LOSSY,
    ),
    DemoScenario(
        "late-feed",
        "Kiwoom is 0.9 s behind KIS, at a speed of 1",
        options=("--kiwoom-latency-ms", "915"),
        assertion=assertions.check_late_feed,
        real_time=True,
    ),
    DemoScenario(
        "no-midpoint",
        "KIS sends books without a midpoint, at a speed of 1",
        options=("--kis-width-profile", "46/59"),
        assertion=assertions.check_no_midpoint,
        real_time=True,
        bounds=NO_MIDPOINT,
        compare_midpoint=False,
    ),
)
"""What one feed has and the other has not, or late: the warped clock of the other demos makes a second of the exchange a
fraction of a millisecond, by which any two books are told apart."""


DEMO_SCENARIOS: dict[str, DemoScenario] = {
    script.name: script
    for script in (
        MORNING,
        VENUES,
        US_NIGHT,
        _build_fault_scenario("kis-dies-at-open", assertions.check_kis_dies_at_open),
        _build_fault_scenario("kiwoom-conflates", assertions.check_kiwoom_conflates),
        _build_fault_scenario("stamp-skew", assertions.check_stamp_skew, compare_stamps=False),
        _build_fault_scenario(
            "wrong-venue", assertions.check_wrong_venue, extra_options=_WITH_UNIFIED, untrusted_feed="kis"
        ),
        _build_fault_scenario("both-lose", assertions.check_both_lose),
        _build_fault_scenario("open-burst", assertions.check_open_burst),
        *REAL_TIME,
    )
}
"""Every demo scenario, by name."""
