"""A run of requarantine that is killed at a chosen effect on the disk; a module of its own, so that a fork server can find it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from collectorctl.reprocess.job import requarantine
from conf.home import Home
from writer import durable_io

EFFECTS = ("append", "create", "remove", "rename", "sync", "sync_directory", "truncate", "write_aside")


def run(root: Path, day: date, at: int) -> None:
    """Run it in `root`; SIGKILL itself just before the `at`-th effect."""
    count = 0

    def counted(effect: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return effect(*arguments, **options)

        return instead

    for name in EFFECTS:
        setattr(durable_io, name, counted(getattr(durable_io, name)))
    shutil.rmtree = counted(shutil.rmtree)  # type: ignore[assignment]
    requarantine(Home(root), day, dry_run=False)
