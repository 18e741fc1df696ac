"""Entry point of a collector process: `python -m brokers NAME`.

Guarantees:
    * Exit status 2 for a name that no broker has, 78 for a key that is configured twice, else as in conf/process.py.
    * The process waits for room for the rings instead of exiting.
"""

from __future__ import annotations

import sys

from brokers.allocation.allocate import plan_connections
from brokers.allocation.credentials import key_counts
from brokers.collector import Collector
from brokers.feed.startup import retry_until_usable, run_disabled
from brokers.registry import BROKERS, load_broker
from conf.home import Home
from conf.loader import SETTINGS_FILE
from conf.process import ShutdownSignal, run_process
from conf.text.escape import escape_controls
from ringbuf.vitals import ProcessState, Vitals


def collect(name: str, home: Home, stop: ShutdownSignal) -> None:
    """Collect until a stop is requested. SettingsError for keys that cannot be used."""
    vitals = Vitals.create(home.vitals_path(name), name)
    try:
        plan = plan_connections(home.settings, key_counts(home))
        if not plan.connections.get(name):
            run_disabled(vitals, stop, f"{name}.enabled is false in {SETTINGS_FILE}")
        else:
            collector = retry_until_usable(lambda: Collector(home, stop, vitals, load_broker(name), plan), vitals, stop)
            if collector is not None:
                collector.run()
    finally:
        vitals.set_state(ProcessState.STOPPED)
        vitals.close()


def main(arguments: list[str]) -> int:
    """The process's exit status."""
    if len(arguments) != 1 or arguments[0] not in BROKERS:
        usage = f"usage: python -m brokers NAME, where NAME is one of: {', '.join(BROKERS)}"
        print(escape_controls(usage), file=sys.stderr)  # noqa: T201 supervisord keeps it in log/NAME.out
        return 2
    name = arguments[0]
    return run_process(name, lambda home, stop: collect(name, home, stop))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
