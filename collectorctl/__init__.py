"""Command line over a home, the processes beside collectors and writer, and the interface for readers of the data.

`collectorctl.open("~/collector")` is the data of a home, read only: docs/reading.md. `collectorctl.subscribe()` is its live stream
over ZeroMQ: docs/zeromq.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collectorctl.reader.home import HomeReader
    from collectorctl.zmq.subscriber import Subscriber

__all__ = ["open", "subscribe"]


def open(path: str | PathLike[str]) -> HomeReader:
    """The reader of a home: stored books and ticks, certificates, and what is received now.

    Raises:
        FileNotFoundError: there is no home at `path`.
        SettingsError: its settings cannot be read.
    """
    from collectorctl.reader.home import HomeReader  # on demand: every process of the tree imports this package

    return HomeReader(path)


def subscribe(
    symbols: Iterable[str] | None = None,
    streams: Iterable[str] = ("orderbook", "tick"),
    address: str = "tcp://127.0.0.1:21100",
    resend_address: str = "tcp://127.0.0.1:21101",
) -> Subscriber:
    """The messages of `open(...).live(symbols, streams)` from the home's ZeroMQ publisher; the addresses are those of `[zmq]`.

    Raises:
        ImportError: pyzmq is not installed.
        ValueError: an unknown symbol or stream.
    """
    from collectorctl.zmq.subscriber import Subscriber

    return Subscriber(symbols, streams, address, resend_address)
