"""Entry point of the ZeroMQ publisher: `python -m collectorctl.zmq`.

Guarantees:
    * Disabled, or without the library (extra `net`), the process idles and publishes the reason as its state; else as in
      conf/process.py.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from brokers.feed.startup import run_disabled, run_failing
from conf.home import Home
from conf.loader import SETTINGS_FILE
from conf.process import ShutdownSignal, run_process
from ringbuf.vitals import ProcessState, Vitals

NAME = "zmq"


def serve(home: Home, stop: ShutdownSignal) -> None:
    """Publish until asked to stop."""
    vitals = Vitals.create(home.vitals_path(NAME), NAME)
    try:
        if not home.settings.zmq.enabled:
            run_disabled(vitals, stop, f"zmq.enabled is false in {SETTINGS_FILE}")
        elif find_spec("zmq") is None:
            detail = "pyzmq is not installed: .venv/bin/pip install -e '.[net]' in the clone, then restart zmq"
            run_failing(vitals, stop, detail)
        else:
            from collectorctl.zmq.publisher import serve as serve_publisher

            serve_publisher(home, stop, vitals)
    finally:
        vitals.set_state(ProcessState.STOPPED)
        vitals.close()


if __name__ == "__main__":
    sys.exit(run_process(NAME, serve))
