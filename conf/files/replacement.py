"""Small file that is replaced whole: a reader finds all of it, this one or the one before.

    bytes ──write──> .NAME.new ──rename──> NAME

Not handled here:
    * A power cut: it may leave an empty file. What must outlive one is written by writer/durable_io.py.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

Content = TypeVar("Content")

PRIVATE, PUBLIC = 0o600, 0o644


def replace_file(path: Path, data: bytes, mode: int = PUBLIC) -> None:
    """Put `data` in place of a file, or of the link that is there. OSError: `path` is as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)  # a leftover keeps its old mode, or is somebody else's link
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def read_replaced(path: Path, kind: type[Content]) -> Content | None:
    """The JSON struct in such a file; None if there is no file, or none of this kind in it (garbage, another version). OSError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
