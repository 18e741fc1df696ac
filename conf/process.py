"""Process bootstrap: home, logging, lock, exit with the parent, signals, exit codes.

    exit 0   stopped on request
    exit 75  another instance, or another start, holds a lock for too long
    exit 78  the configuration is wrong (the message says where)
    exit 1   a bug (the traceback is in the log)

Guarantees:
    * One instance runs per name and home, and no process outlives supervisord.
    * SIGTERM and SIGINT only request a stop; `main` returns when it has stopped. A wait for a lock ends at once.
    * SIGABRT prints every thread's stack to stderr and writes no core file, which would hold secrets.
    * A process prints only its final message, if it cannot run.
    * A line of a log begins an entry or continues a traceback, which is indented; no text from outside begins one, and no line has
      control characters or a secret of this process.
    * What logs is loaded by a process, not by a command that needs no more than an exit status from here.
"""

from __future__ import annotations

import ctypes
import faulthandler
import math
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from conf.files.lock import LockHeld, lock_file
from conf.home import Home
from conf.loader import SETTINGS_FILE
from conf.settings import Fault, SettingsError
from conf.text.escape import escape_controls
from conf.text.secret_mask import hide_secrets

if TYPE_CHECKING:
    from loguru import Record

EXIT_BUG = 1
EXIT_ALREADY_RUNNING = 75
EXIT_CONFIG = 78

_PR_SET_PDEATHSIG = 1


class AlreadyRunning(LockHeld):
    """Another process does this job in this home."""


class ShutdownSignal:
    """The request to stop: a flag that a signal sets, and an interruptible wait."""

    def __init__(self) -> None:
        self.requested = False
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def request(self, *_: object) -> None:
        """Request the stop; may be called as a signal handler (it takes no lock)."""
        self.requested = True
        os.write(self._wake_writer, b"x")

    def wait(self, seconds: float) -> bool:
        """Sleep for `seconds` or until a stop is requested; whether one was requested."""
        if not self.requested and seconds > 0:
            waiting = select.poll()  # `select` refuses descriptors beyond 1,023
            waiting.register(self._wake_reader, select.POLLIN)
            waiting.poll(math.ceil(seconds * 1000))
        return self.requested


def find_home_root() -> Path:
    """The home this process belongs to: COLLECTOR_HOME, else the current directory."""
    return Path(os.environ.get("COLLECTOR_HOME") or ".")


def run_process(name: str, main: Callable[[Home, ShutdownSignal], None]) -> int:
    """Run `main` as the process `name` of the home; the exit status."""
    from loguru import logger

    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    stop = ShutdownSignal()
    signal.signal(signal.SIGTERM, stop.request)
    signal.signal(signal.SIGINT, stop.request)
    if "SUPERVISOR_ENABLED" in os.environ:
        exit_with_parent(read_supervisor_pid())
    try:
        home = Home(find_home_root())
        home.create_directories(stop.wait)
        configure_logging(home, name)
        lock = acquire_lock(home.lock_path(name), stop)
    except SettingsError as error:
        return _exit_with_message(EXIT_CONFIG, str(error))
    except LockHeld as error:
        return 0 if stop.requested else _exit_with_message(EXIT_ALREADY_RUNNING, str(error))
    logger.info("{} begins, pid {}", name, os.getpid())
    try:
        main(home, stop)
    except SettingsError as error:
        logger.error("{}", error)
        return _exit_with_message(EXIT_CONFIG, str(error))
    except LockHeld as error:
        logger.error("{}", error)
        return _exit_with_message(EXIT_ALREADY_RUNNING, str(error))
    except Exception as error:  # noqa: BLE001 last resort: log it, print it, exit
        logger.exception("{} ends by a bug", name)
        return _exit_with_message(
            EXIT_BUG, f"{name}: {type(error).__name__}: {error} (the traceback is in {home.log / name}.log)"
        )
    finally:
        os.close(lock)
    logger.info("{} ends as asked", name)
    return 0


def read_supervisor_pid() -> int | None:
    """The parent process, by supervisord's pid file; None without one, or if another supervisord started this process.

    getppid() alone would be wrong if supervisord was killed during the start: init is the parent then.
    """
    server = os.environ.get("SUPERVISOR_SERVER_URL", "").removeprefix("unix://")
    if Path(server).resolve() != (find_home_root() / "run" / "supervisor.sock").resolve():
        return None
    try:
        return int((find_home_root() / "run" / "supervisord.pid").read_text())
    except (FileNotFoundError, ValueError):
        return None


def is_waiting_for_disk(pid: int) -> bool:
    """Whether a thread of the process is in the kernel's uninterruptible sleep (D), where no signal reaches it."""
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):  # the thread has ended
            if path.read_text().rpartition(")")[2].split()[0] == "D":
                return True
    return False


def exit_with_parent(parent: int | None = None) -> None:
    """Make the kernel send SIGTERM when the parent dies; send it now if the parent is no longer `parent`."""
    expected_parent = os.getppid() if parent is None else parent
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != expected_parent:
        os.kill(os.getpid(), signal.SIGTERM)


def configure_logging(home: Home, name: str) -> None:
    """Log to HOME/log/NAME.log, rotated; never the values of variables (they may be secrets)."""
    from loguru import logger

    table = home.settings.log
    logger.remove()
    try:
        logger.add(
            str(home.log / f"{name}.log").replace("{", "{{").replace("}", "}}"),  # loguru formats the path
            level=table.level,
            rotation=table.rotation,
            retention=table.retention,
            format="{time:YYYY-MM-DD HH:mm:ss.SSS} {level:<7} {extra[process]} {message}",
            diagnose=False,
            backtrace=False,
            enqueue=False,
        )
    except ValueError:
        fault = Fault(home.root / SETTINGS_FILE, "log.rotation", "not_rotation", found=repr(table.rotation))
        raise SettingsError(fault) from None
    logger.configure(extra={"process": name}, patcher=_make_entry_safe)


def find_rotation_fault(home: Home) -> Fault | None:
    """The fault of a log rotation that the library cannot read; no file is made."""
    from loguru import logger

    rotation = home.settings.log.rotation
    try:
        logger.remove(logger.add(home.log / "check.log", rotation=rotation, delay=True, filter=lambda _: False))
    except ValueError:
        return Fault(home.root / SETTINGS_FILE, "log.rotation", "not_rotation", found=repr(rotation))
    return None


def _make_entry_safe(record: Record) -> None:
    """The message on one line, a traceback indented below it, both without control characters and secrets."""
    lines = [record["message"]]
    if (error := record["exception"]) is not None:
        record["exception"] = None
        text = hide_secrets("".join(traceback.format_exception(error.type, error.value, error.traceback)))
        lines += [f"    {line}" for line in text.rstrip("\n").split("\n")]
    record["message"] = "\n".join(escape_controls(hide_secrets(line)) for line in lines)


def acquire_lock(path: Path, stop: ShutdownSignal, timeout_s: float | None = None) -> int:
    """Lock `path` until exit, waiting for a predecessor; the open descriptor. AlreadyRunning if it does not exit in time."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        lock_file(fd, path, stop.wait, timeout_s)
    except LockHeld as error:
        os.close(fd)
        raise AlreadyRunning(str(error)) from None
    with suppress(OSError):  # a full disk: the lock is valid, only its holder's pid is missing
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _exit_with_message(code: int, message: str) -> int:
    print(escape_controls(hide_secrets(message)), file=sys.stderr, flush=True)  # noqa: T201 supervisord keeps it in log/NAME.out
    return code
