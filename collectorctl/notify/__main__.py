"""Entry point of the notifications: `python -m collectorctl.notify`.

Guarantees:
    * Disabled, or with settings that cannot be used, the process idles and publishes the reason as its state.
"""

from __future__ import annotations

import sys

from brokers.feed.startup import run_disabled, run_failing
from collectorctl.notify.channel import open_channels
from collectorctl.notify.service import Notifier
from conf.home import Home
from conf.loader import SETTINGS_FILE
from conf.process import ShutdownSignal, run_process
from conf.settings import SettingsError
from ringbuf.vitals import ProcessState, Vitals

NAME = "notify"


def serve(home: Home, stop: ShutdownSignal) -> None:
    """Notify until asked to stop."""
    vitals = Vitals.create(home.vitals_path(NAME), NAME)
    try:
        if not home.settings.notify.enabled:
            run_disabled(vitals, stop, f"notify.enabled is false in {SETTINGS_FILE}")
            return
        try:
            services, ping = open_channels(home)
        except SettingsError as error:
            run_failing(vitals, stop, str(error))
            return
        Notifier(home, stop, vitals, services, ping).run()
    finally:
        vitals.set_state(ProcessState.STOPPED)
        vitals.close()


if __name__ == "__main__":
    sys.exit(run_process(NAME, serve))
