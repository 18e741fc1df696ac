"""What each scenario must leave behind besides what every rehearsal must (pure).

    stored books, events ──holds──> in words what is not so

Promises: a scenario whose fault did not happen, or was not noticed by what is there to notice it, does not pass.
Leaves to others: the general promises (verdict.py, recovery.py), the scripts (script.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from collectorctl.demo.environment import DAY

BURST_LEAST = 3.0
"""How many times a usual minute's books a minute of the burst has at least, where ten times as many arise."""


class Seen(NamedTuple):
    """What a rehearsal left: the datasets kr.orderbook and kr.event as pandas reads them, and how many instruments are PROVEN that
    were not before recovery."""

    books: pd.DataFrame
    events: pd.DataFrame
    regained: int = 0


Holds = Callable[[Seen], list[str]]


def morning(seen: Seen) -> list[str]:
    """There was something to recover."""
    return [] if seen.regained else ["no day went from INCOMPLETE to PROVEN: recovery had nothing to show"]


def kis_dies_at_open(seen: Seen) -> list[str]:
    """The outage is told with its beginning and end, and all the while Kiwoom's books are stored, minute by minute."""
    mine = seen.events[seen.events["line"] == "kis"].sort_values("time")
    opening = _at("09:00:00")
    gone = mine[(mine["kind"] == "disconnected") & (mine["time"] >= opening)]
    if gone.empty:
        return ["no event tells that kis was disconnected after 09:00"]
    begin = gone["time"].iloc[0]
    back = mine[(mine["kind"] == "connected") & (mine["time"] > begin)]
    if back.empty:
        return ["no event tells that kis was connected again"]
    end = back["time"].iloc[0]
    said = [] if end - begin >= pd.Timedelta(minutes=10) else [f"kis was away for {end - begin} only"]
    minutes = pd.date_range(begin.ceil("min"), end.floor("min"), freq="min", inclusive="left")
    served = set(seen.books["recv_time_kiwoom"].dropna().dt.floor("min"))
    silent = [f"{minute:%H:%M}" for minute in minutes if minute not in served]
    return [*said, *([f"no book of kiwoom in the minutes {', '.join(silent)} of the outage"] if silent else [])]


def kiwoom_conflates(seen: Seen) -> list[str]:
    """Kiwoom is called degraded, KIS is not."""
    return _degraded(seen, "kiwoom")


def venues(seen: Seen) -> list[str]:
    """Each venue has books of every stock, twins among them, and none at an hour at which it has no session."""
    hours = {"KRX": [("08:30", "12:00")], "NXT": [("08:30", "08:50"), ("09:00", "11:50")], "UN": [("08:30", "12:00")]}
    said = []
    for venue, spans in hours.items():
        books = seen.books[seen.books["venue"] == venue]
        # an auction's last book is of the instant at which its end is noticed, and a minute is a tenth of a second here
        late = pd.Timedelta(minutes=4)
        inside = [books["exch_time"].between(_at(f"{begin}:00"), _at(f"{end}:00") + late) for begin, end in spans]
        if outside := int((~pd.concat(inside, axis=1).any(axis=1)).sum()):
            said.append(f"{outside} books of {venue} outside its hours")
        twins = books.dropna(subset=["recv_time_kis", "recv_time_kiwoom"]).groupby("symbol").size()
        if len(twins) != seen.books["symbol"].nunique():
            said.append(f"{venue}: books of both lines for {len(twins)} stocks only")
    return said


def stamp_skew(seen: Seen) -> list[str]:
    """Nobody is called degraded: what makes books the same has no stamp in it."""
    return _degraded(seen)


def wrong_venue(seen: Seen) -> list[str]:
    """Both lines are called degraded: their books find no twins any more, and nobody here can know which one is wrong."""
    return _degraded(seen, "kis", "kiwoom")


def both_lose(seen: Seen) -> list[str]:
    """Neither line's losses are hidden: one in fifty books of the hour came by one line only, and no alarm cries over that."""
    hour = seen.books[seen.books["exch_time"].between(_at("09:00:00"), _at("10:00:00"))]
    said = _degraded(seen)
    for line in ("kis", "kiwoom"):
        share = hour[f"recv_time_{line}"].isna().mean()
        if not 0.01 < share < 0.04:
            said.append(f"{share:.2%} of the books of 09:00 to 10:00 lack {line}, where it lost about 2 %")
    return said


def open_burst(seen: Seen) -> list[str]:
    """The burst came, and nothing was overwritten unread."""
    stamps = seen.books["exch_time"]
    inside = stamps.between(_at("09:01:00"), _at("09:09:00")).sum() / 8
    usual = stamps.between(_at("09:30:00"), _at("11:30:00")).sum() / 120
    said = [] if inside > BURST_LEAST * usual else [f"{inside:.0f} books a minute in the burst, {usual:.0f} otherwise"]
    lost = seen.events[seen.events["kind"] == "ring_loss"]
    return [*said, *(f"records were overwritten unread: {words}" for words in lost["words"])]


def _degraded(seen: Seen, *lines: str) -> list[str]:
    """Exactly these lines were called degraded."""
    called = set(seen.events.loc[seen.events["kind"] == "degraded", "line"])
    return [
        *(f"{line}: is not called degraded" for line in lines if line not in called),
        *(f"{line}: is called degraded" for line in sorted(called - set(lines))),
    ]


def _at(clock: str) -> pd.Timestamp:
    return pd.Timestamp(f"{DAY} {clock}", tz="Asia/Seoul")
