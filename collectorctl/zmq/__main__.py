"""Entry point of the ZeroMQ publisher: `python -m collectorctl.zmq`.

Guarantees:
    * Disabled, or without the library (extra `net`), the process idles and publishes the reason as its state; else as in
      conf/process.py.
"""

from __future__ import annotations

import sys

from brokers.feed.startup import Library, run_optional
from conf.home import Home
from conf.process import ShutdownSignal, run_process
from ringbuf.vitals import Vitals

NAME = "zmq"
LIBRARY = Library("zmq", "pyzmq", "net")


def serve(home: Home, stop: ShutdownSignal) -> None:
    """Publish until asked to stop."""
    run_optional(home, stop, NAME, LIBRARY, _serve)


def _serve(home: Home, stop: ShutdownSignal, vitals: Vitals) -> None:
    from collectorctl.zmq.publisher import serve  # needs the library

    serve(home, stop, vitals)


if __name__ == "__main__":
    sys.exit(run_process(NAME, serve))
