"""Entry point of the metrics endpoint: `python -m collectorctl.metrics`.

Guarantees:
    * Disabled, or without the library (extra `metrics`), the process idles and publishes the reason as its state; else as in
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

NAME = "metrics"


def serve(home: Home, stop: ShutdownSignal) -> None:
    """Answer scrapes until asked to stop."""
    vitals = Vitals.create(home.vitals_path(NAME), NAME)
    try:
        if not home.settings.metrics.enabled:
            run_disabled(vitals, stop, f"metrics.enabled is false in {SETTINGS_FILE}")
        elif find_spec("prometheus_client") is None:
            detail = "prometheus-client is not installed: .venv/bin/pip install -e '.[metrics]' in the clone, then restart metrics"
            run_failing(vitals, stop, detail)
        else:
            from collectorctl.metrics.endpoint import serve as serve_endpoint

            serve_endpoint(home, stop, vitals)
    finally:
        vitals.set_state(ProcessState.STOPPED)
        vitals.close()


if __name__ == "__main__":
    sys.exit(run_process(NAME, serve))
