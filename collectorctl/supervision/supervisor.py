"""Client of supervisord: start it, query it, stop it.

    collectorctl ──XML-RPC over HOME/run/supervisor.sock──> supervisord ──> kis, kiwoom, writer

Guarantees:
    * There is one supervisord per home: starts happen one after another, and the second finds the first's tree.
    * Every wait has a limit, and a call leaves no open socket behind.
"""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import msgspec
import psutil
from supervisor.xmlrpc import SupervisorTransport, UnixStreamHTTPConnection

from collectorctl.supervision.errors import SupervisorError, SupervisorTimeout
from conf.home import Home
from conf.process import ShutdownSignal, acquire_lock
from conf.settings import Fault, SettingsError

MAX_SOCKET_PATH_BYTES = 90
"""supervisord binds `path.PID` first and AF_UNIX ends at 107 bytes."""

STOP_TIMEOUT_S = 240.0
"""More than all stopwaitsecs of supervisord.conf together."""

SUPERVISORD_TIMEOUT_S, ANSWER_TIMEOUT_S = 60.0, 10.0
"""Longest wait until supervisord is in the background, and until it answers."""

START_TIMEOUT_S = SUPERVISORD_TIMEOUT_S + ANSWER_TIMEOUT_S
"""Longest wait for another `collectorctl start`."""

RESPONSE_TIMEOUT_S = 5.0
"""supervisord answers within milliseconds; one that was stopped by a signal never does, though its socket accepts calls."""


class Program(msgspec.Struct, frozen=True):
    """One program as supervisord reports it: `state` (RUNNING, BACKOFF, ...), `pid` 0 for none."""

    name: str
    state: str
    pid: int
    start_s: int
    spawn_error: str

    @property
    def stopped_by_user(self) -> bool:
        """Whether it was stopped by a user, rather than never started."""
        return self.state == "STOPPED" and self.start_s > 0


class _Connection(UnixStreamHTTPConnection):
    """The library's connection, which has no timeout of its own and would wait for ever."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self.timeout)


class _Transport(SupervisorTransport):
    """XML-RPC over the socket with a timeout for each response."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__(None, None, f"unix://{path}")

        def get_connection() -> _Connection:
            connection = _Connection("localhost", timeout=timeout_s)
            connection.socketfile = str(path)
            return connection

        self._get_connection = get_connection  # the vendor's class keeps its own here


def check_configuration(home: Home) -> None:
    """SettingsError if supervisord could not start from this home: the path of its socket, or its supervisord.conf if there is one.

    supervisord's own reader judges the file; without run/ and log/, which a start makes, it cannot.
    """
    if (length := len(os.fsencode(home.socket_path()))) > MAX_SOCKET_PATH_BYTES:
        fault = Fault(home.socket_path(), "home", "socket_path", length=length, limit=MAX_SOCKET_PATH_BYTES)
        raise SettingsError(fault)
    from supervisor.options import ServerOptions  # which the watchdog has no use for

    file = home.root / "supervisord.conf"
    if not (file.exists() and (home.root / "run").is_dir() and (home.root / "log").is_dir()):
        return
    options = ServerOptions()
    options.configfile = str(file)
    try:
        options.process_config(do_usage=False)
    except (ValueError, configparser.Error, OSError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(Fault(file, "supervisord", "supervisord_conf", reason=reason)) from None


@contextmanager
def exclude_starts(home: Home) -> Iterator[None]:
    """No other start and no reload inside the block. AlreadyRunning."""
    lock = acquire_lock(home.lock_path("start"), ShutdownSignal(), START_TIMEOUT_S)
    try:
        yield
    finally:
        os.close(lock)


class SupervisorClient:
    """The supervisord of one home."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.conf = home.root / "supervisord.conf"

    def _call(self, method: str, *arguments: object, timeout_s: float = RESPONSE_TIMEOUT_S) -> Any:
        transport = _Transport(self.home.socket_path(), timeout_s)
        try:
            with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as proxy:
                return getattr(proxy.supervisor, method)(*arguments)
        except TimeoutError:
            raise SupervisorTimeout(
                f"{self.home.socket_path()}: supervisord is there but does not answer within "
                f"{timeout_s:.0f} s: it hangs, was stopped, or the machine is too busy; "
                f"send it SIGCONT, or SIGKILL and then `collectorctl start` (its pid is in {self.home.run}/supervisord.pid)"
            ) from None
        except HTTPException as error:  # killed in the middle of its answer: as gone as one that refuses the connection
            raise ConnectionResetError(f"{self.home.socket_path()}: half an answer: {error!r}") from error

    def find_pid(self) -> int | None:
        """The process id of the home's supervisord, None for none. SupervisorError when it does not answer."""
        try:
            return int(self._call("getPID"))
        except (OSError, xmlrpc.client.Error):
            return None

    def list_programs(self) -> list[Program]:
        """What supervisord runs, in its order; empty when it is not there. SupervisorError when it does not answer."""
        try:
            infos = self._call("getAllProcessInfo")
        except (OSError, xmlrpc.client.Error):
            return []
        return [Program(i["name"], i["statename"], i["pid"], i["start"], i["spawnerr"]) for i in infos]

    def start(self, prepare: Callable[[], None] = lambda: None) -> bool:
        """Start supervisord with every program, or the programs that are not up; whether supervisord was new.

        `prepare`: called first if nothing runs yet, while no other start is at work.
        What was never started and is not switched on, or has ended as it should, is left to the watchdog, which knows what is due.
        SupervisorError when it refuses; AlreadyRunning if another start is at work for too long.
        """
        # without the lock, two that find a socket left by a killed supervisord may remove each other's new one
        with exclude_starts(self.home):
            return self._start(prepare)

    def _start(self, prepare: Callable[[], None]) -> bool:
        if self.find_pid() is not None:
            for program in self.list_programs():
                enabled = getattr(getattr(self.home.settings, program.name, None), "enabled", False)
                if program.state not in ("RUNNING", "STARTING", "BACKOFF", "EXITED") and (program.start_s or enabled):
                    self.start_program(program.name)
            return False
        if not self.conf.exists():
            raise SupervisorError(f"{self.conf}: is missing: run `collectorctl init {self.home.root}`")
        check_configuration(self.home)
        prepare()
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        }
        completed = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.conf)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=SUPERVISORD_TIMEOUT_S,
        )
        if completed.returncode != 0:
            if self.find_pid() is not None:  # one that was started otherwise came first
                return False
            raise SupervisorError(
                f"{self.conf}: supervisord does not start: {' '.join((completed.stderr or completed.stdout).split())[-500:]}"
            )
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while not self._answers():
            if time.monotonic() > deadline:
                raise SupervisorError(
                    f"{self.home.socket_path()}: supervisord does not answer: see {self.home.log}/supervisord.log"
                )
            time.sleep(0.05)
        return True

    def _answers(self) -> bool:
        with suppress(SupervisorTimeout):
            return self.find_pid() is not None
        return False

    def start_program(self, name: str) -> None:
        """Start one program without waiting for it. SupervisorError if there is no such program."""
        with _translate_faults(name, ignored="ALREADY_STARTED"):
            self._call("startProcess", name, False)

    def stop_program(self, name: str) -> None:
        """Stop one program and wait until it is gone. SupervisorError if there is no such program."""
        with _translate_faults(name, ignored="NOT_RUNNING"):
            self._call("stopProcess", name, timeout_s=STOP_TIMEOUT_S)

    def stop(self) -> Iterator[list[str]]:
        """Shut down; yields, every quarter second or later, the names still running. SupervisorError if it does not end in time."""
        pid = self.find_pid()
        if pid is None:
            return
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            self._call("shutdown")
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                if time.monotonic() > deadline:
                    raise SupervisorError(f"supervisord (pid {pid}) does not end: see {self.home.log}/supervisord.log")
                with suppress(SupervisorTimeout):  # it waits for its children
                    yield [program.name for program in self.list_programs() if program.pid]
                time.sleep(0.25)


@contextmanager
def _translate_faults(name: str, ignored: str) -> Iterator[None]:
    """Turns supervisord's faults about one program into a SupervisorError, except the one that means "already so"."""
    try:
        yield
    except xmlrpc.client.Fault as error:
        code = error.faultString.split(":")[0]
        if code == "BAD_NAME":
            raise SupervisorError(f"{name}: no such program: `collectorctl status` lists them") from None
        if code != ignored:
            raise SupervisorError(f"{name}: supervisord says {error.faultString}") from None
    except xmlrpc.client.ProtocolError as error:
        raise SupervisorError(f"{name}: supervisord does not take this name: HTTP {error.errcode}") from None
    except OSError:
        raise SupervisorError(f"{name}: nothing runs in this home: run `collectorctl start`") from None
