"""The code's references to the documents of the wire lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("brokers", "collectorctl", "conf", "ringbuf", "writer", "tests")
SOURCES = {
    str(file.relative_to(ROOT)): file.read_text()
    for folder in FOLDERS
    for form in ("*.py", "*.toml")
    for file in (ROOT / folder).rglob(form)
    if file != Path(__file__)
}

REFERENCE = re.compile(r"docs/wire/(\w+)\.md,?[\s#]+(\d+(?:\.\d+)*)")
HEADING = re.compile(r"^#+ (\d+(?:\.\d+)*) ", re.M)
OLD_REFERENCE = re.compile(r"\bspec (?:kis|kiwoom)\b", re.I)


def test_every_section_of_the_wire_that_the_code_names_has_a_heading() -> None:
    """A reference to a section that is gone sends the reader nowhere."""
    headings = {page.stem: set(HEADING.findall(page.read_text())) for page in (ROOT / "docs" / "wire").glob("*.md")}

    missing = [
        f"{place}: {page}.md {section}"
        for place, text in SOURCES.items()
        for page, section in REFERENCE.findall(text)
        if section not in headings.get(page, set())
    ]

    assert set(headings) == {"kis", "kiwoom"}
    assert missing == []


def test_no_source_refers_to_a_document_outside_the_repository() -> None:
    """Whoever has the clone has what its comments refer to."""
    assert [
        f"{place}:{number}"
        for place, text in SOURCES.items()
        for number, line in enumerate(text.splitlines(), 1)
        if OLD_REFERENCE.search(line)
    ] == []
