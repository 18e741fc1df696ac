"""Ring directories of this host: what may delete this home's, and which belong to no home any more.

Guarantees:
    * Nothing is deleted here; a directory is called orphaned only if no process writes a ring in it.
"""

from __future__ import annotations

import fcntl
import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from collectorctl.check_messages import MESSAGES
from conf.home import RING_OWNER
from conf.text.language import Language, Texts

SHARED_MEMORY = Path("/dev/shm")
MIN_LOGIN_UID = 1000
"""logind leaves the files of system users alone."""


def find_removal_risk(directory: Path, user: str, uid: int, root: Path = Path("/"), language: Language = "en") -> str:
    """Why logind may delete a ring directory, and what prevents it; "" where it does not. `root`: of the file system."""
    if not directory.is_relative_to(SHARED_MEMORY) or uid < MIN_LOGIN_UID or not (root / "run/systemd/system").is_dir():
        return ""
    if (root / "var/lib/systemd/linger" / user).exists() or _read_remove_ipc(root) == "no":
        return ""
    return Texts(language, MESSAGES)("removal_risk", directory=directory, user=user)


MAX_LISTED = 5


def find_orphans(directories: Iterable[Path], language: Language = "en") -> list[str]:
    """Each of these ring directories that no home leads to and no process writes in, with the command that removes it.

    Of more than MAX_LISTED the rest in one line.
    """
    texts, found, unlisted_mb = Texts(language, MESSAGES), list[str](), list[float]()
    for directory in directories:
        link = _read_owner(directory)
        if (link is not None and link.is_symlink() and link.resolve() == directory) or _is_written(directory):
            continue
        try:
            megabytes = sum(path.stat().st_blocks * 512 for path in directory.iterdir()) / 1e6
        except FileNotFoundError:
            continue  # its home removes it just now
        if len(found) == MAX_LISTED:
            unlisted_mb.append(megabytes)
            continue
        values = {"directory": directory, "megabytes": megabytes, "command": f"rm -r {shlex.quote(str(directory))}"}
        found.append(texts("orphan", link=link, **values) if link else texts("orphan_nameless", **values))
    if unlisted_mb:
        found.append(texts("orphans_more", count=len(unlisted_mb), megabytes=sum(unlisted_mb)))
    return found


def _read_owner(directory: Path) -> Path | None:
    """The link that led to a ring directory; None where nothing says so."""
    try:
        return Path((directory / RING_OWNER).read_text().strip())
    except OSError:
        return None


def _is_written(directory: Path) -> bool:
    """Whether a process has one of the rings for writing: it may have lost its home, or the directory its owner file."""
    for path in directory.glob("*.ring"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
    return False


def _read_remove_ipc(root: Path) -> str:
    """The setting that holds: files of a later directory come after logind.conf, and the last word counts."""
    value = "yes"
    dropped_in = [
        path for name in ("usr/lib", "etc") for path in sorted((root / name / "systemd/logind.conf.d").glob("*.conf"))
    ]
    for path in (root / "etc/systemd/logind.conf", *dropped_in):
        if path.is_file():
            for line in path.read_text(errors="replace").splitlines():
                key, _, text = line.partition("=")
                if key.strip() == "RemoveIPC":
                    value = "no" if text.strip().lower() in ("no", "false", "off", "0") else "yes"
    return value
