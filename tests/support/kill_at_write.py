"""A run of requarantine that is killed at a chosen effect on the disk; a module of its own, so that a fork server can find it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from collectorctl.reprocess.job import reprocess
from conf.home import Home
from writer import durable_io

EFFECTS = ("append", "create", "remove", "rename", "link_new", "sync", "sync_directory", "truncate", "open_temporary")


def run_and_kill(root: Path, day: date, at: int) -> None:
    """Run it in `root`; SIGKILL itself just before the `at`-th effect."""
    count = 0

    def count_effect(effect: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return effect(*arguments, **options)

        return wrapper

    for name in EFFECTS:
        setattr(durable_io, name, count_effect(getattr(durable_io, name)))
    shutil.rmtree = count_effect(shutil.rmtree)  # type: ignore[assignment]
    reprocess(Home(root), day, dry_run=False)
