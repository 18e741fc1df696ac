"""Screens at the widths that terminals have: no word is broken, nothing is cut, nothing is wider than the terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import termios
from datetime import date
from pathlib import Path
from typing import get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from support.process_tree import BIN

from collectorctl.init import create_home
from collectorctl.recover.certificate.certify import Certificate
from collectorctl.recover.progress import ConsoleProgress, show_certificates
from collectorctl.terminal import TextConsole, break_lines, echo

REASON = "the cumulative volume of the ticks ends 1,204 shares below the official figure of the exchange"
WORDS = st.lists(st.text(st.sampled_from("abz-/:가나"), min_size=1, max_size=30), min_size=1, max_size=20)


@given(WORDS, st.integers(20, 130))
def test_a_long_line_breaks_between_words(words: list[str], width: int) -> None:
    """All words, whole and in order; only a word that is too long by itself is wider than the terminal."""
    lines = list(break_lines(" ".join(words), width))

    assert " ".join(lines).split() == " ".join(words).split()
    assert all(cell_len(line) <= width or len(line.split()) == 1 for line in lines)


def test_columns_of_a_line_keep_their_distance() -> None:
    """A line that fits is printed as it is, with the blanks at its beginning."""
    assert list(break_lines("  a    b", 20)) == ["  a    b"]
    assert list(break_lines("", 20)) == [""]


def show(*words: str, home: Path, width: int) -> list[str]:
    """What a command prints on a terminal of that width."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")} | {
        "TERM": "dumb"
    }
    command = [BIN / "collectorctl", "--home", home, *words]
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                shown += (chunk := os.read(leader, 65536))
            except OSError:  # the terminal ends with its last user
                break
            if not chunk:
                break
        process.wait(60)
    os.close(leader)
    return shown.decode().replace("\r", "").splitlines()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that lacks keys, and has a symbol that nobody has room for."""
    root = tmp_path_factory.mktemp("home")
    create_home(root)
    (root / "collector.toml").write_text("[kis]\nmax_subscriptions = 4\n[kiwoom]\nmax_subscriptions = 3\n")
    return root


@pytest.mark.parametrize("words", [("check",), ("plan",), ("status", "--wide")])
@pytest.mark.parametrize("width", [80, 120])
def test_no_line_of_a_command_is_wider_than_the_terminal(home: Path, words: tuple[str, ...], width: int) -> None:
    """Which would break it anywhere; faults on stderr alike. A path that is longer alone stays whole."""
    lines = show(*words, home=home, width=width)

    assert len(lines) > 3
    too_wide = [line for line in lines if cell_len(line.rstrip()) > width and len(line.split()) > 1]
    assert not [line for line in too_wide if "/" not in line], too_wide
    assert not any("…" in line or "Traceback" in line for line in lines), lines


def test_json_and_what_is_no_terminal_have_every_line_whole(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A break within a string is no JSON; a file has no width, whatever letters are in it."""
    shown = "\n".join(show("plan", "--json", home=home, width=40))
    assert msgspec.json.decode(shown)["connections"]

    line = "가나다 라마바 " * 40
    echo(line)
    assert capsys.readouterr().out == f"{line}\n"


@pytest.mark.parametrize("width", [80, 100, 120, 140])
def test_the_reasons_of_certificates_are_whole_at_any_width(width: int) -> None:
    """Beside the figures where there is room, else below the table."""
    out = io.StringIO()
    console = TextConsole(highlight=False, file=out, width=width)
    values = {"symbol": "005930", "venue": "KRX", "certificate": "INCOMPLETE", "reasons": [REASON]}
    figures = {"live_ticks": 123_456, "recovered_ticks": 98_765, "missing_shares": 1_234_567_890}
    blank = {one.name: get_origin(one.type) and [] for one in msgspec.structs.fields(Certificate)}
    bad = Certificate(**(blank | values | figures))
    show_certificates(console, [bad])
    lines = out.getvalue().splitlines()

    assert max(map(len, lines)) <= width and "…" not in out.getvalue()
    assert "1,234,567,890" in out.getvalue() and "INCOMPLETE" in out.getvalue()
    assert {*REASON.split()} <= {*out.getvalue().split()}


def test_a_message_beside_the_progress_has_the_time_zone_of_the_rest() -> None:
    """Korea's, on a machine of any zone; gaps and sessions are in it."""
    out = io.StringIO()
    with ConsoleProgress(TextConsole(highlight=False, file=out, width=80, force_terminal=True)) as progress:
        progress.on_day(date(2026, 11, 20), 0, 1)
        progress.on_message("no answer: again in 2 s")

    assert " KST no answer: again in 2 s" in out.getvalue()
