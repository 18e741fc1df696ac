"""A writer whose effects on the disk fail or take long, as a file of the home tells it while it runs.

    faults     sync kr.event EIO        every fsync of that dataset's journal fails
               append kr.tick ENOSPC 3  three appends fail
               sync kr. 2.5             every fsync of any Korean dataset takes 2.5 s first

An effect belongs to what its path contains. A failed fsync drops what was not durable from the file, as a disk that lost its pages.
"""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.writer_data import start_writer

from conf.home import Home
from conf.process import run_process
from writer import durable_io

EFFECTS = ("append", "create", "remove", "rename", "link_new", "sync", "sync_directory", "truncate", "open_temporary")
NAME = "faults"

FAULTY_WRITER = f"""
import sys
sys.path[:0] = {[str(path) for path in Path(__file__).parents[1:3]][::-1]!r}
from support.faulty_disk import run
sys.exit(run())
"""


def start_faulty_writer(home: Home) -> subprocess.Popen[bytes]:
    """A writer process that obeys `set_faults`."""
    return start_writer(home, FAULTY_WRITER)


def set_faults(home: Home, *lines: str) -> None:
    """From now on these faults, and no other."""
    temporary = home.root / f"{NAME}.new"
    temporary.write_text("\n".join(lines))
    temporary.replace(home.root / NAME)


def run() -> int:
    """The writer, its effects wrapped."""
    faults = _Faults(Path(os.environ["COLLECTOR_HOME"]) / NAME)
    for effect in EFFECTS:
        setattr(durable_io, effect, faults.wrap(effect, getattr(durable_io, effect)))
    from writer.service import main

    return run_process("writer", main)


class _Faults:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._hits: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._durable_bytes: dict[str, int] = {}

    def wrap(self, effect: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            target = arguments[0]
            path = str(Path(f"/proc/self/fd/{target}").readlink()) if isinstance(target, int) else str(target)
            fault = self._find(effect, path)
            if fault.replace(".", "").isdigit():
                time.sleep(float(fault))
            elif fault:
                if effect == "sync":  # the kernel forgets the pages, and the next fsync succeeds
                    os.truncate(path, self._durable_bytes.get(path, 0))
                raise OSError(getattr(errno, fault), os.strerror(getattr(errno, fault)))
            result = real(*arguments, **options)
            if effect == "sync":
                self._durable_bytes[path] = Path(path).stat().st_size
            return result

        return wrapper

    def _find(self, effect: str, path: str) -> str:
        """The fault of this call, "" for none."""
        try:
            lines = self._path.read_text().splitlines()
        except FileNotFoundError:
            return ""
        for line in lines:
            name, part, fault, *limit = line.split()
            if name == effect and part in path:
                with self._lock:
                    self._hits[line] += 1
                    if not limit or self._hits[line] <= int(limit[0]):
                        return fault
        return ""
