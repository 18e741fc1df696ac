"""Standing in for another line: how it is, read from its vitals page; what is taken over, said and told.

    run/ring/kis.vitals ──> Takeover ──> the ticks of kis ──spread──> more registrations of this line's connections

Promises: asks nobody anything; a page that cannot be read is a line that is not there; each symbol that is taken over or given back
is an event, and each such moment a sentence in the log.
Leaves to others: deciding (takeover.py), registering (connection.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from loguru import logger

from brokers.allocation.allocate import Connection
from brokers.allocation.failover import Sight, Takeover, spread
from brokers.registry import BROKERS
from brokers.subscription import Registration
from conf.home import Home
from ringbuf.events import Events
from ringbuf.records import Kind, Line
from ringbuf.vitals import Reading, VitalsError, read

_NAMED = 12


class StandIn:
    """This line in place of one other."""

    def __init__(
        self,
        home: Home,
        name: str,
        own: Sequence[Connection],
        other: str,
        planned: Sequence[Connection],
        events: Events,
    ) -> None:
        """`own`, `planned`: this line's and the other's plan."""
        shards = home.settings.shards
        self._name, self._other = name, other
        self._own, self._planned = own, planned
        self._limit = getattr(home.settings, name).registrations
        self._page = home.vitals(other)
        self._calendar = home.calendar()
        self._venues = {r.instrument.venue for connection in planned for r in connection.registrations}
        instruments = home.settings.instruments(BROKERS[name].market)
        self._rank = {instrument: rank for rank, instrument in enumerate(instruments)}
        self._events = events
        keys = [connection.key for connection in planned]
        self._takeover = Takeover(shards.takeover_after_s, shards.give_back_after_s, keys)
        self._taken: frozenset[int] = frozenset()
        self.more: dict[int, tuple[Registration, ...]] = {}
        self.words = ""
        """What there is to say about it now; empty while the other line does its part."""

    def look(self, mono_ns: int, calendar_ns: int, own: Sight) -> None:
        """About twice a second: bring `more` (by own key) and `words` up to date."""
        is_open = any(self._calendar.phase(venue, calendar_ns) is not None for venue in self._venues)
        try:
            other = self._reading()
        except OSError:  # we have no descriptor: nothing is known of the other line, and all stays as it is
            return
        taken = self._takeover.look(mono_ns, sight(other), own, is_open)
        if taken == self._taken:
            return
        self._taken = taken
        before = self.more
        wanted = [r for c in self._planned if c.key in taken for r in c.registrations if r.stream == "tick"]
        wanted.sort(key=lambda registration: self._rank[registration.instrument])
        self.more, left_out = spread(self._name, self._limit, self._own, wanted)
        self._tell(before)
        count = sum(map(len, self.more.values()))
        self.words = ""
        if taken:
            self.words = f"collects {count} of {len(wanted)} ticks in place of {self._other}"
        if wanted:
            logger.warning("{} is down: this line {}", self._other, self.words)
        else:
            logger.info("{} is back: its ticks are given back", self._other)
        if left_out:
            names = ", ".join(str(r.instrument) for r in left_out[:_NAMED])
            logger.warning("no slot for the ticks of {}{}", names, ", ..." * (len(left_out) > _NAMED))

    def _reading(self) -> Reading | None:
        """The other's vitals; None when it never had any, or of another version. OSError."""
        try:
            return read(self._page)
        except (FileNotFoundError, VitalsError):
            return None

    def _tell(self, before: dict[int, tuple[Registration, ...]]) -> None:
        """Events for what changed; the event's line is this one, its words name the other."""
        for kind, these, those in ((Kind.GIVEN_BACK, before, self.more), (Kind.TAKEN_OVER, self.more, before)):
            for key, registrations in these.items():
                for registration in registrations:
                    if registration in those.get(key, ()):
                        continue
                    (symbol, venue), stream = registration
                    line = Line[self._name.upper()]
                    self._events.tell(
                        kind, self._other, line=line, symbol=symbol, venue=venue, stream=stream, connection=key
                    )


def sight(reading: Reading | None) -> Sight | None:
    """What a vitals page shows of its line."""
    if reading is None:
        return None
    return Sight(reading.beat_mono_ns, reading.counters["up_keys"], reading.counters["last_data_mono_ns"])
