"""The outbox: which verdicts give lines, whatever is saved and read again in between."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from collectorctl.notify.outbox import LOOKS, MAX_LINES, MAX_MESSAGE_CHARACTERS, Ledger, Line, Outbox, compose
from collectorctl.verdict import Finding, Level, Verdict

LOSS = Finding(Level.ATTENTION, "ring_loss", "kis tick", "7 records", 1, 2, "collectorctl acknowledge")
RESTART = Finding(Level.REPAIRING, "restart", "kis", "restarted 1 time today, goes on", 1, 2)
REPEAT_S = 600.0


def outbox(ledger: Ledger | None = None, min_level: Level = Level.REPAIRING) -> Outbox:
    made = Outbox(ledger or Ledger(), min_level, REPEAT_S)
    made.register(["a"])
    return made


def look(box: Outbox, *findings: Finding, times: int = 1, at_s: float = 0.0, is_complete: bool = True) -> list[str]:
    """The lines that these looks added."""
    before = box.ledger.last_number
    level = max((one.level for one in findings), default=Level.SAFE)
    for _ in range(times):
        box.judged(Verdict(level, list(findings)), is_complete, 0, at_s)
    return [line.text for line in box.ledger.lines if line.number > before]


def test_a_loss_gives_a_line_at_once_and_only_one() -> None:
    """With level, what was lost, and what to do."""
    box = outbox()

    assert look(box, LOSS) == ["ATTENTION ring_loss kis tick: 7 records -> collectorctl acknowledge"]
    assert look(box, LOSS, times=5, at_s=9e9) == []


def test_what_repairs_itself_gives_a_line_at_the_second_look_and_one_when_it_has() -> None:
    """With what has become of it; a flicker gives none."""
    box = outbox()
    note = msgspec.structs.replace(RESTART, level=Level.SAFE, message="restarted 6 times today, the last time 60 s ago")

    assert look(box, RESTART) == look(box) == []
    assert look(box, RESTART, times=LOOKS) == ["REPAIRING restart kis: restarted 1 time today, goes on"]
    assert look(box, note) == look(box, RESTART) == []
    assert look(box, note, times=LOOKS) == ["recovered restart kis: restarted 6 times today, the last time 60 s ago"]
    assert look(box, note, times=LOOKS) == []


def test_without_the_days_incidents_nothing_has_recovered() -> None:
    """A report that is missing or old is no good news."""
    box = outbox()
    look(box, LOSS)

    assert look(box, times=9, is_complete=False) == []
    assert LOSS.message in box.ledger.reported["ring_loss kis tick"].message


def test_a_loss_never_recovers_it_is_acknowledged_or_its_day_is_over() -> None:
    """Only the first gives a line."""
    acknowledged = msgspec.structs.replace(LOSS, level=Level.SAFE, message="7 records, acknowledged")
    box, other = outbox(), outbox()
    look(box, LOSS)
    look(other, LOSS)

    assert look(box, acknowledged, times=LOOKS) == ["acknowledged ring_loss kis tick: 7 records, acknowledged"]
    assert look(other, times=LOOKS) == [] and not other.ledger.reported
    assert len(look(box, acknowledged, LOSS)) == 1


def test_a_loss_that_grows_is_sent_again_but_not_all_the_time() -> None:
    """After the pause, with what it has become."""
    box = outbox()
    look(box, LOSS)
    grown = msgspec.structs.replace(LOSS, message="70 records")

    assert look(box, grown, at_s=REPEAT_S - 1) == []
    assert look(box, grown, at_s=REPEAT_S) == ["ATTENTION ring_loss kis tick: 70 records -> collectorctl acknowledge"]
    assert look(box, grown, at_s=9e9) == []


def test_what_becomes_worse_is_sent_again() -> None:
    """From being repaired to needing a person; not back and forth."""
    box = outbox()
    mild = Finding(Level.REPAIRING, "unhealthy", "kis", "connecting")
    look(box, mild, times=LOOKS)

    assert len(look(box, msgspec.structs.replace(mild, level=Level.ATTENTION))) == 1
    assert look(box, mild, times=9) == look(box, msgspec.structs.replace(mild, level=Level.ATTENTION), times=9) == []


def test_below_the_level_that_was_asked_for_nothing_is_sent() -> None:
    """Neither the finding nor that it is gone."""
    box = outbox(min_level=Level.ATTENTION)

    assert look(box, RESTART, times=9) == look(box, times=9) == []


def test_certified_days_give_a_line_once_and_none_in_a_new_home() -> None:
    """What was certified before the first look is no news; a later run with another result is."""
    box = outbox()
    for text in ("2026-11-19 1 PROVEN", "2026-11-20 1 INCOMPLETE", "2026-11-20 1 INCOMPLETE", "2026-11-20 1 PROVEN"):
        box.certified({"kr": text}, Verdict(Level.SAFE, []), 0, {"kr": "/data/report/2026-11-20.html"})

    assert [line.text for line in box.ledger.lines] == [
        "certified 2026-11-20 1 INCOMPLETE; verdict SAFE, 0 findings; report /data/report/2026-11-20.html",
        "certified 2026-11-20 1 PROVEN; verdict SAFE, 0 findings; report /data/report/2026-11-20.html",
    ]


@given(st.lists(st.tuples(st.sets(st.sampled_from(["x", "y", "z"])), st.booleans(), st.booleans()), max_size=30))
def test_an_outbox_that_is_read_again_at_any_time_repeats_nothing(looks: list[tuple[set[str], bool, bool]]) -> None:
    """Whenever it is restarted, of each finding news and recovery alternate, and each line is delivered once."""
    box, got = outbox(), list[int]()
    for subjects, is_restarted, is_delivered in looks:
        if is_restarted:
            box = outbox(msgspec.json.decode(msgspec.json.encode(box.ledger), type=Ledger))
        look(box, *(Finding(Level.ATTENTION, "unhealthy", name, "dead") for name in subjects))
        if is_delivered and (lines := box.pending("a")):
            got += [line.number for line in lines]
            box.delivered("a", lines[-1].number)
    got += [line.number for line in box.pending("a")]

    assert got == list(range(1, box.ledger.last_number + 1))


def test_each_service_gets_every_line_once_and_a_new_one_those_from_then_on() -> None:
    """What one has not taken waits for it alone, up to a limit."""
    box = outbox()
    box.register(["a", "b"])
    look(box, LOSS)
    box.delivered("a", 1)
    box.register(["a", "b", "c"])

    assert [len(box.pending(name)) for name in "abc"] == [0, 1, 0]
    for number in range(2 * MAX_LINES):
        box.add(Level.SAFE, f"{number}", 0)
    assert len(box.pending("b")) == MAX_LINES
    for name in "abc":
        box.delivered(name, box.ledger.last_number)
    assert box.ledger.lines == []


def test_a_message_has_its_worst_level_its_zone_and_a_limit() -> None:
    """And no line of it is anything but a line."""
    box = outbox()
    look(box, msgspec.structs.replace(LOSS, message="a\nb\x1b[2J"))
    title, text = compose("host:home", box.pending("a"))
    many = [Line(number, 0, Level.SAFE, "x" * 400) for number in range(50)]

    assert title == "collectorctl host:home ATTENTION"
    assert text.startswith("09:00:00 KST ATTENTION ring_loss") and text.isprintable()
    title, text = compose("host:home", many)
    assert title == "collectorctl host:home" and len(text) < MAX_MESSAGE_CHARACTERS + 100
    assert text.endswith("and 42 more: see `collectorctl status`")
