"""The page ledger: whole pages only, one chain, nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from brokers.history import PageResponse
from collectorctl.recover.download.page_store import PageError, PageSequence


def three(directory: Path) -> PageSequence:
    """A chain of three pages."""
    chain = PageSequence(directory)
    for number in range(3):
        chain.add(PageResponse(b'{"rows": %d}' % number, f"key-{number}"))
    return chain


def test_a_chain_is_continued_where_it_was_left(tmp_path: Path) -> None:
    """The next key, the contents and their order survive the process."""
    three(tmp_path / "chart")

    again = PageSequence(tmp_path / "chart")

    assert (3, "key-2", None) == (again.count, again.next_key, again.end_record)
    assert [b'{"rows": 0}', b'{"rows": 1}', b'{"rows": 2}'] == list(again)


def test_a_page_that_came_before_does_not_advance(tmp_path: Path) -> None:
    """Nor does one that names itself."""
    chain = three(tmp_path / "chart")

    with pytest.raises(PageError, match="does not advance"):
        chain.add(PageResponse(b'{"rows": 1}', "key-3"))
    with pytest.raises(PageError, match="does not advance"):
        chain.add(PageResponse(b'{"rows": 9}', "key-2"))
    assert 3 == PageSequence(tmp_path / "chart").count


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_what_lies_behind_a_damaged_page_is_not_believed(tmp_path: Path, damage: str) -> None:
    """The chain goes on from the last good page, and a chain that had ended has not."""
    chain = three(tmp_path / "chart")
    chain.mark_complete(older=True)
    second = tmp_path / "chart" / "000002.json.gz"
    content = second.read_bytes()
    if damage == "gone":
        second.unlink()
    else:
        second.write_bytes(content[:-9] if damage == "cut" else content[:30] + b"\0" + content[31:])

    again = PageSequence(tmp_path / "chart")

    assert (1, "key-0", None) == (again.count, again.next_key, again.end_record)


def test_an_ended_chain_says_so_until_it_is_cleared(tmp_path: Path) -> None:
    """With what was said of its end."""
    three(tmp_path / "chart").mark_complete(older=True, bound_ns=7)

    assert {"pages": 3, "older": True, "bound_ns": 7} == PageSequence(tmp_path / "chart").end_record
    PageSequence(tmp_path / "chart").clear()
    assert (0, None) == (PageSequence(tmp_path / "chart").count, PageSequence(tmp_path / "chart").end_record)
