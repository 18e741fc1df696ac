"""Official daily volume and value of an instrument, from the day chart.

    day chart of "005930_NX" ─> the day's row ─> DailyTotals       shares of later days: what a tick chart pages through
    day chart of "005930"    ─> an equal row?  then this broker does not separate venues, and its figures of NXT are not used

Guarantees:
    * A venue is judged by its own figures only.
    * A chart is fetched once per run unless a fresh one is requested.
    * Of a day whose row cannot be read the broker has no figures.
"""

from __future__ import annotations

from copy import copy
from datetime import date

import numpy as np

from brokers.history import PageRequest, format_rejects
from collectorctl.recover.download.pager import FetchError, ThrottledClient
from collectorctl.recover.plan import DailyTotal
from conf.instrument import Instrument

DISTINCT_VENUES = ("KRX", "NXT")
"""Two exchanges whose figures of one symbol and day never agree; unified ones do, where NXT has no trades."""


def count_charts(instrument: Instrument) -> int:
    """How many day charts the figures of an instrument take: of another venue than KRX those of both exchanges, too."""
    return 1 if instrument.venue == "KRX" else len({instrument.venue, *DISTINCT_VENUES})


class DailyTotals:
    """Day charts up to `today`, as far as they contain `day`."""

    def __init__(self, client: ThrottledClient, day: date, today: date) -> None:
        self._client = client
        self._day = np.datetime64(day)
        self._today = today
        self._charts: dict[Instrument, np.ndarray] = {}

    def of_day(self, day: date) -> DailyTotals:
        """The same charts for another day."""
        other = copy(self)
        other._day = np.datetime64(day)
        return other

    def get(self, instrument: Instrument, refresh: bool = False) -> tuple[DailyTotal | None, int]:
        """The day's figures (None: the broker has none) and the shares traded on the days since. FetchError."""
        days = self._load_chart(instrument, refresh)
        total = self._find_total(days)
        if instrument.venue != "KRX" and total is not None and total.volume:
            one, other = (
                total
                if venue == instrument.venue
                else self._find_total(self._load_chart(instrument._replace(venue=venue)))
                for venue in DISTINCT_VENUES
            )
            if one == other:
                raise FetchError(
                    f"{instrument}: the broker has the same {total.volume} shares for KRX and NXT: it does not "
                    "separate venues, and its figures of this one are not used"
                )
        return total, int(days["volume"][days["date"] > self._day].sum())

    def _load_chart(self, instrument: Instrument, refresh: bool = False) -> np.ndarray:
        """As DAY_ROW."""
        if refresh or instrument not in self._charts:
            response = self._client.fetch_page(PageRequest("days", instrument, self._today))
            self._charts[instrument], rejects = self._client.history.parse_days(response.content)
            if rejects:
                self._client.report(f"day chart of {instrument}: {format_rejects(rejects)}")
        return self._charts[instrument]

    def _find_total(self, days: np.ndarray) -> DailyTotal | None:
        mine = days[days["date"] == self._day]
        return DailyTotal(int(mine["volume"][0]), int(mine["value_m"][0])) if len(mine) == 1 else None
