"""Scenario-specific assertions on what a demo stored (pure).

    stored books, events ──check──> violations

Guarantees:
    * A scenario whose fault did not happen, or was not detected, does not pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from collectorctl.demo.environment import DAY

MIN_BURST_FACTOR = 3.0
"""How many times a usual minute's books a minute of the burst has at least, where ten times as many arise."""


class DemoData(NamedTuple):
    """What a demo left on disk.

    The datasets kr.orderbook and kr.event as pandas reads them, and how many instruments became PROVEN by recovery.
    """

    books: pd.DataFrame
    events: pd.DataFrame
    newly_proven: int = 0


Assertion = Callable[[DemoData], list[str]]


def check_morning(data: DemoData) -> list[str]:
    """There was something to recover."""
    return [] if data.newly_proven else ["no day went from INCOMPLETE to PROVEN: recovery completed none"]


def check_kis_dies_at_open(data: DemoData) -> list[str]:
    """The outage is an event with begin and end, and meanwhile Kiwoom's books are stored, minute by minute."""
    kis_events = data.events[data.events["line"] == "kis"].sort_values("time")
    opening = _timestamp("09:00:00")
    disconnects = kis_events[(kis_events["kind"] == "disconnected") & (kis_events["time"] >= opening)]
    if disconnects.empty:
        return ["no event: kis disconnected after 09:00"]
    begin = disconnects["time"].iloc[0]
    reconnects = kis_events[(kis_events["kind"] == "connected") & (kis_events["time"] > begin)]
    if reconnects.empty:
        return ["no event: kis connected again"]
    end = reconnects["time"].iloc[0]
    problems = [] if end - begin >= pd.Timedelta(minutes=10) else [f"kis was away for {end - begin} only"]
    minutes = pd.date_range(begin.ceil("min"), end.floor("min"), freq="min", inclusive="left")
    served = set(data.books["recv_time_kiwoom"].dropna().dt.floor("min"))
    silent = [f"{minute:%H:%M}" for minute in minutes if minute not in served]
    return [*problems, *([f"no book of kiwoom in the minutes {', '.join(silent)} of the outage"] if silent else [])]


def check_kiwoom_conflates(data: DemoData) -> list[str]:
    """Kiwoom is called degraded, KIS is not."""
    return _check_degraded(data, "kiwoom")


def check_venues(data: DemoData) -> list[str]:
    """Each venue has books of every stock, twins among them, and none at an hour at which it has no session."""
    hours = {"KRX": [("08:30", "12:00")], "NXT": [("08:30", "08:50"), ("09:00", "11:50")], "UN": [("08:30", "12:00")]}
    problems = []
    for venue, spans in hours.items():
        books = data.books[data.books["venue"] == venue]
        # an auction's last book is of the instant at which its end is detected, and a minute is a tenth of a second here
        late = pd.Timedelta(minutes=4)
        inside = [
            books["exch_time"].between(_timestamp(f"{begin}:00"), _timestamp(f"{end}:00") + late)
            for begin, end in spans
        ]
        if outside := int((~pd.concat(inside, axis=1).any(axis=1)).sum()):
            problems.append(f"{outside} books of {venue} outside its hours")
        twins = books.dropna(subset=["recv_time_kis", "recv_time_kiwoom"]).groupby("symbol").size()
        if len(twins) != data.books["symbol"].nunique():
            problems.append(f"{venue}: books of both feeds for {len(twins)} stocks only")
    return problems


def check_stamp_skew(data: DemoData) -> list[str]:
    """No feed is called degraded: what identifies books has no time stamp in it."""
    return _check_degraded(data)


def check_wrong_venue(data: DemoData) -> list[str]:
    """Both feeds are called degraded: their books find no twins any more, and which one is wrong cannot be known here."""
    return _check_degraded(data, "kis", "kiwoom")


def check_both_lose(data: DemoData) -> list[str]:
    """The losses of neither feed are hidden: one in fifty books of the hour came by one feed only, without an alarm."""
    feeds = ("kis", "kiwoom")
    # subscriptions are made one after the other, and a second is three minutes of the market: what came before is no loss
    firsts = [
        data.books[data.books[f"recv_time_{feed}"].notna()].groupby("symbol")["exch_time"].min() for feed in feeds
    ]
    began = data.books["symbol"].map(pd.concat(firsts, axis=1).max(axis=1))
    hour = data.books[
        data.books["exch_time"].between(_timestamp("09:00:00"), _timestamp("10:00:00"))
        & (data.books["exch_time"] >= began)
    ]
    problems = _check_degraded(data)
    for feed in feeds:
        share = hour[f"recv_time_{feed}"].isna().mean()
        if not 0.01 < share < 0.04:
            problems.append(f"{share:.2%} of the books of 09:00 to 10:00 lack {feed}, where it lost about 2 %")
    return problems


def check_open_burst(data: DemoData) -> list[str]:
    """The burst came, and nothing was overwritten unread."""
    stamps = data.books["exch_time"]
    inside = stamps.between(_timestamp("09:01:00"), _timestamp("09:09:00")).sum() / 8
    usual = stamps.between(_timestamp("09:30:00"), _timestamp("11:30:00")).sum() / 120
    problems = (
        []
        if inside > MIN_BURST_FACTOR * usual
        else [f"{inside:.0f} books a minute in the burst, {usual:.0f} otherwise"]
    )
    lost = data.events[data.events["kind"] == "ring_loss"]
    return [*problems, *(f"records were overwritten unread: {message}" for message in lost["message"])]


def check_real_time(data: DemoData) -> list[str]:
    """Books came by both feeds, at the latencies of usual lines."""
    return _check_lag(data, 0.0, 0.3)


def check_both_conflate(data: DemoData) -> list[str]:
    """Each feed leaves out many of the books that the other one has."""
    return _check_missing_share(data, "kis", 0.1, 0.9) + _check_missing_share(data, "kiwoom", 0.1, 0.9)


def check_lossy_feed(data: DemoData) -> list[str]:
    """Of Kiwoom's books about one in ten lacks KIS."""
    return _check_missing_share(data, "kis", 0.05, 0.2)


def check_late_feed(data: DemoData) -> list[str]:
    """Kiwoom's arrivals are 0.9 s behind those of KIS."""
    return _check_lag(data, 0.8, 1.2)


def check_no_midpoint(data: DemoData) -> list[str]:
    """The books that KIS alone brought have no midpoint, those of Kiwoom do."""
    own = {
        feed: data.books.loc[data.books[f"recv_time_{other}"].isna(), "mid_size"].notna().any()
        for feed, other in (("kis", "kiwoom"), ("kiwoom", "kis"))
    }
    return [f"midpoints in books of one feed alone: {own}"] if own != {"kis": False, "kiwoom": True} else []


def _check_lag(data: DemoData, min_s: float, max_s: float) -> list[str]:
    """The median lag of Kiwoom behind KIS, at a speed of 1."""
    lag_s = (data.books["recv_time_kiwoom"] - data.books["recv_time_kis"]).dt.total_seconds().median()
    return [] if min_s < lag_s < max_s else [f"Kiwoom is {lag_s:.3f} s behind KIS, not {min_s:g} to {max_s:g} s"]


def _check_missing_share(data: DemoData, feed: str, low: float, high: float) -> list[str]:
    """The share of the other feed's books that lack this one, while both delivered."""
    (other,) = {"kis", "kiwoom"} - {feed}
    arrivals = data.books[["recv_time_kis", "recv_time_kiwoom"]]
    own = data.books[data.books[f"recv_time_{other}"].between(arrivals.min().max(), arrivals.max().min())]
    share = own[f"recv_time_{feed}"].isna().mean()
    return (
        [] if low < share < high else [f"{share:.2%} of the books of {other} lack {feed}, not {low:.0%} to {high:.0%}"]
    )


def _check_degraded(data: DemoData, *feeds: str) -> list[str]:
    """Exactly these feeds were called degraded."""
    degraded = set(data.events.loc[data.events["kind"] == "degraded", "line"])
    return [
        *(f"{line}: is not called degraded" for line in feeds if line not in degraded),
        *(f"{line}: is called degraded" for line in sorted(degraded - set(feeds))),
    ]


def _timestamp(clock: str) -> pd.Timestamp:
    return pd.Timestamp(f"{DAY} {clock}", tz="Asia/Seoul")
