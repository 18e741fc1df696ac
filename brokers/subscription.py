"""A registration: one stream of one instrument, the unit in which vendors count; and the subscription ledger of one
connection: what was asked, answered, heard (pure).

    requested --> acknowledged --> first data --> last data
        |  `----> refused
        `-- overdue after a while, silent after a longer one

Promises: knows nothing of sockets and clocks; every time is a mono_ns passed in; registrations keep their order.
Leaves to others: how it is spelled on the wire (sessions), which connection it goes to (allocation/), what to do about what
is overdue or silent (feed/connection.py, the sessions).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from conf.instrument import Instrument


class Registration(NamedTuple):
    """One stream of one instrument, as asked for on one connection."""

    instrument: Instrument
    stream: str  # "orderbook" or "tick"

    def __str__(self) -> str:
        return f"{self.instrument} {self.stream}"


@dataclass(slots=True)
class Standing:
    """One registration's line in the ledger; times are mono_ns, 0 = not yet."""

    requested_ns: int = 0
    acknowledged_ns: int = 0
    first_ns: int = 0  # since the latest subscription
    last_ns: int = 0
    tries: int = 0
    refused: str = ""


class Ledger:
    """All registrations of one connection."""

    def __init__(self, registrations: Iterable[Registration]) -> None:
        self.standing: dict[Registration, Standing] = {registration: Standing() for registration in registrations}
        self.answers: list[tuple[Registration, str]] = []
        """What the vendor answered since somebody emptied this: "" for a yes, its words for a no."""

    def add(self, registration: Registration) -> None:
        """One more is wanted; one that is there stays as it stands."""
        self.standing.setdefault(registration, Standing())

    def remove(self, registration: Registration) -> None:
        """It is wanted no longer; what still comes of it has no line."""
        self.standing.pop(registration, None)

    def requested(self, registration: Registration, mono_ns: int) -> None:
        """A registration went out: whatever was true of an earlier one is not true of this one."""
        line = self.standing[registration]
        line.requested_ns = mono_ns
        line.acknowledged_ns = line.first_ns = 0
        line.refused = ""
        line.tries += 1

    def acknowledged(self, registration: Registration, mono_ns: int) -> bool:
        """The vendor confirmed it; False if nobody was waiting for that (any more)."""
        line = self.standing.get(registration)
        if line is None:
            return False
        fresh = not line.acknowledged_ns
        line.acknowledged_ns = mono_ns
        line.tries = 0
        line.refused = ""
        if fresh:
            self.answers.append((registration, ""))
        return fresh

    def refused(self, registration: Registration, words: str) -> None:
        """The vendor said no."""
        if registration in self.standing:
            self.standing[registration].refused = words
            self.answers.append((registration, words))

    def heard(self, registration: Registration, mono_ns: int) -> bool:
        """Data came; True if it is the first since the subscription. Data may come before its acknowledgement (spec kis 2.3),
        and of a stream nobody asked for: that has no line here."""
        line = self.standing.get(registration)
        if line is None:
            return False
        line.last_ns = mono_ns
        if line.first_ns:
            return False
        line.first_ns = mono_ns
        return True

    def overdue(self, mono_ns: int, within_ns: int) -> list[Registration]:
        """Asked for longer ago than `within_ns` and neither confirmed nor refused."""
        return [
            registration
            for registration, line in self.standing.items()
            if line.requested_ns and not line.acknowledged_ns and not line.refused
            if mono_ns - line.requested_ns > within_ns
        ]

    def silent(self, since_ns: int, registrations: Iterable[Registration]) -> list[Registration]:
        """Those of `registrations` that were confirmed before `since_ns` and have brought nothing from then on."""
        return [
            registration
            for registration in registrations
            if 0 < self.standing[registration].acknowledged_ns < since_ns
            if self.standing[registration].last_ns < since_ns
        ]

    def settled(self) -> bool:
        """Whether every registration has its answer, yes or no."""
        return all(line.acknowledged_ns or line.refused for line in self.standing.values())

    def refusals(self) -> list[str]:
        """What was refused, in words."""
        return [f"{registration}: {line.refused}" for registration, line in self.standing.items() if line.refused]
