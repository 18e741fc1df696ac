"""Screens of `status` at the widths that terminals have."""

from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len

from collectorctl.commands.inspect import format_verdict_line
from collectorctl.supervision.status import ProcessStatus, RingLevel, Status
from collectorctl.supervision.status_table import format_duration, print_status, print_verdict
from collectorctl.terminal import TextConsole
from collectorctl.verdict import Finding, Level, Verdict

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


def test_the_verdict_fits_a_status_bar() -> None:
    """The level and the worst finding, or the time."""
    assert format_verdict_line(VERDICT, STATUS.now) == "ATTENTION ring_loss kis orderbook (+1)"
    assert format_verdict_line(Verdict(Level.SAFE, []), STATUS.now) == "SAFE 2026-11-20 10:00:00 KST"
