"""The judge's notion of "in flight" when a collector was stopped before it was killed."""

from __future__ import annotations

import pytest

from collectorctl.demo.oracle import MARGIN_NS, compute_certain_until

END_NS = 100 * MARGIN_NS


def margins_before_end(number: float) -> int:
    """So many margins before the end."""
    return END_NS - round(number * MARGIN_NS)


@pytest.mark.parametrize(
    ("stops", "sure"),
    [
        ([], 1.0),
        ([(margins_before_end(9), margins_before_end(5))], 1.0),  # long over
        (
            [(margins_before_end(4), margins_before_end(0))],
            5.0,
        ),  # killed while stopped: what it was sent meanwhile is lost with it
        ([(margins_before_end(4), END_NS + MARGIN_NS)], 5.0),  # its end was seen before the signal was noted
        (
            [(margins_before_end(4), margins_before_end(0.25))],
            4.75,
        ),  # ran again, but too shortly to have read what had gathered
        ([(margins_before_end(4), margins_before_end(0.25)), (margins_before_end(6), margins_before_end(4.5))], 6.25),
        (
            [(margins_before_end(6), margins_before_end(4.5)), (margins_before_end(4), margins_before_end(0.25))],
            6.25,
        ),  # in any order
        ([(END_NS + 1, END_NS + MARGIN_NS)], 1.0),  # the successor's stop
    ],
)
def test_only_time_in_which_the_collector_ran_makes_a_delivery_certain(
    stops: list[tuple[int, int]], sure: float
) -> None:
    """MARGIN_NS of running time before the end, stops not counted."""
    assert margins_before_end(sure) == compute_certain_until(END_NS, stops)
