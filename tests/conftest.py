"""Fixtures of all tests."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from support.writer_data import started_writers

# every home of a test has the same keys, and homes of one host that share a key refuse each other: each test process is a host
os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="cc-runtime-", dir="/tmp")
atexit.register(shutil.rmtree, os.environ["XDG_RUNTIME_DIR"], ignore_errors=True)

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as in supervisord.conf: a fifth of what the import of numpy costs a process

os.environ["LC_ALL"] = "C.UTF-8"  # what the commands print is compared, whatever the language of the machine

hypothesis.settings.register_profile("any machine", deadline=None)  # no property is about the time that it takes
hypothesis.settings.load_profile("any machine")

LONG_TIMEOUT_S = 1800
"""The least limit of a long test: it may run beside busy processes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A long test has a limit of its own."""
    for item in items:
        limit = item.get_closest_marker("timeout")
        if item.get_closest_marker("long") and (limit is None or limit.args[0] < LONG_TIMEOUT_S):
            item.add_marker(pytest.mark.timeout(LONG_TIMEOUT_S), append=False)


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
