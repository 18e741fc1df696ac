"""A run of recovery, stage by stage.

    plan ─> fetch ─> fill ─┐ for each instrument, most missing value first
                           └─> publish ─> certify ─> data/kr/completeness/date=D/part-0.parquet

Promises: one run at a time in a home; nothing is written for a day that cannot be recovered; a run that is killed is continued by
the next, which ends with the same files; a run that finds nothing to do changes no byte.
Leaves to others: each stage (the modules beside), the commands' words and exits (../commands/day.py), what is shown (show.py).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date

import msgspec
import numpy as np
import pyarrow as pa

from brokers.errors import BrokerError
from brokers.history import PRINTS, Quotes, quotes
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import Certificate, Grade, certify
from collectorctl.recover.download import minute_bars
from collectorctl.recover.download.daily_totals import Figures
from collectorctl.recover.download.page_store import folder, put
from collectorctl.recover.download.pager import Caller, FetchError, Unanswered
from collectorctl.recover.horizon import Reach
from collectorctl.recover.plan import Item, covered, item, superseded, within
from collectorctl.recover.store import day_ticks, evidence
from collectorctl.recover.store.evidence import Evidence
from collectorctl.recover.store.partition_rewriter import PublishError
from collectorctl.recover.store.publish import Key, publish
from collectorctl.recover.store.staging import Spool
from collectorctl.recover.tick_source import Source
from conf.clock import korean
from conf.home import Home
from conf.instrument import Instrument
from conf.process import Busy
from ringbuf.records import UNDEFINED
from writer.publish.partition import PublicationError

BROKER = "kiwoom"
LIKELY = 0.9
"""Of the highest rate: what is reckoned with until a run has learned better."""


class NotNow(Exception):
    """The day cannot be recovered yet; the message says why and what to do."""


FAILURES = (NotNow, FetchError, PublishError, PublicationError, BrokerError, OSError)
"""What may go wrong in a run without being a bug."""


@dataclass
class Request:
    """What is asked for. `instruments` empty: the home's universe and whatever has ticks on that day."""

    day: date
    instruments: list[Instrument] = field(default_factory=list)
    mode: str = "auto"
    budget_s: float | None = None


class Watcher:
    """Hears of a run's progress; does nothing."""

    def asking(self, instruments: int) -> None:
        """The official figures of that many instruments are asked for."""

    def asked(self) -> None:
        """One of them is known."""

    def planned(self, items: list[Item]) -> None:
        """This is what will be fetched."""

    def page(self, one: Item, pages: int, rate: float) -> None:
        """That many pages of an instrument are there; calls a second at present."""

    def done(self, one: Item) -> None:
        """An instrument's ticks are placed."""

    def words(self, text: str) -> None:
        """Something happened that a user should see."""


class Run:
    """One run on one home; use `recovering` to be alone."""

    def __init__(self, home: Home, request: Request, watcher: Watcher) -> None:
        """SettingsError when keys are missing; OutOfReach for a day that no broker has."""
        self.home = home
        self.day = request.day
        self.request = request
        self.watcher = watcher
        self.reach = Reach(home.settings, home.calendar(), home.clock().now_ns(), request.day)
        self.mode = self.reach.mode(request.mode)
        self.ticks_dir, self.books_dir = (home.data / "kr" / stream for stream in ("tick", "orderbook"))
        self.quotes: Quotes = quotes(home, BROKER)
        self.caller = Caller(self.quotes, home.settings.recover, watcher.words)
        self.figures = Figures(self.caller, request.day, self.reach.today)
        self._evidence: dict[Instrument, Evidence] = {}

    def plan(self) -> list[Item]:
        """What is missing and what it takes. Nothing is written. NotNow while hours of the day are unpublished; FetchError."""
        waiting = day_ticks.unpublished(self.home, self.day)
        if waiting:
            raise NotNow(
                f"{self.day}: hours are still in the journal ({', '.join(waiting)}): `collectorctl stop` publishes "
                "them, or wait until the writer has; then recover again"
            )
        chosen = self.request.instruments or sorted(
            {*self.home.settings.instruments(), *day_ticks.symbols(self.ticks_dir, self.day)}
        )
        self.watcher.asking(len(chosen))
        rates = self._rates()
        items = []
        for instrument in chosen:
            try:
                official, later_shares = self.figures.of(instrument)
            except Unanswered:
                raise
            except FetchError as error:
                self.watcher.words(str(error))
                official, later_shares = None, 0
            ticks = day_ticks.ticks(self.ticks_dir, self.day, instrument)
            one = item(instrument, ticks, official, later_shares, self.quotes.PAGE_ROWS, self.reach.prints)
            if one.by and self.mode == "minutes":
                one.by, one.pages, one.why = "bars", 0, self.reach.why or "minute bars were asked for"
            items.append(one)
            self.watcher.asked()
        return within(items, rates, self.request.budget_s)

    def as_it_stands(self, items: list[Item]) -> list[Certificate]:
        """The certificates of the day as its files are now, before anything is fetched or written. FetchError."""
        return [judge(self.home, self.day, one.instrument, self._evidence_of(one)) for one in items]

    def recover(self, items: list[Item]) -> list[Certificate]:
        """Do what was planned; a certificate for each instrument. FetchError, PublishError, OSError."""
        self.watcher.planned(items)
        recovered = Spool(lambda instrument: folder(self.home.data, str(self.day), instrument))
        dropped: dict[Key, int] = {}
        for one in items:
            prints, gone = self._fill(one)
            recovered.keep(one.instrument, prints)
            dropped |= gone
            self.watcher.done(one)
        if day_ticks.unpublished(self.home, self.day):
            raise NotNow(
                f"{self.day}: the writer took up rows of that day meanwhile: recover again when they are published"
            )
        publish(self.ticks_dir, self.day, recovered, dropped, BROKER, self.home.settings.writer.row_group_rows)
        recovered.clear()
        self._keep_rates()
        return self._certify(items)

    def _fill(self, one: Item) -> tuple[np.ndarray, dict[Key, int]]:
        """The PRINTS that belong into an instrument's gaps, and what then goes; the evidence is kept."""
        ticks = day_ticks.ticks(self.ticks_dir, self.day, one.instrument)
        found = self._evidence_of(one)
        prints = np.zeros(0, PRINTS)
        if one.by in ("ticks", "prints"):
            progress = lambda pages, rate: self.watcher.page(one, pages, rate)  # noqa: E731 a word for the line below
            books = lambda: day_ticks.books(self.books_dir, self.day, one.instrument)  # noqa: E731 as above
            source = Source(self.home.data, self.caller, self.reach, one, books, progress)
            prints = source.fill(ticks, found, lambda: self.figures.of(one.instrument, fresh=True)[0])
        whole = day_ticks.in_order(np.concatenate([ticks, day_ticks.recovered(prints)]))
        line = covered(whole, found.volume)
        found.pages, found.chains = Source.kept(self.home.data, self.day, one.instrument, not len(line.gaps))
        evidence.keep(folder(self.home.data, str(self.day), one.instrument), found)
        del self._evidence[one.instrument]
        return prints, superseded(one.instrument, whole, line)

    def _certify(self, items: list[Item]) -> list[Certificate]:
        made_at = f"{korean(self.home.clock().now_ns()):%Y-%m-%dT%H:%M:%S%z}"
        certificates = [judge(self.home, self.day, name) for name in sorted(one.instrument for one in items)]
        in_bars = {
            Instrument(c.symbol, c.venue)
            for c in certificates
            if c.certificate == Grade.MINUTE_ONLY or self.mode == "minutes"
        }
        kept = {name: self._kept(name).bars for name in sorted(in_bars)}
        minute_bars.keep(self.home.data, self.day, kept, BROKER)
        return store.keep(self.home.data, self.day, certificates, made_at)

    def _evidence_of(self, one: Item) -> Evidence:
        """Official figures and minute bars of this run, what else is known from the run before."""
        if one.instrument in self._evidence:
            return self._evidence[one.instrument]
        found = self._kept(one.instrument)
        official = one.official
        found.volume = official.volume if official else None
        found.value_m = official.value_m if official and official.value_m != UNDEFINED else None
        found.session_over = self.reach.session_over(one.instrument.venue)
        found.why = one.why
        try:
            # bars that no official volume vouches for are not stored
            found.bars = minute_bars.fetch(self.caller, self.day, one.instrument) if official else []
        except FetchError as error:
            self.watcher.words(str(error))
            found.bars = []
        self._evidence[one.instrument] = found
        return found

    def _kept(self, instrument: Instrument) -> Evidence:
        return evidence.load(folder(self.home.data, str(self.day), instrument)) or Evidence()

    def _rates(self) -> dict[str, float]:
        likely = self.home.settings.recover.calls_per_s_most * LIKELY
        path = self.home.data / "recover" / "rates.json"
        try:
            learned = msgspec.json.decode(path.read_bytes(), type=dict[str, float])
        except (FileNotFoundError, msgspec.MsgspecError):
            learned = {}
        return {what: max(0.1, learned.get(what, likely)) for what in ("ticks", "prints")}

    def _keep_rates(self) -> None:
        """What the broker bore; kept only when enough was asked to have learned it."""
        rates = self._rates()
        learned = {what: round(self.caller.rate(what), 1) for what in rates if self.caller.calls.get(what, 0) >= 20}
        if learned:
            put(self.home.data / "recover" / "rates.json", msgspec.json.encode(rates | learned))


def judge(home: Home, of: date, instrument: Instrument, found: Evidence | None = None) -> Certificate:
    """The certificate of an instrument's day, from files alone; `found` in place of the evidence that was kept."""
    found = found or evidence.load(folder(home.data, str(of), instrument)) or Evidence()
    ticks = day_ticks.ticks(home.data / "kr" / "tick", of, instrument)
    books = day_ticks.books(home.data / "kr" / "orderbook", of, instrument)["cum_volume"]
    return certify(instrument, of, ticks, books, found)


@contextmanager
def recovering(home: Home, request: Request, watcher: Watcher, writes: bool = True) -> Iterator[Run]:
    """A run, alone in its home if it `writes`. Busy when another one is at work."""
    fd = alone(home) if writes else -1
    pa.set_memory_pool(pa.system_memory_pool())  # gives back what was read of one instrument before the next
    try:
        run = Run(home, request, watcher)
        try:
            yield run
        finally:
            run.quotes.close()
    finally:
        if fd >= 0:
            os.close(fd)


def alone(home: Home) -> int:
    """A descriptor that keeps other runs of this home out until it is closed. Busy."""
    home.make()
    path = home.lock("recovering")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Busy(f"{path}: another recovery is at work in this home: wait for it, or stop it") from None
    return fd
