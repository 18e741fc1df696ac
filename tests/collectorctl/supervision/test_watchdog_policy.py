"""The watchdog's rules: what is done at which look, and what is never done."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from collectorctl.supervision.watchdog.policy import (
    MEMORY_RESTART_INTERVAL_S,
    Action,
    ProcessObservation,
    WatchdogLimits,
    WatchdogPolicy,
)

LIMITS = WatchdogLimits(
    stale_s=15,
    start_s=40,
    terminate_timeout_s=90,
    fatal_restart_s=60,
    disk_alarm_s=30,
    memory_mb={"kis": 250, "kiwoom": 250, "writer": 900},
)
LOOK_S = 5.0


def well(name: str = "kis", pid: int = 7, **other: object) -> ProcessObservation:
    """A process as it should be; `other` is what is not."""
    return ProcessObservation(name, "RUNNING", pid, 0.5, True, 60.0)._replace(**other)


def looks(
    dog: WatchdogPolicy, *rounds: list[ProcessObservation], since_s: float = 1000.0
) -> list[list[tuple[str, str, int]]]:
    """What is ordered at each of several looks, five seconds apart, as (what, name, pid)."""
    return [[order[:3] for order in dog.decide(seen, since_s + number * LOOK_S)] for number, seen in enumerate(rounds)]


def test_a_process_that_beats_and_is_lean_is_left_alone() -> None:
    """No order in a hundred looks."""
    assert [[]] * 100 == looks(WatchdogPolicy(LIMITS), *[[well(), well("writer", 8)]] * 100)


def test_a_hung_process_is_aborted_at_the_second_look_and_killed_from_the_third_on() -> None:
    """First look: nothing yet. SIGABRT once, so that one stack is left; SIGKILL until it is gone."""
    hung = [well(heartbeat_age_s=16.0), well("kiwoom", 8)]

    ordered = looks(WatchdogPolicy(LIMITS), *[hung] * 4)

    assert [[], [("SIGABRT", "kis", 7)], [("SIGKILL", "kis", 7)], [("SIGKILL", "kis", 7)]] == ordered


def test_the_reason_is_told_with_the_order() -> None:
    """How old the heartbeat is, how much memory of how much."""
    dog = WatchdogPolicy(LIMITS)
    dog.decide([well(heartbeat_age_s=16.0)], 0.0)

    assert dog.decide([well(heartbeat_age_s=21.0)], 5.0) == [Action("SIGABRT", "kis", 7, "no heartbeat for 21 s")]


def test_a_heartbeat_between_two_looks_begins_the_count_again() -> None:
    """A machine that stood still makes every heartbeat old, once."""
    old, fresh = [well(heartbeat_age_s=99.0)], [well()]

    assert [[]] * 5 == looks(WatchdogPolicy(LIMITS), old, fresh, old, fresh, old)


def test_a_process_that_waits_for_the_disk_is_never_signalled_and_reported_once() -> None:
    """However old its heartbeat gets; one alarm after disk_alarm_s, and after the wait it is judged from the beginning."""
    waiting, hung = (well(heartbeat_age_s=99.0, waits_for_disk=waits) for waits in (True, False))

    ordered = looks(WatchdogPolicy(LIMITS), *[[waiting]] * 50, [hung], [hung])

    assert [6] == [at for at, orders in enumerate(ordered[:50]) if orders]
    assert [("alarm", "kis", 7)] == ordered[6]
    assert [[], [("SIGABRT", "kis", 7)]] == ordered[50:]


def test_a_process_that_should_leave_and_waits_for_the_disk_is_given_time() -> None:
    """SIGTERM for its memory, and then the disk holds it up for minutes: no SIGABRT."""
    fat = well(own_memory_mb=300.0, waits_for_disk=True)

    ordered = looks(WatchdogPolicy(LIMITS), *[[fat]] * 60)

    assert {"SIGTERM", "alarm"} == {order[0] for orders in ordered for order in orders}


def test_a_successor_is_not_blamed_for_its_predecessor() -> None:
    """The look after a restart counts as the first, for hanging and for memory."""
    dog = WatchdogPolicy(LIMITS)

    assert [[], []] == looks(dog, [well(heartbeat_age_s=16.0)], [well(pid=8, heartbeat_age_s=16.0)])
    assert [[], []] == looks(dog, [well(own_memory_mb=300.0)], [well(pid=8, own_memory_mb=300.0)])


def test_exactly_at_the_limit_is_within_it() -> None:
    """15 s and 250 MB are what was allowed."""
    assert [[]] * 4 == looks(WatchdogPolicy(LIMITS), *[[well(heartbeat_age_s=15.0, own_memory_mb=250.0)]] * 4)


def test_a_process_that_never_makes_a_page_is_hung_after_start_s() -> None:
    """Counted from when the watchdog first saw it, so that no step of the wall clock can make it old."""
    silent = [well(heartbeat_age_s=None, healthy=False, state="STARTING")]

    ordered = looks(WatchdogPolicy(LIMITS), *[silent] * 12)

    assert [[]] * 10 == ordered[:10]  # at 0 to 40 s nothing, at 45 s for the first time
    assert [[("SIGABRT", "kis", 7)], [("SIGKILL", "kis", 7)]] == ordered[10:]


def test_pages_that_vanish_all_at_once_are_no_hang_and_return() -> None:
    """The ring directory was deleted: every process has start_s to make its page again, and nobody is aborted."""
    names = ("kis", "kiwoom", "gapfill", "writer")
    beating = [well(name, 7 + number) for number, name in enumerate(names)]
    blind = [process._replace(heartbeat_age_s=None, healthy=False) for process in beating]

    assert [[]] * 118 == looks(WatchdogPolicy(LIMITS), *[beating] * 100, *[blind] * 8, *[beating] * 10)


def test_both_brokers_are_never_restarted_at_once_for_missing_pages() -> None:
    """Two that make no page are replaced one after the other: the second when the first one's successor is healthy."""
    dog = WatchdogPolicy(LIMITS)
    kis, kiwoom = (well(name, pid, heartbeat_age_s=None, healthy=False) for name, pid in (("kis", 7), ("kiwoom", 8)))
    assert [[]] * 10 == looks(dog, *[[kis, kiwoom]] * 10)

    ordered = looks(
        dog,
        [kis, kiwoom],
        [kis, kiwoom],
        [kis._replace(pid=17), kiwoom],
        [kis._replace(pid=17, heartbeat_age_s=0.5), kiwoom],
        [well("kis", 17), kiwoom],
        [well("kis", 17), kiwoom],
        [well("kis", 17), kiwoom],
        since_s=1000.0 + 10 * LOOK_S,
    )

    assert ordered[:2] == [[("SIGABRT", "kis", 7)], [("SIGKILL", "kis", 7)]]
    assert ordered[2:5] == [[], [], []]
    assert ordered[5:] == [[("SIGABRT", "kiwoom", 8)], [("SIGKILL", "kiwoom", 8)]]


def test_while_the_watchdogs_own_page_cannot_be_made_nobody_is_blamed_for_a_missing_one() -> None:
    """A restart would not help: the new process could make no page either. A hung one whose page is there is still replaced."""
    dog = WatchdogPolicy(LIMITS)
    blind = [well(heartbeat_age_s=None, healthy=False), well("kiwoom", 8, heartbeat_age_s=16.0)]

    ordered = [dog.decide(blind, 1000.0 + number * LOOK_S, can_make_pages=False) for number in range(100)]

    assert {order.name for orders in ordered for order in orders} == {"kiwoom"}


@given(st.data())
def test_whatever_vanishes_no_two_processes_are_under_orders_for_missing_pages(data: st.DataObject) -> None:
    """Pages come and go, orders are obeyed late or at once: at every instant at most one process is being replaced for it."""
    dog, pages, next_pid = WatchdogPolicy(LIMITS), dict[str, bool](), 10
    pids = {"kis": 1, "kiwoom": 2, "writer": 3}
    for number in range(60):
        if number % 20 == 0:
            pages = {name: data.draw(st.booleans(), label=name) for name in pids}
        seen = [
            well(name, pid, heartbeat_age_s=0.5 if pages[name] else None, healthy=pages[name])
            for name, pid in pids.items()
        ]
        orders = dog.decide(seen, number * LOOK_S)
        assert len({order.name for order in orders}) <= 1
        for order in orders:
            if order.command == "SIGKILL":
                pids[order.name], next_pid = next_pid, next_pid + 1


def test_a_successor_without_a_page_gets_its_own_time() -> None:
    """Thirty seconds of one process and thirty of the next are no forty of either."""
    first, second = (well(pid=pid, heartbeat_age_s=None, healthy=False) for pid in (7, 8))

    assert [[]] * 14 == looks(WatchdogPolicy(LIMITS), *[[first]] * 7, *[[second]] * 7)


def test_what_does_not_run_or_is_stopping_is_not_judged_by_its_page() -> None:
    """A stopped process leaves an old page; one that drains is supervisord's to time."""
    for state, pid in (("STOPPED", 0), ("EXITED", 0), ("BACKOFF", 0), ("STOPPING", 7)):
        assert [[]] * 4 == looks(WatchdogPolicy(LIMITS), *[[well(state=state, pid=pid, heartbeat_age_s=500.0)]] * 4)


def test_one_that_somebody_stopped_stays_stopped() -> None:
    """`supervisorctl stop kis` is a decision; only FATAL is started again."""
    assert [[]] * 100 == looks(
        WatchdogPolicy(LIMITS), *[[well(state="STOPPED", pid=0, heartbeat_age_s=None, healthy=False)]] * 100
    )


def test_one_that_supervisord_gave_up_is_started_again_for_ever() -> None:
    """The first time fatal_restart_s after it was seen so, then every fatal_restart_s."""
    fatal = [well(state="FATAL", pid=0, heartbeat_age_s=None, healthy=False, own_memory_mb=None)]

    ordered = looks(WatchdogPolicy(LIMITS), *[fatal] * 49)

    assert [12, 24, 36, 48] == [at for at, orders in enumerate(ordered) if orders]
    assert [("start", "kis", 0)] == ordered[12]


def test_one_that_came_up_in_between_waits_the_full_time_again() -> None:
    """fatal_restart_s counts from the last time it was given up."""
    fatal, up = [well(state="FATAL", pid=0)], [well()]

    ordered = looks(WatchdogPolicy(LIMITS), *[fatal] * 10, up, *[fatal] * 13)

    assert [23] == [at for at, orders in enumerate(ordered) if orders]


def test_a_fat_process_is_asked_to_leave_at_the_second_look_once() -> None:
    """SIGTERM, and then it is given time; the others stay."""
    fat = [well(own_memory_mb=251.0), well("kiwoom", 8)]

    assert [[], [("SIGTERM", "kis", 7)], [], []] == looks(WatchdogPolicy(LIMITS), *[fat] * 4)


def test_one_look_over_the_limit_is_forgiven() -> None:
    """Memory that was given back is no leak."""
    fat, lean = [well(own_memory_mb=300.0)], [well()]

    assert [[]] * 5 == looks(WatchdogPolicy(LIMITS), fat, lean, fat, lean, fat)


def test_a_second_fat_process_waits_until_the_first_ones_successor_works() -> None:
    """Both brokers gone at once would be a hole in the books."""
    kis, kiwoom = well(own_memory_mb=300.0), well("kiwoom", 8, own_memory_mb=300.0)
    gone = well(pid=0, state="EXITED", heartbeat_age_s=None, healthy=False, own_memory_mb=None)
    connecting, streaming = well(pid=9, healthy=False), well(pid=9)

    ordered = looks(
        WatchdogPolicy(LIMITS), [kis, kiwoom], [kis, kiwoom], [gone, kiwoom], [connecting, kiwoom], [streaming, kiwoom]
    )

    assert [[], [("SIGTERM", "kis", 7)], [], [], [("SIGTERM", "kiwoom", 8)]] == ordered


def test_a_successor_that_does_not_come_to_work_is_waited_for_no_longer_than_leave_s() -> None:
    """A broker in an outage must not let the other grow until the kernel ends it."""
    kis, kiwoom = well(own_memory_mb=300.0), well("kiwoom", 8, own_memory_mb=300.0)
    retrying = well(pid=9, healthy=False)

    ordered = looks(WatchdogPolicy(LIMITS), [kis, kiwoom], [kis, kiwoom], *[[retrying, kiwoom]] * 20)

    assert [20] == [at for at, orders in enumerate(ordered) if orders == [("SIGTERM", "kiwoom", 8)]]


def test_the_writer_is_restarted_last() -> None:
    """Also when a broker has been over its limit for one look only."""
    writer, lean = well("writer", 5, own_memory_mb=1000.0), well()
    fat = well(own_memory_mb=300.0)
    after = well(pid=9)

    ordered = looks(WatchdogPolicy(LIMITS), [writer, lean], [writer, fat], [writer, fat], [writer, after])

    assert [[], [], [("SIGTERM", "kis", 7)], [("SIGTERM", "writer", 5)]] == ordered


def test_one_that_does_not_leave_is_treated_as_hung() -> None:
    """terminate_timeout_s after the SIGTERM: two looks, SIGABRT, SIGKILL."""
    fat = [well(own_memory_mb=300.0)]

    ordered = looks(WatchdogPolicy(LIMITS), *[fat] * 24)
    done = {at: orders for at, orders in enumerate(ordered) if orders}

    assert {1: [("SIGTERM", "kis", 7)], 21: [("SIGABRT", "kis", 7)], 22: [("SIGKILL", "kis", 7)]} == {
        at: done[at] for at in (1, 21, 22)
    }
    assert {1, 21, 22, 23} == set(done)


def test_one_that_needs_its_memory_is_not_restarted_again_and_again() -> None:
    """Over the limit at once after such a restart: the limit is too low, and a restart every ten seconds would cost data."""
    dog = WatchdogPolicy(LIMITS)
    looks(dog, *[[well(own_memory_mb=300.0)]] * 2)
    successor = [well(pid=8, own_memory_mb=300.0)]

    ordered = looks(dog, *[successor] * 130, since_s=1010.0)

    assert [round((MEMORY_RESTART_INTERVAL_S - 5) / LOOK_S)] == [at for at, orders in enumerate(ordered) if orders]


def test_a_fat_process_that_hangs_gets_one_order_a_look() -> None:
    """SIGABRT and SIGTERM at once would be no order."""
    assert [[], [("SIGABRT", "kis", 7)]] == looks(
        WatchdogPolicy(LIMITS), *[[well(heartbeat_age_s=20.0, own_memory_mb=300.0)]] * 2
    )


def test_processes_without_a_limit_may_grow() -> None:
    """Only what the settings name is judged for memory."""
    assert [[]] * 3 == looks(WatchdogPolicy(LIMITS), *[[well("other", 4, own_memory_mb=9999.0)]] * 3)


_seen = st.builds(
    ProcessObservation,
    st.sampled_from(["kis", "kiwoom", "writer"]),
    st.sampled_from(["RUNNING", "STARTING", "STOPPING", "STOPPED", "EXITED", "BACKOFF", "FATAL"]),
    st.sampled_from([0, 7, 8]),
    st.none() | st.sampled_from([0.0, 14.0, 16.0]),
    st.booleans(),
    st.none() | st.sampled_from([50.0, 300.0, 1000.0]),
    st.sampled_from(["", "a day is due"]),
)


@given(st.lists(st.lists(_seen, max_size=3, unique_by=lambda seen: seen.name), max_size=40))
def test_whatever_is_seen_every_order_has_cause(rounds: list[list[ProcessObservation]]) -> None:
    """Signals go to a process that was seen, alive and wrong at this look and the one before; starts to what is FATAL, or due."""
    dog, before = WatchdogPolicy(LIMITS), {}
    for number, processes in enumerate(rounds):
        now = {seen.name: seen for seen in processes}
        orders = dog.decide(processes, number * LOOK_S)
        assert len(orders) == len({order.name for order in orders})
        assert sum(order.command == "SIGTERM" for order in orders) <= 1
        for order in orders:
            seen = now[order.name]
            if order.command == "start":
                assert seen.state == "FATAL" or (seen.due_reason and seen.state in ("EXITED", "STOPPED"))
            else:
                assert order.pid == seen.pid != 0
            if order.command == "SIGABRT":
                assert seen.state in ("RUNNING", "STARTING")
            if order.command == "SIGTERM":
                assert seen.own_memory_mb > LIMITS.memory_mb[seen.name]
        before |= now


def idle(state: str = "EXITED", due: str = "recovery of 2026-11-20 is due") -> ProcessObservation:
    """The program that ends when it is done."""
    return ProcessObservation("recover", state, 0, None, False, None, due)


def test_a_program_that_is_due_is_started_and_not_again_before_revive_s() -> None:
    """Whether it had ended or was never started; one that runs, or is on its way, is left alone."""
    dog = WatchdogPolicy(LIMITS)

    ordered = looks(dog, *[[idle("STOPPED")]] * 12, [idle()])

    assert [[("start", "recover", 0)]] + [[]] * 11 + [[("start", "recover", 0)]] == ordered
    for state in ("STARTING", "RUNNING", "BACKOFF", "STOPPING"):
        assert [[]] == looks(WatchdogPolicy(LIMITS), [idle(state)])


def test_a_program_that_is_not_due_stays_as_it_is() -> None:
    """A hundred looks at one that has ended."""
    assert [[]] * 100 == looks(WatchdogPolicy(LIMITS), *[[idle(due="")]] * 100)
