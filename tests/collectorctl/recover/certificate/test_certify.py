"""The certificate, check by check: each lie alone is enough to lose PROVEN."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import numpy as np
import pytest

from collectorctl.recover.certificate.certify import NOT_COLLECTED, certify
from collectorctl.recover.matching import trade_count
from collectorctl.recover.matching.day_coverage import DAY_TICK, DayCoverage
from collectorctl.recover.store.evidence import Evidence
from conf.clock import SECOND_NS, kst_midnight_ns
from conf.instrument import Instrument
from ringbuf.records import UNDEFINED, FeedId

DAY = date(2026, 11, 20)
NINE_NS = kst_midnight_ns(DAY) + 9 * 3600 * SECOND_NS
SAMSUNG = Instrument("005930", "KRX")
NO_BOOKS = np.zeros(0, np.int64)
Told = tuple[np.ndarray, np.ndarray, Evidence]


def honest(count: int = 400) -> Told:
    """Ticks ten seconds apart, of which the middle third is recovered; the books and figures that go with them."""
    random = np.random.default_rng(7)
    ticks = np.zeros(count, DAY_TICK)
    ticks["exch_ns"] = NINE_NS + np.arange(count) * 10 * SECOND_NS
    ticks["price"] = 70_000 + 100 * random.integers(-5, 5, count)
    ticks["size"] = random.integers(1, 50, count)
    ticks["cum_volume"] = np.cumsum(ticks["size"])
    ticks["live"] = (np.arange(count) < count // 3) | (np.arange(count) >= 2 * count // 3)
    worth = np.cumsum(ticks["price"] * ticks["size"])
    ticks["cum_value"] = np.where(ticks["live"], worth, UNDEFINED)
    ticks["value_change"] = UNDEFINED
    ticks["side"] = np.where(ticks["live"], 1, 0)
    ticks["line"] = np.where(ticks["live"], FeedId.KIS, 0)
    ticks["trade_count"] = np.where(ticks["live"], np.arange(1, count + 1), UNDEFINED)
    evidence = Evidence(int(ticks["cum_volume"][-1]), round(int(worth[-1]) / 1e6), session_over=True, pages=2)
    return ticks, ticks["cum_volume"][::3].copy(), with_bars(ticks, evidence)


def with_bars(ticks: np.ndarray, evidence: Evidence) -> Evidence:
    """The minute bars that these ticks make."""
    minutes = ticks["exch_ns"] // (60 * SECOND_NS) * (60 * SECOND_NS)
    shares = {int(minute): int(ticks["size"][minutes == minute].sum()) for minute in np.unique(minutes)}
    evidence.bars = [[minute, 1, 1, 1, 1, volume, 0] for minute, volume in shares.items()]
    return evidence


def swapped(told: Told) -> Told:
    """Two recovered ticks of other prices and sizes in one minute have changed their sizes."""
    ticks, _, evidence = told
    one, other = next(
        (n, m)
        for n in range(140, 250, 6)
        for m in range(n + 1, n + 5)
        if ticks["size"][n] != ticks["size"][m] and ticks["price"][n] != ticks["price"][m]
        and ticks["exch_ns"][n] // (60 * SECOND_NS) == ticks["exch_ns"][m] // (60 * SECOND_NS)
    )  # fmt: skip
    ticks["size"][[one, other]] = ticks["size"][[other, one]]
    ticks["cum_volume"] = np.cumsum(ticks["size"])
    return ticks, NO_BOOKS, evidence


def swapped_alike(told: Told) -> Told:
    """The same at one price within one minute: only a book between them can tell."""
    ticks, _, evidence = told
    ticks["price"][150], ticks["exch_ns"][150] = ticks["price"][151], ticks["exch_ns"][151]
    ticks["size"][150], ticks["size"][151] = 30, 10
    honest_ = np.cumsum(ticks["size"])
    ticks["size"][[150, 151]] = ticks["size"][[151, 150]]
    ticks["cum_volume"] = np.cumsum(ticks["size"])
    return ticks, honest_, evidence


def changed(**values: object) -> Callable[[Told], Told]:
    """Other evidence."""

    def change(told: Told) -> Told:
        for name, value in values.items():
            setattr(told[2], name, value)
        return told

    return change


def without(number: int) -> Callable[[Told], Told]:
    """One tick less."""
    return lambda told: (np.delete(told[0], number), told[1], told[2])


def doubled(told: Told) -> Told:
    """One recovered tick twice, so that nothing is missing."""
    return np.insert(told[0], 180, told[0][180]), told[1], told[2]


def late(told: Told) -> Told:
    """One recovered tick a minute late."""
    told[0]["exch_ns"][180] += 60 * SECOND_NS
    return told


def beyond(told: Told) -> Told:
    """The official volume is a tick less; value and minutes are those of all ticks."""
    told[2].volume -= int(told[0]["size"][-1])
    return told


def placeless(told: Told) -> Told:
    """One tick more, without a volume."""
    ticks = np.insert(told[0], 0, told[0][0])
    ticks["cum_volume"][0] = UNDEFINED
    return ticks, told[1], told[2]


def worth_more(told: Told) -> Told:
    """The official value is just more than rounding away from that of the ticks."""
    told[2].value_m += 2
    return told


def worth_less(told: Told) -> Told:
    """The same to the other side."""
    told[2].value_m -= 2
    return told


def first_wrong(told: Told) -> Told:
    """The day's first live tick says another value so far than its own; all later ones agree with each other."""
    ticks = told[0]
    ticks["cum_value"][ticks["live"]] += 7
    return told


def told_by_a_book(told: Told) -> Told:
    """A book's volume one share behind the beginning of a recovered tick."""
    ticks, _, evidence = told
    return ticks, (ticks["cum_volume"] - ticks["size"])[[180]] + 1, evidence


def dearer(told: Told) -> Told:
    """One recovered tick a won dearer: far below what the rounded value of the day shows."""
    told[0]["price"][180] += 1
    return told


def merged(told: Told) -> Told:
    """Two recovered trades of one price and second are one row: volume, value and minutes agree."""
    ticks, _, evidence = told
    ticks["price"][150], ticks["exch_ns"][150] = ticks["price"][151], ticks["exch_ns"][151]
    ticks["cum_value"] = np.where(ticks["live"], np.cumsum(ticks["price"] * ticks["size"]), UNDEFINED)
    ticks["size"][151] += ticks["size"][150]
    return np.delete(ticks, 150), NO_BOOKS, evidence


def cut(told: Told) -> Told:
    """One recovered trade is two rows: only the counter and no book between them can tell."""
    ticks, books, evidence = told
    rows = np.insert(ticks, 180, ticks[180])
    rows["size"][180] = 1
    rows["size"][181] -= 1
    rows["cum_volume"][180] -= rows["size"][181]
    return rows[rows["size"] > 0], books, evidence


def test_an_honest_day_is_proven() -> None:
    """Every check made, every check passed."""
    ticks, books, evidence = honest()

    told = certify(SAMSUNG, DAY, ticks, books, evidence)

    assert ("PROVEN", []) == (told.certificate, told.reasons)
    assert told.live_ticks + told.recovered_ticks == len(ticks)
    assert (True, True, 0) == (told.value_agrees, told.minutes_agree, told.missing_shares)
    assert told.anchors > 200
    assert told.counts > 200


def counts_more(ticks: np.ndarray) -> None:
    """One live neighbour counts two more than the other: not ticks."""
    ticks["trade_count"][350:] += 1


def counts_none_behind_the_gap(ticks: np.ndarray) -> None:
    """The first live tick behind what was recovered may be several trades."""
    ticks["line"][265] = FeedId.KIWOOM


def counts_nothing(ticks: np.ndarray) -> None:
    """Of another broker."""
    ticks["trade_count"] = UNDEFINED


@pytest.mark.parametrize("change", [counts_more, counts_none_behind_the_gap, counts_nothing])
def test_a_counter_that_is_none_denies_nothing(change: Callable[[np.ndarray], None]) -> None:
    """It counts something else than ticks, or some live ticks have none: two trades as one row go unnoticed, and no more."""
    ticks, books, evidence = merged(honest())
    change(ticks)

    told = certify(SAMSUNG, DAY, ticks, books, evidence)

    assert ("PROVEN", 0) == (told.certificate, told.count_conflicts), told.reasons


def test_on_a_consolidated_venue_an_auctions_print_may_come_amid_trades() -> None:
    """NXT trades when the opening trade of KRX comes: its row is no counted trade, nor stands it for one that is missing."""
    ticks, books, evidence = honest()
    ticks["trade_count"][266:] -= 1
    unified = Instrument("005930", "UN")

    whole = certify(unified, DAY, ticks, books, evidence)
    ticks["side"] = 1
    sided = certify(unified, DAY, ticks, books, evidence)

    assert ("PROVEN", []) == (whole.certificate, whole.reasons)
    assert "INCOMPLETE" == sided.certificate and "another number of trades" in sided.reasons[0]
    assert "RECONCILED" == off_book("rowless", True)
    assert "INCOMPLETE" == off_book("rowless", True, venue="UN")


def test_an_auctions_print_is_not_counted() -> None:
    """A recovered row after half a minute of silence may be one; one among others may not."""
    for pause_s, certificate in ((30, "PROVEN"), (29, "INCOMPLETE")):
        ticks, books, evidence = honest()
        ticks["trade_count"][266:] -= 1
        ticks["exch_ns"][180:] += (pause_s - 10) * SECOND_NS

        told = certify(SAMSUNG, DAY, ticks, books, with_bars(ticks, evidence))

        assert certificate == told.certificate, told.reasons


@pytest.mark.parametrize(
    ("stamped", "edge"), [(0, 180), (-1, 180)], ids=["ours a second later", "ours a second earlier"]
)
def test_a_tick_at_the_edge_of_a_minute_may_count_for_either(stamped: int, edge: int) -> None:
    """Brokers that stamp a fraction of a second apart put a trade into neighbouring minutes; two seconds are another matter."""
    differ = ["2 minutes differ from the minute bars"]
    for off_s, reasons in ((stamped, []), (3 if stamped == 0 else -4, differ)):
        ticks, books, evidence = honest()
        ticks["exch_ns"][edge] += (-1 - stamped) * SECOND_NS  # as the broker of the bars stamps it
        with_bars(ticks, evidence)
        ticks["exch_ns"][edge] = NINE_NS + (edge * 10 + off_s) * SECOND_NS

        assert reasons == certify(SAMSUNG, DAY, ticks, books, evidence).reasons


def test_a_minute_that_lacks_other_shares_than_those_at_its_edge_differs() -> None:
    """A share more in one bar and less in the next, with a larger tick between them."""
    ticks, books, evidence = honest()
    assert ticks["size"][180] > 1
    minute = int(ticks["exch_ns"][180]) // (60 * SECOND_NS) * (60 * SECOND_NS)
    for bar in evidence.bars:
        bar[5] += (bar[0] == minute - 60 * SECOND_NS) - (bar[0] == minute)

    assert certify(SAMSUNG, DAY, ticks, books, evidence).reasons == ["2 minutes differ from the minute bars"]


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (without(180), "gaps are missing"),
        (without(0), "gaps are missing"),
        (without(399), "gaps are missing"),
        (doubled, "covered twice"),
        (swapped, "another value"),
        (swapped_alike, "volume that a book showed"),
        (merged, "another number of trades"),
        (cut, "another number of trades"),
        (late, "minutes differ"),
        (beyond, "beyond the official volume"),
        (placeless, "no place in the cumulative volume"),
        (worth_more, "the value differs"),
        (worth_less, "the value differs"),
        (first_wrong, "another value"),
        (told_by_a_book, "volume that a book showed"),
        (dearer, "another value"),
        (changed(volume=None), "official volume is not known"),
        (changed(value_m=None), "value is not known"),
        (changed(value_m=1), "value differs"),
        (changed(bars=[]), "no minute bars"),
        (changed(session_over=False), "not over"),
        (changed(pages_complete=False), "pages is incomplete"),
        (changed(anchors_failed=1), "live ticks have no row"),
        (changed(findings=["a contradiction"]), "a contradiction"),
    ],
)
def test_each_lie_alone_is_noticed_and_named(lie: Callable[[Told], Told], reason: str) -> None:
    """Never PROVEN, never RECONCILED, and the reason is told."""
    told = certify(SAMSUNG, DAY, *lie(honest()))

    assert "INCOMPLETE" == told.certificate
    assert any(reason in one for one in told.reasons), told.reasons


def test_a_listed_jump_reconciles_only_the_gap_it_explains() -> None:
    """A block of 500 shares behind the last tick; with a tick missing besides it is INCOMPLETE."""
    ticks, books, evidence = honest()
    total = evidence.volume
    assert total is not None
    evidence.volume, evidence.value_m, evidence.omitted = total + 500, evidence.value_m + 35, [(total, total + 500)]

    whole = certify(SAMSUNG, DAY, ticks, books, evidence)
    less = certify(SAMSUNG, DAY, np.delete(ticks, 180), books, evidence)
    evidence.omitted = []
    unlisted = certify(SAMSUNG, DAY, ticks, books, evidence)

    assert ["RECONCILED", "INCOMPLETE", "INCOMPLETE"] == [one.certificate for one in (whole, less, unlisted)]
    assert 500 == whole.missing_shares


def test_counters_of_two_lines_are_not_compared() -> None:
    """A day that was Kiwoom's first and KIS's then, which counts a thousand more."""
    ticks, books, evidence = honest()
    ticks["line"][:100] = FeedId.KIWOOM
    ticks["trade_count"][100:] += np.where(ticks["live"][100:], 1000, 0)

    told = certify(SAMSUNG, DAY, ticks, books, evidence)

    assert ("PROVEN", 0) == (told.certificate, told.count_conflicts), told.reasons


def test_a_gap_alone_denies_no_count() -> None:
    """That a trade is missing there is no news."""
    ticks, books, evidence = honest()

    assert 0 == certify(SAMSUNG, DAY, np.delete(ticks, 180), books, evidence).count_conflicts


@pytest.mark.parametrize(
    ("why", "over", "more", "certificate"),
    [
        ("beyond", True, 0, "MINUTE_ONLY"),
        ("", True, 0, "INCOMPLETE"),
        ("beyond", False, 0, "INCOMPLETE"),
        ("beyond", True, 1, "INCOMPLETE"),
    ],
)
def test_minutes_alone_are_a_day_only_if_they_add_up_to_it(why: str, over: bool, more: int, certificate: str) -> None:
    """Ticks were left out for a reason, the day is over, the bars have all of its shares."""
    ticks, books, evidence = honest()
    evidence.skip_reason, evidence.session_over, evidence.bars[3][5] = why, over, evidence.bars[3][5] + more

    assert certificate == certify(SAMSUNG, DAY, np.delete(ticks, 180), books, evidence).certificate


@pytest.mark.parametrize(
    ("is_live", "has_books", "is_whole", "certificate"),
    [
        (False, False, True, "RECOVERED_ONLY"),
        (False, False, False, "INCOMPLETE"),
        (True, False, True, "PROVEN"),
        (False, True, True, "PROVEN"),
    ],
)
def test_a_backfilled_day_is_recovered_only_unless_this_home_has_a_row_of_it(
    is_live: bool, has_books: bool, is_whole: bool, certificate: str
) -> None:
    """However well its fetched ticks agree with every figure; what is missing is missing there too."""
    ticks, books, evidence = honest()
    evidence.backfilled = True
    if not is_live:
        ticks["live"], ticks["line"], ticks["cum_value"], ticks["trade_count"] = False, 0, UNDEFINED, UNDEFINED
    if not is_whole:
        ticks = np.delete(ticks, 180)

    made = certify(SAMSUNG, DAY, ticks, books if has_books else NO_BOOKS, evidence)

    assert made.certificate == certificate, made.reasons
    assert (NOT_COLLECTED in made.reasons) == (not is_live and not has_books)


def nothing(evidence: Evidence) -> None:
    """As it is."""


def off_book(
    listed: str,
    held: bool,
    trades: int = 0,
    line: FeedId = FeedId.KIS,
    change: Callable[[Evidence], None] = nothing,
    venue: str = "KRX",
) -> str:
    """The grade of a day with 500 shares missing between two recovered ticks, told as `listed`: jumps or passed. `held`: the minute
    bars have them; `trades`: so many of them the counter has; `line`: whose live ticks these are; `change` of the evidence."""
    ticks, _, evidence = honest()
    evidence.value_m = round((evidence.value_m * 10**6 + 500 * 70_000) / 1e6)
    evidence.volume += 500
    low = int(ticks["cum_volume"][180])
    ticks["cum_volume"][181:] += 500
    ticks["cum_value"][ticks["live"] & (ticks["cum_volume"] > low)] += 500 * 70_000
    ticks["trade_count"][266:] += trades
    ticks["line"][ticks["live"]] = line
    if held:
        minute = ticks["exch_ns"][181] // (60 * SECOND_NS) * (60 * SECOND_NS)
        next(bar for bar in evidence.bars if bar[0] == minute)[5] += 500
    setattr(evidence, listed, [(low, low + 500)])
    change(evidence)
    return certify(Instrument(SAMSUNG.symbol, venue), DAY, ticks, NO_BOOKS, evidence).certificate


def test_a_gap_is_volume_off_the_book_only_if_no_trade_lies_in_it() -> None:
    """The counter of the live ticks around it says so, or minute bars that do not hold it and yet hold every tick. Between prints
    it is believed where nobody can tell; one trade too many in the counter denies everything."""
    for listed in ("omitted", "rowless"):
        for held in (True, False):
            assert "RECONCILED" == off_book(listed, held)
            assert "INCOMPLETE" == off_book(listed, held, trades=1)
            assert "RECONCILED" == off_book(listed, held, line=FeedId.KIWOOM)
        assert "INCOMPLETE" == off_book(listed, True, trades=1, line=FeedId.KIWOOM)
        assert "RECONCILED" == off_book(listed, False, trades=1, line=FeedId.KIWOOM)
    assert "RECONCILED" == off_book("omitted", True, line=FeedId.US)


def other_minute(evidence: Evidence) -> None:
    """The bars hold the shares, but ten minutes earlier."""
    evidence.bars[20][5] += 500


def other_minute_as_well(evidence: Evidence) -> None:
    """A minute has more shares than its ticks, far from the gap."""
    evidence.bars[5][5] += 3


def other_worth(evidence: Evidence) -> None:
    """Twice the price, and more, for the shares off the book."""
    evidence.value_m += 70


def other_volume(evidence: Evidence) -> None:
    """A share more is missing than is listed."""
    evidence.volume += 1


@pytest.mark.parametrize(
    "change",
    [
        other_minute,
        other_minute_as_well,
        other_worth,
        other_volume,
        lambda evidence: setattr(evidence, "session_over", False),
        lambda evidence: setattr(evidence, "bars", []),
        lambda evidence: setattr(evidence, "omitted", []),
    ],
)
def test_volume_off_the_book_excuses_nothing_else(change: Callable[[Evidence], None]) -> None:
    """A listed gap with one more thing that is not right."""
    held = change is not other_minute

    assert "INCOMPLETE" == off_book("omitted", held, change=change)


def test_only_between_ticks_that_are_single_trades_a_gap_tells_how_many_it_holds() -> None:
    """Before one of Kiwoom, which may be several, it tells nothing."""
    found = []
    for line in (FeedId.KIS, FeedId.KIWOOM):
        ticks, _, _ = honest()
        ticks["line"][ticks["live"]] = line
        ticks = np.delete(ticks, slice(133, 266))
        found.append(trade_count.count_trades_per_gap(DayCoverage.of(ticks, None)).tolist())

    assert [[133], [UNDEFINED]] == found
