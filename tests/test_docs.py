"""The README and the commands say the same."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from collectorctl.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_is_in_the_readme_and_shows_an_example(name: str) -> None:
    """A command nobody can find does not exist."""
    assert f"collectorctl {name}" in README
    assert f"collectorctl {name}" in (main.commands[name].help or "").partition("Example:")[2]


def test_the_readme_has_the_two_commands_each_on_one_line() -> None:
    """One installs and runs the demo, one installs and runs the tests."""
    lines = [line for line in README.splitlines() if line.startswith("python3 -m venv .venv && ")]

    assert [line.endswith("collectorctl demo") for line in lines] == [True, False]
    assert ["/bin/pytest" in line for line in lines] == [False, True]


def test_every_test_that_the_delivery_page_names_exists() -> None:
    """A promise whose proof is gone is no promise."""
    root = Path(__file__).parent
    named = {
        name for page in (root.parent / "docs").glob("*.md") for name in re.findall(r"`(test_\w+)`", page.read_text())
    }
    defined = {
        name for file in root.rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }

    assert named
    assert named - defined == set()


def test_the_python_of_the_documents_names_what_exists() -> None:
    """An example that cannot be imported is worse than none."""
    root = Path(__file__).parents[1]
    imports = {
        (module, name)
        for page in (*(root / "docs").rglob("*.md"), root / "README.md")
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
        for module, names in re.findall(r"^from ([\w.]+) import ([\w, ]+)$", block, re.M)
        for name in names.split(", ")
    }

    assert imports
    assert [pair for pair in imports if not hasattr(import_module(pair[0]), pair[1])] == []


def test_every_table_of_the_pages_is_read_as_one() -> None:
    """A row of dashes of another width makes it running text."""
    root = Path(__file__).parents[1]
    for page in (*(root / "docs").rglob("*.md"), *root.glob("*.md")):
        tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text())
        assert [token.content for token in tokens if token.type == "inline" and "|---" in token.content] == [], page
