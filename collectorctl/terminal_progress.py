"""Columns of progress displays, escaped like all text on a terminal."""

from __future__ import annotations

from rich.progress import Task, TextColumn
from rich.text import Text

from conf.text.escape import escape_controls


class PlainTextColumn(TextColumn):
    """A column of a progress display, without markup."""

    def render(self, task: Task) -> Text:
        """The text of the column."""
        return Text(escape_controls(self.text_format.format(task=task)))
