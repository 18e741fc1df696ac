"""Output of all commands: the one place that writes to a terminal.

    text, rows of tables, JSON --control characters escaped, no markup--> stdout, stderr

Guarantees:
    * Nothing that a command prints moves the cursor, changes a title, hides or forges a line, or is read as rich's markup, wherever
      the text comes from; colours come from `coloured` alone.
    * JSON keeps its meaning.

Not handled here:
    * Progress displays (terminal_progress.py), whose modules `status` would load for nothing.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.protocol import is_renderable
from rich.text import Text

from conf.clock import SECOND_NS
from conf.text.escape import escape_controls


def echo(line: str, err: bool = False) -> None:
    """Print one line; on a terminal that is narrower, several that break between words."""
    text = escape_controls(line)
    stream = sys.stderr if err else sys.stdout
    width = shutil.get_terminal_size().columns if stream.isatty() else None
    # no letter has more than two cells
    for part in [text] if width is None or 2 * len(text) <= width else break_lines(text, width):
        click.echo(escape_controls(part), err=err)


def break_lines(text: str, width: int) -> Iterator[str]:
    """The lines of a text at a width in cells; a word that is wider keeps a line of its own, whole. Further lines are indented."""
    from rich.cells import cell_len

    line = ""
    for word in re.findall(r" *[^ ]+", text):
        if line.strip() and cell_len(line + word) > width:
            yield line
            line = "  " + word.lstrip()
        else:
            line += word
    yield line


def echo_json(value: object, indent: int = 2) -> None:
    """Print a value as JSON; what JSON has no form for, as str() has it. `indent` 0: on one line."""
    encoded = msgspec.json.encode(value, enc_hook=str)
    text = (msgspec.json.format(encoded, indent=indent) if indent else encoded).decode()
    for line in text.split("\n"):  # within strings JSON has no line ends, and gets none on a terminal
        click.echo(escape_controls(line))


def usage_error(message: str) -> click.UsageError:
    """The error of a wrong option or argument."""
    return click.UsageError(escape_controls(message))


def coloured(text: str, colour: str) -> Text:
    """Text in a colour."""
    return Text(escape_controls(text), colour)


class TextConsole(Console):
    """A console that prints strings as they are, each on one line; no markup, no emoji codes."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print what rich can render, and anything else as str() has it."""
        super().print(*(one if is_renderable(one) else str(one) for one in objects), **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text of a string, also of one in a table."""
        return super().render_str(escape_controls(text), **{**options, "markup": False, "emoji": False})


def wide_console(stderr: bool = False) -> TextConsole:
    """A console for tables: as wide as the terminal, where text breaks between words, and wide enough where there is none."""
    console = TextConsole(highlight=False, stderr=stderr)
    console.soft_wrap = not console.is_terminal
    if not console.is_terminal:
        console.width = 140
    return console


def wrapped_console() -> TextConsole:
    """A console for text that is read on a terminal: lines break between words; a file or pipe gets whole lines."""
    console = TextConsole(highlight=False)
    if not console.is_terminal:
        console.width = 1000
    return console


def format_level(size: int | None, price: float | None) -> str:
    """A level of a book, "-" for an empty one."""
    return "-" if price is None else f"{size} @ {price}"


def format_event_value(kind: str, value: int | None) -> str:
    """The value of an event as people read it; "" for none."""
    if value is None:
        return ""
    return f"{value / SECOND_NS:+.6f} s" if kind == "clock_step" else str(value)


def clear_screen() -> None:
    """Clear the terminal, if there is one."""
    click.clear()
