"""A blocking call in a thread of its own, while the caller keeps sending heartbeats.

    caller ──> thread: call ─┬─> result, or its error        heartbeat every 0.1 s
                             └─> timeout: abandoned          a stop is noticed at once

Guarantees:
    * The caller sends a heartbeat at least every 0.1 s and waits at most MAX_CALL_S; an abandoned call ends with the process.
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
"""Upper limit of a handshake or REST call, even if a server drips bytes."""
HEARTBEAT_INTERVAL_S = 0.1


class ShutdownRequested(Exception):
    """A stop was requested during the call."""


class Heartbeat(Protocol):
    """Receives heartbeats: a vitals page, or a thread's share of one."""

    def heartbeat(self) -> None:
        """Record a heartbeat."""


def call_with_heartbeat(call: Callable[[], Result], heartbeat: Heartbeat, stop: ShutdownSignal) -> Result:
    """The result of `call`, or its error; raises if a stop is requested first, ConnectError after MAX_CALL_S."""
    results: list[Result] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 raised again in the waiting thread
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
