"""What a process does that cannot work yet, or has nothing to do: it stays, beats, and says why.

Promises: an outage is no reason to exit, and an exit would be taken for a crash.
Leaves to others: the work (collector.py, collectorctl/fill), who looks at it (collectorctl/status.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from loguru import logger

from conf.loader import FILE
from conf.process import Stop
from ringbuf.vitals import Vitals

Made = TypeVar("Made")

ROOM_RETRY_S = 1.0


def with_room(make: Callable[[], Made], vitals: Vitals, stop: Stop) -> Made | None:
    """What `make` makes, as soon as there is room for its rings; None if asked to stop before."""
    said = ""
    while not stop.requested:
        try:
            return make()
        except OSError as error:
            words = f"{error}: the rings need room there (see [ring] and paths.ring in {FILE}); tried again by itself"
            if words != said:
                logger.error("{}", words)
                said = words
            vitals.say("waiting", words)
        vitals.beat()
        stop.wait(ROOM_RETRY_S)
    return None


def idle(vitals: Vitals, stop: Stop, why: str) -> None:
    """Stay without doing anything until asked to stop."""
    logger.info("nothing to do: {}", why)
    vitals.say("disabled", why)
    while not stop.wait(0.5):
        vitals.beat()
