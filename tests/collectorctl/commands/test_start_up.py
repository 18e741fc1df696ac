"""What the commands that are used most load before they answer: a person waits for them, and cron runs them all day."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from collectorctl.init import create_home

_RUN = """
import sys
from collectorctl.cli import main
try:
    main(sys.argv[2:])
finally:
    print("LOADED", *sorted(set(sys.modules) & set(sys.argv[1].split(","))))
"""
_HEAVY = ("pandas", "pyarrow", "pyarrow.parquet", "asyncio", "aiohttp", "loguru", "holidays", "supervisor.options")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that was never started."""
    root = tmp_path_factory.mktemp("home")
    create_home(root)
    return root


def load(home: Path, *words: str) -> tuple[set[str], str]:
    """The modules of `_HEAVY` and a few more that a command loads, and what it prints."""
    names = ",".join((*_HEAVY, "numpy", "rich.table", "supervisor.xmlrpc", "writer.ingest.book_arbiter"))
    command = [sys.executable, "-c", _RUN, names, "--home", str(home), *words]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    shown, _, loaded = ran.stdout.rpartition("LOADED")
    return set(loaded.split()), shown + ran.stderr


def test_status_loads_no_array_library_no_event_loop_and_no_logger(home: Path) -> None:
    """Nor what makes the reports that it reads. The first run makes the table of holidays, in a process of its own."""
    loaded, shown = load(home, "status")

    assert shown.startswith("STOPPED")
    assert loaded == {"rich.table", "supervisor.xmlrpc"}


def test_the_rows_of_tail_are_shown_without_pandas(home: Path) -> None:
    """pyarrow would load it for its first array; JSON has nanoseconds, which it is needed for."""
    loaded, shown = load(home, "tail", "tick")

    assert not shown
    assert "pyarrow" in loaded and not loaded & {"pandas", "supervisor.xmlrpc", "rich.table"}


def test_help_loads_neither_numbers_nor_tables_nor_the_supervisor(home: Path) -> None:
    """It is text."""
    loaded, shown = load(home, "--help")

    assert "Set up" in shown
    assert loaded == set()


def test_who_loads_pandas_later_has_it_in_arrow() -> None:
    """Looking for it without finding it keeps nobody from it, also not one that had it before."""
    code = """
import sys
{before}
from conf.arrow import load_arrow_without_pandas
load_arrow_without_pandas()
import pyarrow as pa
array = pa.array(["a", None])
print("pandas" in sys.modules)
import pandas
frame = pa.table({{"a": array}}).to_pandas()
print(list(frame.a)[0], pa.Table.from_pandas(frame).column("a").null_count)
"""
    for before, first in (("", "False"), ("import pandas", "True")):
        command = [sys.executable, "-c", code.format(before=before)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == [first, "a", "1"]
