"""Where things lie in a home.

    HOME/
      collector.toml  supervisord.conf  .env
      data/   kr/{orderbook,tick}/date=/hour=/part-N.parquet   journal/   quarantine/
      run/    supervisor.sock  NAME.lock  NAME.vitals  clock.json  token/  ring -> where the rings are
      log/    NAME.log  NAME.out

Promises: one place for every path; run/ and what is below it is for the owner only (0700).
Leaves to others: what the files contain.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from conf import clock
from conf.clock import Clock
from conf.settings import Settings, load

SHM = Path("/dev/shm")
BOOK_BYTES, TICK_BYTES = 512, 192
"""What a record takes at most, for asking whether there is room; the ring knows exactly."""


class Home:
    """One installation: its directory, its settings, its paths."""

    def __init__(self, root: Path, settings: Settings | None = None) -> None:
        """Read the settings of `root` unless given; SettingsError if they cannot be used."""
        self.root = root.resolve()
        self.settings = settings or load(self.root)
        self.data = self.root / self.settings.paths.data
        self.run = self.root / self.settings.paths.run
        self.log = self.root / self.settings.paths.log

    def make(self) -> None:
        """Create the directories that are missing, and the place for the rings."""
        self.data.mkdir(parents=True, exist_ok=True)
        self.log.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.run.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.run.chmod(0o700)
        ring = self.run / "ring"
        if ring.is_symlink() and not ring.exists():
            ring.unlink()  # its target went with a reboot
        if ring.exists():
            return
        target = self._ring_place()
        if target is None:
            ring.mkdir(mode=0o700, exist_ok=True)
            return
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileExistsError):  # another process of this home was faster; it chose the same place
            ring.symlink_to(target)

    def _ring_place(self) -> Path | None:
        if self.settings.paths.ring:
            return self.root / self.settings.paths.ring
        need = 3 * (self.settings.ring.orderbook_capacity * BOOK_BYTES + self.settings.ring.tick_capacity * TICK_BYTES)
        if not SHM.is_dir() or not os.access(SHM, os.W_OK) or shutil.disk_usage(SHM).free < need:
            return None
        return SHM / f"collectorctl-{os.getuid()}-{sha256(os.fsencode(self.root)).hexdigest()[:12]}"

    def ring(self, line: str, stream: str) -> Path:
        """The ring of a line ("kis") and stream ("orderbook")."""
        return self.run / "ring" / f"{line}.{stream}.ring"

    def vitals(self, name: str) -> Path:
        """The vitals page of a process; beside the rings, so that no disk is written for a heartbeat."""
        return self.run / "ring" / f"{name}.vitals"

    def lock(self, name: str) -> Path:
        """What only one process of that name holds."""
        return self.run / f"{name}.lock"

    def token(self, broker: str) -> Path:
        """A broker's cached access token, 0600."""
        return self.run / "token" / f"{broker}.json"

    def socket(self) -> Path:
        """Where supervisord listens."""
        return self.run / "supervisor.sock"

    def journal(self, dataset: str) -> Path:
        """The journal of a dataset such as "kr.orderbook"."""
        return self.data / "journal" / dataset

    def quarantine(self) -> Path:
        """Raw frames that could not be decoded."""
        return self.data / "quarantine"

    def clock(self) -> Clock:
        """The clock all processes of this home share."""
        table = self.settings.clock
        return clock.warped(table.start, table.speed, self.run / "clock.json") if table.start else clock.real()
