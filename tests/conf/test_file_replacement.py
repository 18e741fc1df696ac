"""Small files that are replaced whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from conf.files.replacement import PRIVATE, replace_file


def test_a_file_or_a_link_is_replaced_and_gets_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    """What a link led to stays, and a leftover of a killed process lends nothing."""
    other, path = tmp_path / "other", tmp_path / "file"
    other.write_bytes(b"other")
    path.symlink_to(other)
    (tmp_path / f".file.{os.getpid()}.new").touch(mode=0o666)

    replace_file(path, b"new", PRIVATE)

    assert (b"new", b"other") == (path.read_bytes(), other.read_bytes())
    assert not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(tmp_path.iterdir()) == [path, other]


def test_a_file_that_cannot_be_replaced_stays_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """A directory has its name, for example."""
    path = tmp_path / "file"
    path.mkdir()

    with pytest.raises(OSError, match="file"):
        replace_file(path, b"new")

    assert path.is_dir() and list(tmp_path.iterdir()) == [path]
