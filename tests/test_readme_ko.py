"""README.md and README.ko.md are equal pages: section by section the same commands, names, figures and links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from brokers.simulator.__main__ import main as simulate
from collectorctl.cli import main

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "README.ko.md")


class Section:
    """What a section has in any language: blocks of code without their comments, names, links, figures, and its outline."""

    def __init__(self) -> None:
        self.blocks: list[str] = []
        self.names: list[str] = []
        self.links: list[str] = []
        self.figures: list[str] = []
        self.outline: list[str] = []

    def add(self, token: Token) -> None:
        if token.type == "fence":
            commented = token.info in ("sh", "python")
            text = re.sub(r"\s+# .*$", "", token.content, flags=re.M) if commented else token.content
            self.blocks.append(f"{token.info}\n{text}")
        elif token.type in ("heading_open", "list_item_open", "tr_open", "td_open"):
            self.outline.append(token.tag)
        for child in token.children or ():
            if child.type == "code_inline":
                self.names.append(child.content)
            elif child.type == "link_open":
                self.links.append(str(child.attrs["href"]))
            elif child.type == "text":
                self.figures += re.findall(r"\d+(?:[.,]\d+)*", child.content)


def parse(page: str) -> tuple[list[str], list[Section]]:
    """The titles of a page's sections, and the sections."""
    titles: list[str] = []
    sections: list[Section] = []
    tokens = MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text(encoding="utf-8"))
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "heading_open":
            assert following is not None
            titles.append(following.content)
            sections.append(Section())
        sections[-1].add(token)
    return titles, sections


@pytest.mark.parametrize("what", ["blocks", "names", "links", "figures", "outline"])
def test_both_pages_have_the_same_in_each_section(what: str) -> None:
    """A reader of either language gets the same; the order of words within a section is the language's own."""
    (titles, english), (_, korean) = (parse(page) for page in PAGES)

    def show(sections: list[Section]) -> list[tuple[str, list[str]]]:
        found = [list(getattr(section, what)) for section in sections]
        ordered = found if what in ("blocks", "outline") else [sorted(values) for values in found]
        return list(zip(titles, ordered, strict=True))

    if what == "links":
        english[0].links.remove("README.ko.md")
        korean[0].links.remove("README.md")
    assert show(korean) == show(english)


def commands_of(page: str) -> Iterator[list[str]]:
    """The arguments of each collectorctl command of a page, in its blocks and in its sentences."""
    for section in parse(page)[1]:
        for text in (*section.blocks, *section.names):
            for line in re.split(r"\n|&&|[;$()]", text):
                words = shlex.split(line) if "collectorctl" in line and "──" not in line else []
                if words and Path(words[0]).name == "collectorctl":
                    yield words[3:] if words[1:2] == ["--home"] else words[1:]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_exists_with_its_options(page: str) -> None:
    """What is copied from the page is understood by the command line."""
    commands = list(commands_of(page))

    assert {words[0] for words in commands if words} >= set(main.commands)
    for name, *arguments in filter(None, commands):
        command = simulate if name == "simulate" else main.commands[name]  # `simulate` hands its options on
        command.make_context(name, arguments).close()


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_links_to_exists(page: str) -> None:
    """No dead link inside the repository."""
    links = {link for section in parse(page)[1] for link in section.links}

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
