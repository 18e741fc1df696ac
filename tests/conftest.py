"""Fixtures of all tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.writer_data import started_writers


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of one's own with a short name; what still runs in it at the end is killed."""
    path = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    yield path
    for process in started_writers:
        process.kill()
        process.wait()
    started_writers.clear()
    shutil.rmtree(path, ignore_errors=True)
