"""How the lines stand, told to people while it is so.

    writer: books and their twins, events ──> TwinWatch ──each bucket──> HOME/run/lines.json ──> collectorctl status
                                                  └── what begins, what ends ──> events degraded, restored; vitals; the log

Promises: what a line sees is known again after a restart of the writer from what its event ring still holds; the rest is learned
anew; a file that cannot be written stops nothing.
Leaves to others: the judgement (latent.py), the record of each minute (health_file.py).
"""

from __future__ import annotations

from contextlib import suppress

import msgspec
import numpy as np
from loguru import logger

from conf.clock import SECOND_NS, korean
from conf.home import Home
from conf.market import KR
from ringbuf.events import Events
from ringbuf.records import EVENT, Kind, Line
from ringbuf.ring import Consumer, RingError
from ringbuf.vitals import Vitals
from writer.feeds.degradation import BUCKETS, LineShare, Trouble, TwinWatch
from writer.feeds.visibility import Sight
from writer.ingest.book_arbiter import Taken
from writer.snapshot_file import ReportFile


class LinesReport(msgspec.Struct):
    """How the lines stood over the last `window_s` when it was `written`; a lag is what the second is behind the first."""

    written: str
    window_s: float
    lag_p50_ms: float | None
    lag_p99_ms: float | None
    lines: list[LineShare]
    degraded: list[Trouble]


def report_of(text: bytes) -> LinesReport | None:
    """A report from its JSON; None if it is none, or one of another version."""
    try:
        return msgspec.json.decode(text, type=LinesReport)
    except msgspec.DecodeError:
        return None


class Lines:
    """The lines of a home's Korean books."""

    def __init__(self, home: Home, vitals: Vitals, events: Events) -> None:
        """Look back into the event rings for what each line sees."""
        settings = home.settings
        window_ns = round(settings.health.window_s * SECOND_NS)
        settle_ns = round(settings.writer.twin_window_s * SECOND_NS) + SECOND_NS
        codes = {int(Line[line.upper()]): line for line in KR.lines}
        self._file = ReportFile(home.run / "lines.json", "an old state of the lines")
        self._vitals = vitals
        self._events = events
        self._clock = home.clock()
        self._window_s = settings.health.window_s
        self._every_ns = window_ns // BUCKETS
        self._watch = TwinWatch(codes, window_ns, settle_ns, settings.health.books_least)
        self._sight = Sight()
        self._through_ns = 0
        self._told_ns = 0
        self._since_ns: dict[Trouble, int] = {}
        for line in KR.lines:
            with suppress(FileNotFoundError, RingError):
                ring = Consumer.open(home.ring(line, "event"), EVENT)
                self._sight.events(ring.read(ring.oldest, ring.capacity).records)
                ring.close()

    def happened(self, events: np.ndarray) -> None:
        """Events (EVENT), in order."""
        self._sight.events(events)

    def books(self, books: np.ndarray, taken: Taken | None, through_ns: int) -> None:
        """Books (ORDERBOOK) and what merge said, None if there are none; all that came up to `through_ns` (mono_ns) were given."""
        self._through_ns = through_ns
        if taken is not None and len(books):
            self._watch.books(books, taken)

    def tell(self, now_ns: int) -> None:
        """Judge, each bucket of a window (mono_ns), and say what there is to say."""
        if now_ns - self._told_ns < self._every_ns:
            return
        self._told_ns = now_ns
        judged = self._watch.judge(self._sight, self._through_ns)
        for trouble in judged.began:
            self._since_ns[_whose(trouble)] = self._clock.now_ns()
            logger.warning("{} is degraded: {}", _name(trouble), trouble.words)
            self._vitals.add("lines_degraded")
            self._tell(Kind.DEGRADED, trouble, trouble.words)
        for trouble in judged.ended:
            logger.info("{} is restored; it was {}", _name(trouble), trouble.words)
            self._tell(Kind.RESTORED, trouble, "", self._since_ns.pop(_whose(trouble)))
        self._vitals.set("degraded", len(judged.troubles))
        for share in judged.lines:
            for word in ("twin_share", "win_share"):
                self._vitals.set(f"{word}_{share.line}_e4", round(10_000 * (getattr(share, word) or 0)))
        for word in ("lag_p50", "lag_p99"):
            self._vitals.set(f"{word}_us", round(1000 * (getattr(judged, f"{word}_ms") or 0)))
        written = f"{korean(self._clock.now_ns()):%Y-%m-%d %H:%M:%S}"
        lags = judged.lag_p50_ms, judged.lag_p99_ms
        self._file.write(LinesReport(written, self._window_s, *lags, judged.lines, judged.troubles))

    def _tell(self, kind: Kind, trouble: Trouble, words: str, since_ns: int | None = None) -> None:
        more = {} if since_ns is None else {"since_ns": since_ns}
        line = Line[trouble.line.upper()]
        self._events.tell(
            kind, words, line=line, symbol=trouble.symbol, venue=trouble.venue, stream="orderbook", **more
        )


def _whose(trouble: Trouble) -> Trouble:
    """The same without its words, which change."""
    return msgspec.structs.replace(trouble, words="")


def _name(trouble: Trouble) -> str:
    return " ".join(filter(None, (trouble.line, trouble.symbol, trouble.venue)))
