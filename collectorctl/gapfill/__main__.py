"""Entry point of the gap filler: `python -m collectorctl.gapfill`.

Guarantees:
    * Without keys, or disabled, the process idles and publishes the reason as its state; else as in conf/process.py.
"""

from __future__ import annotations

import sys

from brokers.feed.startup import retry_until_usable, run_disabled
from brokers.history import open_history
from collectorctl.gapfill.service import GapFiller
from conf.home import Home
from conf.loader import SETTINGS_FILE
from conf.process import ShutdownSignal, run_process
from conf.settings import SettingsError
from ringbuf.vitals import ProcessState, Vitals

NAME = "gapfill"
BROKER = "kis"


def serve(home: Home, stop: ShutdownSignal) -> None:
    """Fill until asked to stop."""
    vitals = Vitals.create(home.vitals_path(NAME), NAME)
    try:
        reason = _disabled_reason(home)
        if reason:
            run_disabled(vitals, stop, reason)
            return
        try:
            history = open_history(home, BROKER)
        except SettingsError as error:
            run_disabled(vitals, stop, str(error))
            return
        filler = retry_until_usable(lambda: GapFiller(home, stop, vitals, history), vitals, stop)
        if filler is not None:
            filler.run()
    finally:
        vitals.set_state(ProcessState.STOPPED)
        vitals.close()


def _disabled_reason(home: Home) -> str:
    for table in ("gapfill", BROKER):
        if not getattr(home.settings, table).enabled:
            return f"{table}.enabled is false in {SETTINGS_FILE}"
    return ""


if __name__ == "__main__":
    sys.exit(run_process(NAME, serve))
