"""Directory layout of an installation (home).

    HOME/
      collector.toml  supervisord.conf  .env
      data/   kr/{orderbook,tick}/date=/hour=/part-N.parquet   kr/symbol/date=/part-0.parquet
              universe/date=.json   journal/   quarantine/   capture/   report/
      run/    supervisor.sock  NAME.lock  publish/DATE.lock  NAME.vitals  {clock,calendar,universe}.json  token/  capture/FEED
              ring -> directory of the rings
      log/    NAME.log  NAME.out

Guarantees:
    * Every path of a home is built here.
    * run/ and the rings are their owner's alone, or one group may read the rings (`ring.reader_group`).
    * A run/ that another user owns or may write in is refused.
    * A home whose path has control characters, or bytes that are no UTF-8, is refused.
    * `create_directories` may run in many processes at once and any number of times.
"""

from __future__ import annotations

import errno
import grp
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from hashlib import sha256
from pathlib import Path

import msgspec

from conf import clock
from conf.calendar import TradingCalendar
from conf.clock import Clock, to_kst
from conf.files.access import set_ring_access, set_run_access
from conf.files.lock import Wait, directory_lock, sleep
from conf.files.replacement import read_replaced
from conf.holidays import load_holidays
from conf.instrument import Instrument, parse_instrument
from conf.loader import SETTINGS_FILE, load_settings
from conf.settings import Fault, Settings, SettingsError
from conf.text.escape import escape_controls
from conf.universe.listing import UniverseList, choose_dated, format_dated_name, is_applicable, parse_dated_name

SHM, TMP, USER_RUNTIME = Path("/dev/shm"), Path("/tmp"), Path("/run/user")
SHARED_RING_PREFIX = "collectorctl"
RING_OWNER = "owner"
"""File in a ring directory outside its home: the link of the home that leads to it."""
UNIVERSE_FILE = "universe.json"
SYMBOL_DATASET = "symbol"
"""The dataset that days without a session may have as well: no measure of what a day takes."""
MAX_BOOK_BYTES, MAX_TICK_BYTES = 512, 192
"""Upper bound of a record's size, for the check of free space; the ring has the exact size."""


class Home:
    """One installation: its directory, its settings, its paths."""

    def __init__(self, root: Path, settings: Settings | None = None) -> None:
        """Read the settings of `root` unless given; SettingsError if they cannot be used."""
        self.root = root.resolve()
        reject_unusable_path(self.root)
        self.settings = settings or load_settings(self.root)
        self.data = self.root / self.settings.paths.data
        self.run = self.root / self.settings.paths.run
        self.log = self.root / self.settings.paths.log
        self._list_version = self._read_list_version()
        if settings is None:
            self.settings = self._with_list_in_force(self.settings)
        self._calendars: dict[int, TradingCalendar] = {}

    def _with_list_in_force(self, settings: Settings) -> Settings:
        """The settings with the list that the last `start` or `reload` put in force, where they have it to ask."""
        universe, found = settings.universe, None
        with suppress(PermissionError, NotADirectoryError):  # another user, or what `create_directories` refuses
            found = read_replaced(self.universe_path(), UniverseList)
        if found is None or not is_applicable(found, universe.kr, universe.us):
            return settings
        return msgspec.structs.replace(settings, in_force=found)

    def _read_list_version(self) -> tuple[int, int] | None:
        """What changes with each list in force."""
        with suppress(FileNotFoundError, PermissionError, NotADirectoryError):
            found = self.universe_path().stat()
            return found.st_ino, found.st_mtime_ns
        return None

    def take_up_list(self) -> bool:
        """Take up the list that was put in force since this home was read; whether there was one. OSError."""
        version = self._read_list_version()
        if version == self._list_version:
            return False
        self._list_version = version  # of before the read: a list that comes in between is taken up the next time
        found = read_replaced(self.universe_path(), UniverseList)
        if found is not None:
            self.settings = msgspec.structs.replace(self.settings, in_force=found)
        return found is not None

    def instruments_of(self, day: date) -> list[Instrument]:
        """The Korean instruments that were in force on a day: those of all its dated lists, else the settings'.

        OSError, msgspec.MsgspecError: a list that cannot be read.
        """
        known = [found for path in self.universe_directory().glob("*.json") if (found := parse_dated_name(path.name))]
        lists = [
            msgspec.json.decode((self.universe_directory() / format_dated_name(*one)).read_bytes(), type=UniverseList)
            for one in choose_dated(known, day)
        ]
        if not lists:
            return self.settings.instruments()
        return [parse_instrument(text) for text in dict.fromkeys(text for one in lists for text in one.kr)]

    def create_directories(self, wait: Wait = sleep) -> None:
        """Create the directories that are missing, and the place for the rings. LockHeld if another process keeps that from us."""
        self._create_directory("data", self.data, 0o777)
        self._create_directory("log", self.log, 0o700)
        self._create_directory("run", self.run, 0o700)
        self._restrict_run()
        ring = self.run / "ring"
        if not ring.exists():
            with directory_lock(self.run, wait):
                if ring.is_symlink() and not ring.exists():
                    ring.unlink()  # its target was in /dev/shm before a reboot
                if not ring.exists():
                    self._create_ring_directory(ring)
        with suppress(FileNotFoundError):  # deleted meanwhile: whoever makes it again goes by run/
            self._set_access(set_ring_access, ring.resolve())
        self.mark_ring_directory()

    def mark_ring_directory(self) -> None:
        """Leave the name of this home in a ring directory outside it, so that it is known for whose rings these are."""
        ring = self.run / "ring"
        with suppress(OSError):  # a full disk: tried again
            if ring.is_symlink() and ring.exists() and not (ring / RING_OWNER).exists():
                (ring / RING_OWNER).touch(0o600)
                (ring / RING_OWNER).write_text(f"{ring}\n")

    def _create_directory(self, key: str, path: Path, mode: int) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True, mode=mode)
        except OSError as error:
            fault = Fault(self.root / SETTINGS_FILE, f"paths.{key}", "directory", reason=str(error))
            raise SettingsError(fault) from None

    def find_directory_faults(self) -> list[Fault]:
        """Why `create_directories` would be refused; nothing is created or changed."""
        faults = []
        for key, path in (("data", self.data), ("log", self.log), ("run", self.run)):
            place = next(each for each in (path, *path.parents) if os.path.lexists(each))
            if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
                reason = f"{place} {'may not be written' if place.is_dir() else 'is no directory'}"
                faults.append(Fault(self.root / SETTINGS_FILE, f"paths.{key}", "directory", reason=reason))
        if self.run.is_dir() and (fault := self._find_run_fault()):
            faults.append(fault)
        with suppress(KeyError):
            gid = self._reader_gid()
            if gid is None or os.geteuid() == 0 or gid in (os.getegid(), *os.getgroups()):
                return faults
        return [*faults, self._group_fault()]

    def _reader_gid(self) -> int | None:
        """The group that may read the rings. KeyError: there is none of that name."""
        name = self.settings.ring.reader_group
        return grp.getgrnam(name).gr_gid if name else None

    def _group_fault(self) -> Fault:
        return Fault(
            self.root / SETTINGS_FILE, "ring.reader_group", "reader_group", group=self.settings.ring.reader_group
        )

    def _set_access(self, setter: Callable[[Path, int | None], None], directory: Path) -> None:
        try:
            setter(directory, self._reader_gid())
        except (KeyError, PermissionError):
            raise SettingsError(self._group_fault()) from None

    def _find_run_fault(self) -> Fault | None:
        """The fault of a run/ in which others may have created files already."""
        found = self.run.stat()
        if found.st_uid != os.geteuid():
            return Fault(self.run, "owner", "run_owner", owner=found.st_uid, user=os.geteuid())
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return Fault(self.run, "mode", "run_mode", path=self.run)
        return None

    def _restrict_run(self) -> None:
        """Restrict run/ to its owner and the readers; SettingsError if others may have created files there already."""
        if fault := self._find_run_fault():
            raise SettingsError(fault)
        self._set_access(set_run_access, self.run)

    def _create_ring_directory(self, ring: Path) -> None:
        if self.settings.paths.ring:
            target = self.root / self.settings.paths.ring
            self._create_directory("ring", target, 0o700)
            _link(ring, target)
        elif (shared := self._create_shared_memory_directory()) is not None:
            _link(ring, shared)
        else:
            ring.mkdir(mode=0o700)

    def _create_shared_memory_directory(self) -> Path | None:
        """This home's own directory in /dev/shm; None if there is no room for three feeds, or it cannot be private."""
        needed_bytes = 3 * (
            self.settings.ring.orderbook_capacity * MAX_BOOK_BYTES + self.settings.ring.tick_capacity * MAX_TICK_BYTES
        )
        if not SHM.is_dir() or not os.access(SHM, os.W_OK) or shutil.disk_usage(SHM).free < needed_bytes:
            return None
        mine = _make_private(self._shared_ring_directory, refused=0o022 if self.settings.ring.reader_group else 0o077)
        return self._shared_ring_directory if mine else None

    @property
    def _shared_ring_directory(self) -> Path:
        return SHM / f"{SHARED_RING_PREFIX}-{os.getuid()}-{sha256(os.fsencode(self.root)).hexdigest()[:12]}"

    @property
    def ring_directory(self) -> Path:
        """Where the rings are, or where they will be made if there is room."""
        if (self.run / "ring").is_symlink():
            return (self.run / "ring").resolve()
        if (self.run / "ring").is_dir():
            return self.run / "ring"
        return self.root / self.settings.paths.ring if self.settings.paths.ring else self._shared_ring_directory

    @property
    def key_lock_directory(self) -> Path:
        """Where the homes of this host have the locks of their keys."""
        if self.settings.paths.key_locks:
            return self.root / self.settings.paths.key_locks
        for runtime in (Path(os.environ.get("XDG_RUNTIME_DIR") or "/nowhere"), USER_RUNTIME / str(os.getuid())):
            if runtime.is_dir() and runtime.stat().st_uid == os.getuid():
                return runtime / "collectorctl"
        return TMP / f"collectorctl-{os.getuid()}"

    def create_key_lock_directory(self) -> None:
        """Create that directory if it is missing. OSError; a default one that others may have created is refused."""
        directory = self.key_lock_directory
        if self.settings.paths.key_locks:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        elif not _make_private(directory):
            raise PermissionError(
                errno.EPERM, "others may write there: remove it, or set paths.key_locks", os.fspath(directory)
            )

    def other_ring_directories(self) -> list[Path]:
        """The ring directories of this user's other homes, existing or not, in /dev/shm."""
        found = sorted(SHM.glob(f"{SHARED_RING_PREFIX}-{os.getuid()}-*"))
        return [path for path in found if path.is_dir() and path != self.ring_directory]

    def ring_path(self, feed: str, stream: str) -> Path:
        """The ring of a feed ("kis") and stream ("orderbook")."""
        return self.run / "ring" / f"{feed}.{stream}.ring"

    def vitals_path(self, name: str) -> Path:
        """The vitals page of a process; with the rings, so that a heartbeat costs no disk write."""
        return self.run / "ring" / f"{name}.vitals"

    def lock_path(self, name: str) -> Path:
        """The lock file that makes a process of that name the only one."""
        return self.run / f"{name}.lock"

    def date_lock_path(self, day: str) -> Path:
        """The lock file of whoever changes the partitions of a date ("2026-11-20")."""
        return self.run / "publish" / f"{day}.lock"

    def token_path(self, broker: str, number: int = 1) -> Path:
        """The cached access token of a broker's key pair `number`, 0600."""
        return self.run / "token" / f"{broker}{f'-{number}' if number > 1 else ''}.json"

    def socket_path(self) -> Path:
        """The unix socket of supervisord."""
        return self.run / "supervisor.sock"

    def journal_directory(self, dataset: str) -> Path:
        """The journal of a dataset such as "kr.orderbook"."""
        return self.data / "journal" / dataset

    def gap_report_path(self, market: str) -> Path:
        """The snapshot of a market's gaps that the writer publishes."""
        return self.run / ("volume.json" if market == "kr" else f"volume.{market}.json")

    def feed_report_path(self) -> Path:
        """The snapshot of the feeds that the writer publishes."""
        return self.run / "lines.json"

    def day_report_path(self) -> Path:
        """The snapshot of the day's incidents that the writer publishes."""
        return self.run / "day.json"

    def acknowledgement_path(self) -> Path:
        """Up to where a person has acknowledged losses."""
        return self.run / "acknowledged.json"

    def notify_ledger_path(self) -> Path:
        """What was sent to whom, 0600."""
        return self.run / "notify.json"

    def quarantine_directory(self) -> Path:
        """Raw frames that could not be decoded."""
        return self.data / "quarantine"

    def capture_directory(self, feed: str) -> Path:
        """Raw frames of a feed as received, where that is switched on."""
        return self.data / "capture" / feed

    def capture_switch_path(self, feed: str) -> Path:
        """A file that exists while the frames of a feed are to be captured."""
        return self.run / "capture" / feed

    def symbol_path(self, day: date) -> Path:
        """The table of a day's symbols."""
        return self.data / "kr" / SYMBOL_DATASET / f"date={day}" / "part-0.parquet"

    def symbol_names_path(self) -> Path:
        """The names out of the newest of these tables, for those who open no Parquet file."""
        return self.run / "symbol_names.json"

    def universe_path(self) -> Path:
        """The list of instruments in force, replaced by `start` and `reload` alone."""
        return self.run / UNIVERSE_FILE

    def universe_directory(self) -> Path:
        """The lists that were in force, by day."""
        return self.data / "universe"

    def report_path(self, day: date) -> Path:
        """The page of a day; the index of all days lies beside it."""
        return self.data / "report" / f"{day}.html"

    def load_clock(self) -> Clock:
        """The clock that all processes of this home share."""
        table = self.settings.clock
        return clock.simulated(table.start, table.speed, self.run / "clock.json") if table.start else clock.real()

    def load_calendar(self) -> TradingCalendar:
        """The trading calendar that all processes of this home share; loaded once a year."""
        year = to_kst(self.load_clock().now_ns()).year
        table = self.run / "calendar.json"
        if year not in self._calendars or not table.exists():  # it is made again when there is room for it
            self._calendars[year] = TradingCalendar(self.settings, load_holidays(table, year))
        return self._calendars[year]


def _make_private(directory: Path, refused: int = 0o077) -> bool:
    """Create the directory if it is missing; whether it is this user's alone (its name may be taken where anybody may write).

    `refused`: bits of a mode with which it is not.
    """
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & refused


def _link(ring: Path, target: Path) -> None:
    with suppress(FileExistsError):  # a living process, whose ring directory was deleted, has just made the link again
        ring.symlink_to(target)


def reject_unusable_path(root: Path) -> None:
    """SettingsError for a path that messages and JSON cannot show as it is; supervisord can express every other one."""
    if escape_controls(str(root)) != str(root):
        raise SettingsError(Fault(root, "home", "path_controls"))
