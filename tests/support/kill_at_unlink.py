"""A removal of old files that is killed at a chosen file; a module of its own, so that a fork server can find it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from collectorctl.disk.clean import clean
from conf.home import Home


def clean_and_kill(root: Path, at: int) -> None:
    """Clean `root`; SIGKILL itself just before the `at`-th file goes."""
    unlink, count = os.unlink, 0

    def unlink_or_die(*arguments: object, **options: object) -> None:
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        unlink(*arguments, **options)  # type: ignore[arg-type]

    os.unlink = unlink_or_die  # type: ignore[assignment]
    clean(Home(root))
