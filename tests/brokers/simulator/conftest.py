"""Homes and simulators for the tests of this folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.vendor_clients import SimulatorHandle, start_simulator

# a proxy of the machine has no business between two loopback sockets
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

LOSSLESS = ("--always-open", "--kis-loss", "0", "--kiwoom-loss", "0")
SYMBOLS = ("005930", "000660", "0074K0", "Q500001")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """An empty home: the defaults hold."""
    root = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def start(home: Path) -> Iterator[Callable[..., SimulatorHandle]]:
    """Starts simulators over SYMBOLS that always trade and lose nothing; they end with the module."""
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(
            start_simulator(home, *LOSSLESS, "--symbols", ",".join(SYMBOLS), *options)
        )
