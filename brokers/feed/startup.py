"""Helpers for a process that must not exit: wait for rings, or idle while disabled or unusable.

Guarantees:
    * All keep sending heartbeats and publish the reason as the state; an exit would be taken for a crash.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple, TypeVar

from loguru import logger

from conf.home import Home
from conf.loader import SETTINGS_FILE
from conf.process import ShutdownSignal
from ringbuf.ring_file import RingError
from ringbuf.vitals import ProcessState, Vitals

Resource = TypeVar("Resource")

RETRY_S = 1.0


def retry_until_usable(create: Callable[[], Resource], vitals: Vitals, stop: ShutdownSignal) -> Resource | None:
    """Run the constructor as soon as its rings can be used: with room, of this layout. None if a stop is requested before."""
    logged = ""
    while not stop.requested:
        try:
            return create()
        except OSError as error:
            state = ProcessState.WAITING
            message = f"{error}: the rings need room there (see [ring] and paths.ring in {SETTINGS_FILE}); tried again by itself"
        except RingError as error:
            state, message = ProcessState.FAILING, f"{error}; tried again by itself"
        if message != logged:
            logger.error("{}", message)
            logged = message
        vitals.set_state(state, message)
        vitals.heartbeat()
        stop.wait(RETRY_S)
    return None


class Library(NamedTuple):
    """A library that a program needs and a home may lack: its module, its package, and the extra that brings it."""

    module: str
    package: str
    extra: str


def run_optional(
    home: Home, stop: ShutdownSignal, name: str, library: Library, run: Callable[[Home, ShutdownSignal, Vitals], None]
) -> None:
    """Run a program, or idle while its table of the settings is disabled or its library is missing."""
    vitals = Vitals.create(home.vitals_path(name), name)
    try:
        if not getattr(home.settings, name).enabled:
            run_disabled(vitals, stop, f"{name}.enabled is false in {SETTINGS_FILE}")
        elif find_spec(library.module) is None:
            command = f".venv/bin/pip install -e '.[{library.extra}]'"
            run_failing(
                vitals, stop, f"{library.package} is not installed: {command} in the clone, then restart {name}"
            )
        else:
            run(home, stop, vitals)
    finally:
        vitals.set_state(ProcessState.STOPPED)
        vitals.close()


def run_disabled(vitals: Vitals, stop: ShutdownSignal, reason: str) -> None:
    """Stay without doing anything until asked to stop."""
    logger.info("nothing to do: {}", reason)
    _idle(vitals, stop, ProcessState.DISABLED, reason)


def run_failing(vitals: Vitals, stop: ShutdownSignal, reason: str) -> None:
    """Likewise, as a process that needs a person before it can do anything."""
    logger.error("{}", reason)
    _idle(vitals, stop, ProcessState.FAILING, reason)


def _idle(vitals: Vitals, stop: ShutdownSignal, state: ProcessState, reason: str) -> None:
    vitals.set_state(state, reason)
    while not stop.wait(0.5):
        vitals.heartbeat()
