"""What the exchange counted of an instrument's day, and how much was traded since.

    day chart of "005930_NX" ─> the day's row ─> Official          shares of the days behind it: what a tick chart pages through
    day chart of "005930"    ─> the same row?  then this broker does not tell venues apart: nothing it says of NXT is believed

Promises: a venue is judged by its own figures only; a chart is asked for once a run unless a fresh one is wanted.
Leaves to others: rates and repetition (fetch.py), what follows from the figures (plan.py, certify.py).
"""

from __future__ import annotations

from datetime import date

import numpy as np

from brokers.history import Asked
from collectorctl.recover.download.pager import Caller, FetchError
from collectorctl.recover.plan import Official
from conf.instrument import Instrument

APART = ("KRX", "NXT")
"""Two exchanges whose figures of one symbol and day are never the same; the unified ones are, where NXT has no trades."""


class Figures:
    """Day charts up to `today`, as far as they tell of `day`."""

    def __init__(self, caller: Caller, day: date, today: date) -> None:
        self._caller = caller
        self._day = np.datetime64(day)
        self._today = today
        self._known: dict[Instrument, np.ndarray] = {}

    def of(self, instrument: Instrument, fresh: bool = False) -> tuple[Official | None, int]:
        """The day's figures (None: the broker has none) and the shares traded on the days since. FetchError."""
        days = self._chart(instrument, fresh)
        official = self._official(days)
        if instrument.venue != "KRX" and official is not None and official.volume:
            one, other = (
                official if venue == instrument.venue else self._official(self._chart(instrument._replace(venue=venue)))
                for venue in APART
            )
            if one == other:
                raise FetchError(
                    f"{instrument}: the broker has the same {official.volume} shares for KRX and NXT: it does not tell "
                    "venues apart, and nothing of what it says of this one is used"
                )
        return official, int(days["volume"][days["date"] > self._day].sum())

    def _chart(self, instrument: Instrument, fresh: bool = False) -> np.ndarray:
        """DAYS."""
        if fresh or instrument not in self._known:
            reply = self._caller.ask(Asked("days", instrument, self._today))
            self._known[instrument] = self._caller.quotes.days(reply.content)
        return self._known[instrument]

    def _official(self, days: np.ndarray) -> Official | None:
        mine = days[days["date"] == self._day]
        return Official(int(mine["volume"][0]), int(mine["value_m"][0])) if len(mine) == 1 else None
