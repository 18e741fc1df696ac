"""Screens of `status` at the widths that terminals have."""

from __future__ import annotations

import io
import re
import time

import msgspec
import pytest
from rich.cells import cell_len

from collectorctl.capture import CaptureStatus
from collectorctl.commands.inspect import format_verdict_line
from collectorctl.recover.schedule.state import ScheduleState
from collectorctl.supervision.messages import STATUS_MESSAGES
from collectorctl.supervision.status import ProcessStatus, RingLevel, Status, evaluate
from collectorctl.supervision.status_table import format_counter, format_duration, print_status, print_verdict
from collectorctl.supervision.supervisor import Program
from collectorctl.terminal import TextConsole, format_event_value
from collectorctl.verdict import Finding, Level, Verdict
from conf.text.language import Texts
from ringbuf.records import TICK, Venue, empty_records
from ringbuf.vitals import ProcessState, VitalsSnapshot
from writer.feeds.degradation import Degradation, FeedShare
from writer.feeds.feed_report import FeedReport
from writer.volume.gap_tracker import GapTracker
from writer.volume.gaps import GapReport

CAUSE = "not read: kiwoom.tick: record 4711 requested, the ring has 1 to 12: the position is of another ring"
FINDING = Finding(
    Level.ATTENTION,
    "ring_loss",
    "kis orderbook",
    f"666,105 records were lost: {CAUSE}",
    action="collectorctl acknowledge",
)
VERDICT = Verdict(Level.ATTENTION, [FINDING, Finding(Level.SAFE, "restart", "kis", "restarted 6 times today")])
WRITER = ProcessStatus(
    "writer", "RUNNING", 12346, False, f"failing: {CAUSE}", uptime_s=65.0, latency_us={"50": 400.0, "99": 2100.0}
)
STATUS = Status(
    "/home/trader/collector",
    "2026-11-20 10:00:00 KST",
    4711,
    False,
    [
        ProcessStatus("kis", "RUNNING", 12345, True, "streaming", uptime_s=7300.0, own_memory_mb=31.0),
        ProcessStatus(
            "writer",
            "RUNNING",
            12346,
            False,
            f"failing: {CAUSE}",
            uptime_s=65.0,
            latency_us={"50": 400.0, "99": 2100.0},
        ),
    ],
    [RingLevel("kis.orderbook", 16384, 4_000_000, 16_000, full_in_s=12.0)],
    market="KRX regular, NXT regular",
)


def render(width: int, wide: bool = False) -> list[str]:
    out = io.StringIO()
    console = TextConsole(highlight=False, file=out, width=width)
    print_verdict(VERDICT, console)
    print_status(STATUS, console, wide=wide)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_line_is_wider_than_the_terminal_and_every_word_is_whole(width: int) -> None:
    """The cause is never cut: all its words are there, in order."""
    lines = render(width)

    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    assert not [word for word in words if "…" in word]
    for text in (FINDING.message, CAUSE):
        expected = text.split()
        assert any(
            [word for word in words[at : at + 3 * len(expected)] if word in expected][: len(expected)] == expected
            for at in range(len(words))
        )


@pytest.mark.parametrize("width", range(60, 120))
def test_every_word_of_two_cells_a_letter_is_whole_at_any_width(width: int) -> None:
    """A cause that a broker reported in Korean."""
    cause = "지정단말기 인증에 실패했습니다 접속할 주소를 먼저 등록하고 다시 시도하시기 바랍니다"
    out = io.StringIO()
    console = TextConsole(highlight=False, file=out, width=width)
    print_verdict(Verdict(Level.ATTENTION, [Finding(Level.ATTENTION, "unhealthy", "kiwoom", cause)]), console)
    process = ProcessStatus("kiwoom", "RUNNING", 1, False, cause)
    print_status(Status("/home", "", 1, False, [process], []), console)

    assert max(map(cell_len, out.getvalue().splitlines())) <= width
    assert [word for word in out.getvalue().split() if re.search("[가-힣]", word)] == cause.split() * 2


@pytest.mark.parametrize("width", range(80, 121, 8))
def test_names_stand_behind_codes_at_any_width(width: int) -> None:
    """In blind time, degradation, gaps and shortfalls; letters of two cells break no line, and without a table nothing changes."""
    names = {"005930": "삼성전자", "000660": "SK하이닉스", "666105": "숫자"}
    blind = Finding(Level.ATTENTION, "blind", "kr", "no feed delivered the books of 2 symbols, 000660 KRX for 3.0 s")
    short = "does not fit: 2 no redundancy (005930, 000660_NX): add app keys"
    verdict = Verdict(Level.ATTENTION, [FINDING, blind, Finding(Level.SAFE, "shortfall", "universe", short)])
    status = full_status(Texts("en", STATUS_MESSAGES))
    status = msgspec.structs.replace(status, shortfalls=["a"], allocation_summary=short)
    shown = []
    for given in (names, {}):
        out = io.StringIO()
        console = TextConsole(highlight=False, file=out, width=width)
        print_verdict(verdict, console, "en", given)
        print_status(status, console, names=given)
        shown.append(out.getvalue())
    named, plain = (" ".join(text.split()) for text in shown)

    assert max(cell_len(line) for text in shown for line in text.splitlines()) <= width
    assert "000660 SK하이닉스 KRX for 3.0 s" in named and "(005930 삼성전자, 000660_NX SK하이닉스)" in named
    assert named.count("(005930 삼성전자,") == 2  # the finding, and the line of the processes
    assert "666,105 records" in named
    for name in ("삼성전자", "SK하이닉스"):
        named = named.replace(f" {name}", "")
    assert named == plain


def test_pids_memory_and_latencies_are_shown_on_demand() -> None:
    """In milliseconds; the short form has the causes instead."""
    wide, short = "\n".join(render(140, wide=True)), "\n".join(render(140))

    for text in ("12346", "31", "0.40 / 2.10"):
        assert text in wide and text not in short.replace("3141", "")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (600, "10 min"), (9000, "2.5 h"), (200_000, "2.3 d")]
)
def test_a_duration_has_one_unit(seconds: float, text: str) -> None:
    """The largest that says enough."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_wide_form_cuts_nothing_on_a_terminal_that_has_no_room_for_columns(width: int) -> None:
    """Pid, memory and latencies stand below each process then."""
    lines = render(width, wide=True)
    text = " ".join(" ".join(lines).split())

    assert max(map(len, lines)) <= width and "…" not in text
    for figure in ("12346", "own MB 31" if width < 118 else "31", "0.40 / 2.10"):
        assert figure in text
    assert all(word in text for word in CAUSE.split())


def test_an_instant_is_shown_as_its_age_and_a_step_of_the_clock_in_seconds() -> None:
    """Nobody reads nanoseconds."""
    assert format_counter("last_data_mono_ns", time.monotonic_ns() - 2_000_000_000) in (
        "last_data 2.0 s ago",
        "last_data 2.1 s ago",
    )
    assert format_counter("books", 7) == "books 7"
    assert format_event_value("clock_step", -1_500_000_000) == "-1.500000 s"
    assert (format_event_value("ring_loss", 7), format_event_value("started", None)) == ("7", "")


def test_the_verdict_fits_a_status_bar() -> None:
    """The level and the worst finding, or the time."""
    assert format_verdict_line(VERDICT, STATUS.now) == "ATTENTION ring_loss kis orderbook (+1)"
    assert format_verdict_line(Verdict(Level.SAFE, []), STATUS.now) == "SAFE 2026-11-20 10:00:00 KST"


def full_status(texts: Texts) -> Status:
    """A status with every line that there is."""
    rings = [
        RingLevel("kis.tick", 8192, 500_000, 456_399),
        RingLevel("kis.event", 8192, 500_000, 8000, full_in_s=12.4),
        RingLevel("kis.orderbook", 8192, 500_000, 8),
        RingLevel("us.tick", 8192, 0, 0, error="magic is 0"),
        RingLevel("us.event", 0, 0, 0, note=texts("ring_missing")),
    ]
    feeds = [FeedShare("kis", 9000, 0.99, 0.5, 0.97), FeedShare("kiwoom", 0, None, None, None)]
    gaps = GapTracker()
    ticks = empty_records(TICK, 3)
    ticks["symbol"], ticks["venue"], ticks["exch_ns"] = b"005930", Venue.KRX, 1_795_132_800_000_000_000
    ticks["size"], ticks["cum_volume"], ticks["price_e4"] = 10, [1010, 2020, 2020], 10**6
    gaps.add_ticks(ticks)
    report = GapReport("2026-11-20 09:00:00", "", "", 0, gaps.export_symbols())
    processes = []
    for state in ProcessState:
        program = Program("kis", "RUNNING", 1, 1, "")
        vitals = VitalsSnapshot("kis", 1, 0, 0, state, "", {}, {}, 0, [])
        healthy, text = evaluate(program, vitals, 0, texts=texts)
        processes.append(ProcessStatus("kis", "RUNNING", 1, healthy, text, uptime_s=7300.0))
    for late_ns, waits in ((9 * 10**9, True), (9 * 10**9, False)):
        text = evaluate(program, vitals, late_ns, waits, texts)[1]
        processes.append(ProcessStatus("kis", "RUNNING", 1, False, text, uptime_s=600.0))
    for one in (None, program, Program("strategy", "RUNNING", 1, 1, "")):
        text = evaluate(one, None, 0, texts=texts)[1]
        processes.append(ProcessStatus("kis", "RUNNING", 1, False, text, uptime_s=5.0))
    return Status(
        "/home/trader/collector",
        "2026-11-20 10:00:00 KST",
        None,
        False,
        processes,
        rings,
        lost_records=7,
        damaged_records=2,
        market=f"KRX {texts('phase_regular')}, NXT {texts('phase_pre_market')}",
        feed_health=FeedReport("", 60.0, 2900.0, 3100.0, feeds, [Degradation("kis", "005930", "KRX", "silent")]),
        feed_health_age_s=31.0,
        gaps=report,
        us_gaps=report,
        recovery=ScheduleState(True, "", "2026-11-20", 5.0, ""),
        captures=[CaptureStatus("kis", True, 3, 10**6, 5, 1)],
    )


@pytest.mark.parametrize("width", [80, 120])
def test_every_line_is_in_korean_and_no_wider_than_the_terminal(width: int) -> None:
    """In cells; what is not Korean is a name, a state of the broker's, or a figure."""
    out = io.StringIO()
    console = TextConsole(highlight=False, file=out, width=width)
    print_status(full_status(Texts("ko", STATUS_MESSAGES)), console, wide=width > 100, language="ko")
    lines = [line for line in out.getvalue().splitlines() if re.search("[a-zA-Z]", line)]

    assert max(map(cell_len, lines)) <= width
    known = (
        "KST KRX NXT NAS PID MB kis kiwoom us event tick orderbook writer log ms ring_loss tail supervisord silent magic is "
        "collectorctl p50 p99"
    )
    words = {word for line in lines[1:] for word in re.findall("[A-Za-z_][A-Za-z_0-9]+", line)}
    assert words - {"p"} <= set(known.split()), words
