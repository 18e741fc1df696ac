"""supervisord as seen from the command line: start it, ask it, stop it.

    collectorctl ──XML-RPC over HOME/run/supervisor.sock──> supervisord ──> kis, kiwoom, writer

Promises: one supervisord per home (its socket is the lock); nothing here waits without a limit.
Leaves to others: whether a running process is healthy (status.py), what it does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil
from supervisor.xmlrpc import SupervisorTransport, UnixStreamHTTPConnection

from conf.home import Home

SOCKET_PATH_MOST = 90
"""supervisord binds `path.PID` first and AF_UNIX ends at 107 bytes."""

STOP_MOST_S = 180.0
"""More than all stopwaitsecs of supervisord.conf together."""

ANSWER_MOST_S = 5.0
"""supervisord answers within milliseconds; one that was stopped by a signal never does, and its socket still takes calls."""


class DaemonError(Exception):
    """supervisord cannot be started, reached or stopped; the message says why and what to do."""


class Program(msgspec.Struct, frozen=True):
    """One program as supervisord sees it: `state` is its word (RUNNING, BACKOFF, ...), `pid` 0 when there is none."""

    name: str
    state: str
    pid: int
    start_s: int
    complaint: str

    @property
    def held_down(self) -> bool:
        """Whether somebody stopped it, rather than nobody having started it yet."""
        return self.state == "STOPPED" and self.start_s > 0


class _Connection(UnixStreamHTTPConnection):
    """The vendor's connection, which has no patience of its own and would wait for ever."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self.timeout)


class _Transport(SupervisorTransport):
    """XML-RPC over the socket, each answer awaited for `most_s` at most."""

    def __init__(self, path: Path, most_s: float) -> None:
        super().__init__(None, None, f"unix://{path}")
        self._path, self._most_s = path, most_s
        self._get_connection = self._patient  # the vendor's class keeps its own here

    def _patient(self) -> _Connection:
        connection = _Connection("localhost", timeout=self._most_s)
        connection.socketfile = str(self._path)
        return connection


class Daemon:
    """The supervisord of one home."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.conf = home.root / "supervisord.conf"

    def _ask(self, method: str, *given: object, most_s: float = ANSWER_MOST_S) -> Any:
        transport = _Transport(self.home.socket(), most_s)
        try:
            return getattr(xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor, method)(
                *given
            )
        except TimeoutError:
            raise DaemonError(
                f"{self.home.socket()}: supervisord is there but does not answer within {most_s:.0f} s: it hangs or was stopped; "
                f"send it SIGCONT, or SIGKILL and then `collectorctl start` (its pid is in {self.home.run}/supervisord.pid)"
            ) from None

    def pid(self) -> int | None:
        """The process id of the home's supervisord, None if there is none. DaemonError when it does not answer."""
        try:
            return int(self._ask("getPID"))
        except (OSError, xmlrpc.client.Error):
            return None

    def programs(self) -> list[Program]:
        """What supervisord runs, in its order; empty when it is not there. DaemonError when it does not answer."""
        try:
            infos = self._ask("getAllProcessInfo")
        except (OSError, xmlrpc.client.Error):
            return []
        return [Program(i["name"], i["statename"], i["pid"], i["start"], i["spawnerr"]) for i in infos]

    def start(self) -> bool:
        """Start supervisord with every program, or the programs that are not up; whether supervisord was new.

        What was never started and is not switched on, or has ended as it should, is left to the watchdog, which knows what is due.
        DaemonError when it refuses.
        """
        if self.pid() is not None:
            for program in self.programs():
                switched_on = getattr(getattr(self.home.settings, program.name, None), "enabled", False)
                if program.state not in ("RUNNING", "STARTING", "BACKOFF", "EXITED") and (
                    program.start_s or switched_on
                ):
                    self.start_program(program.name)
            return False
        if not self.conf.exists():
            raise DaemonError(f"{self.conf}: is missing: run `collectorctl init {self.home.root}`")
        if len(os.fsencode(self.home.socket())) > SOCKET_PATH_MOST:
            raise DaemonError(
                f"{self.home.socket()}: the path is too long for a unix socket: use a home with a shorter path"
            )
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        }
        ran = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.conf)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if ran.returncode != 0:
            raise DaemonError(f"{self.conf}: supervisord does not start: {(ran.stderr or ran.stdout).strip()[-500:]}")
        deadline = time.monotonic() + 10
        while self.pid() is None:
            if time.monotonic() > deadline:
                raise DaemonError(
                    f"{self.home.socket()}: supervisord does not answer: see {self.home.log}/supervisord.log"
                )
            time.sleep(0.05)
        return True

    def start_program(self, name: str) -> None:
        """Start one program without waiting for it. DaemonError if there is no such program."""
        with _faults(name, tolerated="ALREADY_STARTED"):
            self._ask("startProcess", name, False)

    def stop_program(self, name: str) -> None:
        """Stop one program and wait until it is gone. DaemonError if there is no such program."""
        with _faults(name, tolerated="NOT_RUNNING"):
            self._ask("stopProcess", name, most_s=STOP_MOST_S)

    def stop(self) -> Iterator[list[str]]:
        """Shut down; yields, about every quarter second, the names still running. DaemonError if it does not end in time."""
        pid = self.pid()
        if pid is None:
            return
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            self._ask("shutdown")
            deadline = time.monotonic() + STOP_MOST_S
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                if time.monotonic() > deadline:
                    raise DaemonError(f"supervisord (pid {pid}) does not end: see {self.home.log}/supervisord.log")
                yield [program.name for program in self.programs() if program.pid]
                time.sleep(0.25)


@contextmanager
def _faults(name: str, tolerated: str) -> Iterator[None]:
    """Turns supervisord's faults about one program into a DaemonError, except the one that means "already so"."""
    try:
        yield
    except xmlrpc.client.Fault as error:
        word = error.faultString.split(":")[0]
        if word == "BAD_NAME":
            raise DaemonError(f"{name}: no such program: `collectorctl status` lists them") from None
        if word != tolerated:
            raise DaemonError(f"{name}: supervisord says {error.faultString}") from None
    except OSError:
        raise DaemonError(f"{name}: nothing runs in this home: run `collectorctl start`") from None
