"""What happens on one connection, told as events.

    connected .. acknowledged, acknowledged, refused .. phase, halt .. resubscribed .. quarantined (a burst is one) .. disconnected

Promises: of frames put aside the first is told at once, what follows within BURST_NS is summed up; what a vendor says of the
market beyond HAPPENINGS_MOST in that time is left out, and that is told; nothing here waits.
Leaves to others: the ring they go to (ringbuf/events.py), what is done about it (connection.py), reading them (docs/events.md).
"""

from __future__ import annotations

from collections.abc import Iterable

from brokers.decoded import Happening
from brokers.subscription import Ledger, Registration
from conf.clock import SECOND_NS, Clock
from ringbuf.events import Events
from ringbuf.records import UNDEFINED, Kind

BURST_NS = 60 * SECOND_NS
HAPPENINGS_MOST = 1000
"""What a vendor may say of the market in BURST_NS: more than a market in turmoil has, less than fills a ring."""


class Tidings:
    """One connection's events; `connection`: 1, 2, ... within its line."""

    def __init__(self, events: Events, clock: Clock, connection: int) -> None:
        self._events = events
        self._clock = clock
        self._connection = connection
        self._aside = 0
        self._aside_why = ""
        self._aside_told_ns = -BURST_NS
        self._happenings = 0
        self._happenings_since_ns = 0

    def connected(self, address: str) -> None:
        """The handshake is done; nothing is registered yet."""
        self._events.tell(Kind.CONNECTED, address, connection=self._connection)

    def disconnected(self, why: str, frame_ns: int) -> None:
        """The connection is no more; its last frame came at `frame_ns` (mono_ns)."""
        self._sum_up()
        since_ns = self._clock.at(frame_ns)
        self._events.tell(Kind.DISCONNECTED, why, connection=self._connection, since_ns=since_ns)

    def answered(self, ledger: Ledger) -> None:
        """Tell the answers that the ledger has collected."""
        answers, ledger.answers = ledger.answers, []
        for registration, refusal in answers:
            self._of(Kind.REFUSED if refusal else Kind.ACKNOWLEDGED, refusal, registration)

    def released(self, registrations: Iterable[Registration]) -> None:
        """These are given up on purpose."""
        for registration in registrations:
            self._of(Kind.RELEASED, "", registration)

    def resubscribed(self, registrations: Iterable[Registration], why: str) -> None:
        """These are sent again."""
        for registration in registrations:
            self._of(Kind.RESUBSCRIBED, why, registration)

    def happened(self, happenings: Iterable[Happening], mono_ns: int) -> None:
        """What the vendor said of the market at `mono_ns`."""
        if mono_ns - self._happenings_since_ns >= BURST_NS:
            self._happenings, self._happenings_since_ns = 0, mono_ns
        for kind, words, instrument, number, exch_ns in happenings:
            self._happenings += 1
            if self._happenings == HAPPENINGS_MOST:
                words = f"the {HAPPENINGS_MOST}th within a minute: the rest of that minute is left out"
                instrument, number, exch_ns = None, UNDEFINED, UNDEFINED
            elif self._happenings > HAPPENINGS_MOST:
                return
            symbol, venue = instrument or ("", "")
            self._events.tell(
                kind,
                words,
                symbol=symbol,
                venue=venue,
                connection=self._connection,
                number=number,
                mono_ns=mono_ns,
                exch_ns=exch_ns,
            )

    def put_aside(self, why: str, mono_ns: int) -> None:
        """A frame was put aside; why in words without secrets."""
        self._aside += 1
        self._aside_why = why
        self.look(mono_ns)

    def look(self, mono_ns: int) -> None:
        """About once a second: sum up what was put aside if it is time."""
        if self._aside and mono_ns - self._aside_told_ns >= BURST_NS:
            self._aside_told_ns = mono_ns
            self._sum_up()

    def _sum_up(self) -> None:
        if self._aside:
            self._events.tell(Kind.QUARANTINED, self._aside_why, connection=self._connection, number=self._aside)
        self._aside = 0

    def _of(self, kind: Kind, words: str, registration: Registration) -> None:
        (symbol, venue), stream = registration
        self._events.tell(kind, words, symbol=symbol, venue=venue, stream=stream, connection=self._connection)
