"""A lock on a directory, for the few lines that only one process of a home may be in at a time.

Promises: gone with its process, however that ends; nothing is left on disk.
Leaves to others: locks held for life (process.py, ringbuf/ring.py).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def directory_lock(directory: Path) -> Iterator[None]:
    """Wait until no other process is inside a block on the same directory, which must exist."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
