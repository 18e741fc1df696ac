"""Fixtures of the writer's tests."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from feed import started


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of one's own with a short name."""
    path = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    yield path
    for process in started:
        process.kill()
        process.wait()
    started.clear()
    shutil.rmtree(path, ignore_errors=True)
