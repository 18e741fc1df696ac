"""Ring directories of this host: what may delete this home's, and which belong to no home any more.

Guarantees:
    * Nothing is deleted here; a directory is called orphaned only if no process writes a ring in it.
"""

from __future__ import annotations

from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
MIN_LOGIN_UID = 1000
"""logind leaves the files of system users alone."""


def find_removal_risk(directory: Path, user: str, uid: int, root: Path = Path("/")) -> str:
    """Why logind may delete a ring directory, and what prevents it; "" where it does not. `root`: of the file system."""
    if not directory.is_relative_to(SHARED_MEMORY) or uid < MIN_LOGIN_UID or not (root / "run/systemd/system").is_dir():
        return ""
    if (root / "var/lib/systemd/linger" / user).exists() or _read_remove_ipc(root) == "no":
        return ""
    return (
        f"{directory}: logind deletes it when {user} logs out last (RemoveIPC): run `loginctl enable-linger {user}`, set "
        'RemoveIPC=no in /etc/systemd/logind.conf, or let a unit own it (RuntimeDirectory=NAME, and paths.ring = "/run/NAME")'
    )


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
