"""Where things lie in a home.

    HOME/
      collector.toml  supervisord.conf  .env
      data/   kr/{orderbook,tick}/date=/hour=/part-N.parquet   journal/   quarantine/
      run/    supervisor.sock  NAME.lock  NAME.vitals  {clock,calendar}.json  token/  ring -> where the rings are
      log/    NAME.log  NAME.out

Promises: one place for every path; run/ and what is below it is for the owner only (0700), and a run/ that others own or
may write in is refused; `make` may run in many processes at
once and again at any time.
Leaves to others: what the files contain.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from conf import clock
from conf.calendar import Calendar
from conf.clock import Clock, korean
from conf.filelock import alone_in
from conf.holidays import almanac
from conf.loader import FILE, load
from conf.settings import Settings, SettingsError

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
        self._directory("data", self.data, 0o777)
        self._directory("log", self.log, 0o700)
        self._directory("run", self.run, 0o700)
        self._close_run()
        with alone_in(self.run):
            ring = self.run / "ring"
            if ring.is_symlink() and not ring.exists():
                ring.unlink()  # its target went with a reboot
            if not ring.exists():
                self._place_rings(ring)

    def _directory(self, key: str, path: Path, mode: int) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True, mode=mode)
        except OSError as error:
            raise SettingsError(
                self.root / FILE, f"paths.{key}", str(error), "name a directory that you may write"
            ) from None

    def _close_run(self) -> None:
        """Keep others out of run/; SettingsError if they may have put something there already."""
        found = self.run.stat()
        if found.st_uid != os.geteuid():
            what = f"belongs to user {found.st_uid}, you are user {os.geteuid()}"
            raise SettingsError(self.run, "owner", what, "run as that user, or remove the directory")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            write = f"look for what they put there, then run: chmod 700 {self.run}"
            raise SettingsError(self.run, "mode", "others than you may write in it", write)
        self.run.chmod(0o700)

    def _place_rings(self, ring: Path) -> None:
        if self.settings.paths.ring:
            target = self.root / self.settings.paths.ring
            self._directory("ring", target, 0o700)
            ring.symlink_to(target)
        elif (shared := self._shared_memory()) is not None:
            ring.symlink_to(shared)
        else:
            ring.mkdir(mode=0o700)

    def _shared_memory(self) -> Path | None:
        """This home's own directory in /dev/shm; None if there is no room for three lines, or it cannot be private."""
        need = 3 * (self.settings.ring.orderbook_capacity * BOOK_BYTES + self.settings.ring.tick_capacity * TICK_BYTES)
        if not SHM.is_dir() or not os.access(SHM, os.W_OK) or shutil.disk_usage(SHM).free < need:
            return None
        place = SHM / f"collectorctl-{os.getuid()}-{sha256(os.fsencode(self.root)).hexdigest()[:12]}"
        with suppress(FileExistsError):
            place.mkdir(mode=0o700)
        found = place.lstat()  # anybody may write in /dev/shm: the name may have been taken by somebody else
        mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
        return place if mine else None

    def ring(self, line: str, stream: str) -> Path:
        """The ring of a line ("kis") and stream ("orderbook")."""
        return self.run / "ring" / f"{line}.{stream}.ring"

    def vitals(self, name: str) -> Path:
        """The vitals page of a process; beside the rings, so that no disk is written for a heartbeat."""
        return self.run / "ring" / f"{name}.vitals"

    def lock(self, name: str) -> Path:
        """What only one process of that name holds."""
        return self.run / f"{name}.lock"

    def token(self, broker: str, number: int = 1) -> Path:
        """The cached access token of a broker's key pair `number`, 0600."""
        return self.run / "token" / f"{broker}{f'-{number}' if number > 1 else ''}.json"

    def socket(self) -> Path:
        """Where supervisord listens."""
        return self.run / "supervisor.sock"

    def journal(self, dataset: str) -> Path:
        """The journal of a dataset such as "kr.orderbook"."""
        return self.data / "journal" / dataset

    def volume(self, market: str) -> Path:
        """What the writer last told of a market's volume line."""
        return self.run / ("volume.json" if market == "kr" else f"volume.{market}.json")

    def quarantine(self) -> Path:
        """Raw frames that could not be decoded."""
        return self.data / "quarantine"

    def clock(self) -> Clock:
        """The clock all processes of this home share."""
        table = self.settings.clock
        return clock.warped(table.start, table.speed, self.run / "clock.json") if table.start else clock.real()

    def calendar(self) -> Calendar:
        """The sessions of all days, as all processes of this home see them."""
        year = korean(self.clock().now_ns()).year
        return Calendar(self.settings, almanac(self.run / "calendar.json", year))
