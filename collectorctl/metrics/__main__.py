"""Entry point of the metrics endpoint: `python -m collectorctl.metrics`.

Guarantees:
    * Disabled, or without the library (extra `metrics`), the process idles and publishes the reason as its state; else as in
      conf/process.py.
"""

from __future__ import annotations

import sys

from brokers.feed.startup import Library, run_optional
from conf.home import Home
from conf.process import ShutdownSignal, run_process
from ringbuf.vitals import Vitals

NAME = "metrics"
LIBRARY = Library("prometheus_client", "prometheus-client", "metrics")


def serve(home: Home, stop: ShutdownSignal) -> None:
    """Answer scrapes until asked to stop."""
    run_optional(home, stop, NAME, LIBRARY, _serve)


def _serve(home: Home, stop: ShutdownSignal, vitals: Vitals) -> None:
    from collectorctl.metrics.endpoint import serve  # needs the library

    serve(home, stop, vitals)


if __name__ == "__main__":
    sys.exit(run_process(NAME, serve))
