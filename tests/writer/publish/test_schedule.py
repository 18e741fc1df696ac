"""When hours are due."""

from __future__ import annotations

from support.writer_data import NINE_NS, SECOND_NS

from writer.publish.schedule import PublicationSchedule

HOUR = 3600 * SECOND_NS
GRACE, LATE = 20, 600


def test_an_hour_is_due_a_grace_after_its_end_and_late_rows_share_a_part() -> None:
    """Calendar past the hour, then real seconds: grace the first time, late_every afterwards."""
    hours = PublicationSchedule(GRACE, LATE)
    hours.add_rows({NINE_NS: 10})

    assert hours.due_hours(NINE_NS + HOUR - 1, 1000) == []
    assert hours.due_hours(NINE_NS + HOUR, 1001) == []
    assert hours.due_hours(NINE_NS + HOUR, 1001 + GRACE - 1) == []
    assert hours.due_hours(NINE_NS + HOUR, 1001 + GRACE) == [NINE_NS]

    hours.mark_published(NINE_NS, 10, NINE_NS + HOUR)
    hours.add_rows({NINE_NS: 11})

    assert hours.due_hours(NINE_NS + HOUR, 2000) == []
    assert hours.due_hours(NINE_NS + HOUR, 2000 + LATE - 1) == []
    assert hours.due_hours(NINE_NS + HOUR, 2000 + LATE) == [NINE_NS]


def test_an_hour_published_by_a_stop_before_its_end_still_gets_its_grace() -> None:
    """A part made in the open hour does not make what follows late."""
    hours = PublicationSchedule(GRACE, LATE)
    hours.add_rows({NINE_NS: 10})
    hours.mark_published(NINE_NS, 10, NINE_NS + HOUR // 2)
    hours.add_rows({NINE_NS: 20})

    assert hours.due_hours(NINE_NS + HOUR, 5000) == []
    assert hours.due_hours(NINE_NS + HOUR, 5000 + GRACE) == [NINE_NS]


def test_an_hour_waits_for_rows_that_are_not_settled_but_not_for_ever() -> None:
    """Due with its grace if all are settled, else as soon as they are, at most `hold` later."""
    hold = 30
    hours = PublicationSchedule(GRACE, LATE, hold)
    hours.add_rows({NINE_NS: 10})

    assert hours.due_hours(NINE_NS + HOUR, 0, settled_row=9) == []
    assert hours.due_hours(NINE_NS + HOUR, GRACE + hold - 1, settled_row=9) == []
    assert hours.due_hours(NINE_NS + HOUR, GRACE, settled_row=10) == [NINE_NS]
    assert hours.due_hours(NINE_NS + HOUR, GRACE + hold, settled_row=9) == [NINE_NS]


def test_a_failure_is_not_tried_again_at_once() -> None:
    """Postponed until the time given."""
    hours = PublicationSchedule(GRACE, LATE)
    hours.add_rows({NINE_NS: 10})
    hours.due_hours(NINE_NS + HOUR, 0)
    hours.postpone(NINE_NS, 500)

    assert hours.due_hours(NINE_NS + HOUR, 499) == []
    assert hours.due_hours(NINE_NS + HOUR, 500) == [NINE_NS]


def test_hours_that_are_done_are_forgotten_in_the_end() -> None:
    """A writer that runs for months remembers two days of hours."""
    hours = PublicationSchedule(GRACE, LATE)
    for n in range(100):
        hours.add_rows({NINE_NS + n * HOUR: n + 1})
        hours.mark_published(NINE_NS + n * HOUR, n + 1, NINE_NS + 200 * HOUR)

    hours.prune(set())

    assert len(hours.hours) == 48
