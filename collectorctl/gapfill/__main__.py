"""`python -m collectorctl.gapfill`: the process that fills gaps during the day.

Promises: with nothing to do, for want of keys or by the settings, it stays and says so; else as conf/process.py says.
Leaves to others: the rites of a process (conf/process.py), the loop (filler.py).
"""

from __future__ import annotations

import sys

from brokers.feed.startup import idle, with_room
from brokers.history import quotes
from collectorctl.gapfill.service import Filler
from conf.home import Home
from conf.loader import FILE
from conf.process import Stop, run
from conf.settings import SettingsError
from ringbuf.vitals import Vitals

NAME = "fill"
BROKER = "kis"


def body(home: Home, stop: Stop) -> None:
    """Fill until asked to stop."""
    vitals = Vitals.create(home.vitals(NAME), NAME)
    try:
        why = _nothing_to_do(home)
        if why:
            idle(vitals, stop, why)
            return
        try:
            source = quotes(home, BROKER)
        except SettingsError as error:
            idle(vitals, stop, str(error))
            return
        filler = with_room(lambda: Filler(home, stop, vitals, source), vitals, stop)
        if filler is not None:
            filler.run()
    finally:
        vitals.say("stopped")
        vitals.close()


def _nothing_to_do(home: Home) -> str:
    for table in ("fill", BROKER):
        if not getattr(home.settings, table).enabled:
            return f"{table}.enabled is false in {FILE}"
    return ""


if __name__ == "__main__":
    sys.exit(run(NAME, body))
