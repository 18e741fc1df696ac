"""A call that may block for long, made while the heart goes on beating.

    caller ──> thread: call ─┬─> result, or its error        beat, 0.1 s, beat, 0.1 s ...
                             └─> never: given up             a stop is noticed at once

Promises: the caller beats at least every 0.1 s and waits no longer than CALL_MOST_S; an abandoned call dies with the process.
Leaves to others: what is called, and its own limits (rest.py, wire.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from brokers.errors import ConnectError
from conf.process import ShutdownSignal

Result = TypeVar("Result")

MAX_CALL_S = 60.0
"""No handshake and no REST call may take longer, though a server that drips bytes would have it so."""
HEARTBEAT_INTERVAL_S = 0.1


class ShutdownRequested(Exception):
    """A stop was requested while something was under way."""


class Heartbeat(Protocol):
    """What has to go on beating: a vitals page, or a thread's share of one."""

    def heartbeat(self) -> None:
        """Alive."""


def call_with_heartbeat(call: Callable[[], Result], heartbeat: Heartbeat, stop: ShutdownSignal) -> Result:
    """The result of `call`, or what it raises. Stopping if asked to stop first; ConnectError when it takes too long."""
    results: list[Result] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 handed over to the thread that waits
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    deadline = time.monotonic() + MAX_CALL_S
    while thread.is_alive():
        thread.join(HEARTBEAT_INTERVAL_S)
        heartbeat.heartbeat()
        if stop.requested and thread.is_alive():
            raise ShutdownRequested
        if time.monotonic() > deadline and thread.is_alive():
            raise ConnectError(f"no answer within {MAX_CALL_S:g} s")
    if failures:
        raise failures[0]
    return results[0]
