"""Homes, simulators and process trees for tests: all real, all short-lived.

Unix socket paths are short (homes lie directly under /tmp); rings are removed with their home.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from collectorctl.init import lay_out

SAMPLES = Path(__file__).parents[3] / "shared" / "specs" / "samples"
BIN = Path(sys.executable).parent
SECRETS = {
    "KIS_APP_KEY": "key-of-kis",
    "KIS_APP_SECRET": "secret-of-kis",
    "KIWOOM_APP_KEY": "key-of-kiwoom",
    "KIWOOM_APP_SECRET": "secret-of-kiwoom",
    "US_APP_KEY": "key-of-us",
    "US_APP_SECRET": "secret-of-us",
}

# a proxy of the machine has no business between two loopback sockets
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


@contextmanager
def a_home(settings: str) -> Iterator[Path]:
    """A home with these settings and some secrets; whatever still runs in it at the end is stopped, and all is removed."""
    root = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    lay_out(root)
    (root / "collector.toml").write_text(settings)
    (root / ".env").touch(mode=0o600)
    (root / ".env").write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))
    try:
        yield root
    finally:
        if (root / "run" / "supervisor.sock").exists():
            collectorctl(root, "stop", check=False)
        ring = root / "run" / "ring"
        if ring.is_symlink():
            shutil.rmtree(ring.resolve(), ignore_errors=True)
        shutil.rmtree(root)


def collectorctl(
    home: Path, *words: str, check: bool = True, timeout_s: float = 200
) -> subprocess.CompletedProcess[str]:
    """Run the installed command on a home, as a user does."""
    ran = subprocess.run(
        [BIN / "collectorctl", "--home", home, *words], capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if check and ran.returncode != 0:
        raise AssertionError(f"collectorctl {' '.join(words)}: exit {ran.returncode}\n{ran.stdout}\n{ran.stderr}")
    return ran


def status(home: Path) -> dict[str, Any]:
    """`status --json`, with the processes by name."""
    seen = msgspec.json.decode(collectorctl(home, "status", "--json", check=False).stdout)
    seen["processes"] = {process["name"]: process for process in seen["processes"]}
    return seen


def until(what: str, ask: Callable[[], Any], most_s: float = 30) -> Any:
    """Wait until `ask` returns something true, and return that."""
    give_up = time.monotonic() + most_s
    while True:
        found = ask()
        if found:
            return found
        assert time.monotonic() < give_up, f"waited {most_s} s in vain until {what}"
        time.sleep(0.05)
