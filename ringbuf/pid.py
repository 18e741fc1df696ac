"""Process numbers of processes that are not children of this one."""

from __future__ import annotations

import os


def is_running(pid: int) -> bool:
    """Whether a process has this number: the one that wrote it down, or a later one."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
