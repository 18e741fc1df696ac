"""`python -m brokers NAME`: the collector process of one broker.

Promises: exit 2 for a name that no broker has, 78 for a key that stands in two places; no room for the rings is waited out; else
as conf/process.py says.
Leaves to others: the rites of a process (conf/process.py), the connections (collector.py).
"""

from __future__ import annotations

import sys

from brokers.allocation.allocate import plan
from brokers.allocation.credentials import at_hand
from brokers.collector import Collector
from brokers.feed.startup import idle, with_room
from brokers.registry import BROKERS, broker
from conf.home import Home
from conf.loader import FILE
from conf.process import Stop, run
from ringbuf.vitals import Vitals


def collect(name: str, home: Home, stop: Stop) -> None:
    """The body of the process: collect until asked to stop. SettingsError for keys that cannot be used."""
    vitals = Vitals.create(home.vitals(name), name)
    try:
        planned = plan(home.settings, at_hand(home))
        if not planned.connections.get(name):
            idle(vitals, stop, f"{name}.enabled is false in {FILE}")
        else:
            collector = with_room(lambda: Collector(home, stop, vitals, broker(name), planned), vitals, stop)
            if collector is not None:
                collector.run()
    finally:
        vitals.say("stopped")
        vitals.close()


def main(arguments: list[str]) -> int:
    """The process's exit status."""
    if len(arguments) != 1 or arguments[0] not in BROKERS:
        sys.stderr.write(f"usage: python -m brokers NAME, where NAME is one of: {', '.join(BROKERS)}\n")
        return 2
    name = arguments[0]
    return run(name, lambda home, stop: collect(name, home, stop))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
