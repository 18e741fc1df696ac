"""Stored books matched to the deliveries of the ground truth by book id, and what arbitration made of each book (pure).

    deliveries of a feed  A1  B2  A3       the n-th arrival of a content is the n-th delivery of it, as order is kept;
    its arrivals          A   .   A        where one is missing, the delivery nearest in time
          row {kis: 1, kiwoom: 1}  one book
          row {kis: 1, kiwoom: 3}  a wrong pair: two books of equal levels and cumulative volume, taken for one

Guarantees:
    * Each delivery is matched to at most one arrival and each arrival to at most one delivery, never crossing within a content.
    * A book is missed if a feed certainly delivered it and no row stands for it; it is doubled if more rows stand for it than the
      feed that delivered it most often delivered it.
    * A row stands for one book: of a wrong pair the one whose content it has, and if both are equal, one that no other row has.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ringbuf.records import MAX_INT64

NONE = 0
"""No book: the ground truth counts from 1."""


class Stored(NamedTuple):
    """Stored rows: the content of each, and by feed when it arrived, ns of any clock, 0 for never."""

    content: Sequence[Hashable]
    identity: Sequence[Hashable]
    arrived_ns: Mapping[str, Sequence[int]]


class Delivered(NamedTuple):
    """What a feed delivered, in order: book ids, monotonic instants, and whether the arrival is certain."""

    ids: Sequence[int]
    mono_ns: Sequence[int]
    certain: Sequence[bool]


class Truth(NamedTuple):
    """The market's books by id: full content, what identifies them to arbitration, when they arose (monotonic)."""

    content: Mapping[int, Hashable]
    identity: Mapping[int, Hashable]
    mono_ns: Mapping[int, int]


class Pairing(NamedTuple):
    """What became of the books.

    `pairs`: rows with both arrivals, of which `wrong_pairs` are of two books, up to `wrong_apart_ns` apart. Of `missed` books
    `merged` are an arrival of another book's row, up to `merged_apart_ns` apart; the others are in no row. Of `doubled` rows
    `doubled_alone` are of a book that is in no wrong pair. `foreign`: rows whose content no book has.
    """

    available: int
    pairs: int
    wrong_pairs: int
    wrong_apart_ns: int
    missed: int
    merged: int
    merged_apart_ns: int
    doubled: int
    doubled_alone: int
    foreign: int


def pair(truth: Truth, delivered: Mapping[str, Delivered], stored: Stored) -> Pairing:
    """Match, and count."""
    rows: list[set[int]] = [set() for _ in stored.content]
    pairs = wrong_pairs = wrong_apart_ns = foreign = 0
    first_ids: dict[Hashable, int] = {}
    for book in sorted(truth.content):
        first_ids.setdefault(truth.content[book], book)
    for feed, deliveries in delivered.items():
        for row, book in _match_feed(truth, deliveries, stored, feed, first_ids).items():
            rows[row].add(book)
    both = [all(times) for times in zip(*stored.arrived_ns.values(), strict=True)]
    certain, possible = Counter[int](), Counter[int]()
    for one in delivered.values():
        possible |= Counter(one.ids)
        certain |= Counter(book for book, sure in zip(one.ids, one.certain, strict=True) if sure)
    kept = Counter[int]()
    open_rows = []
    for books, content, is_pair in zip(rows, stored.content, both, strict=True):
        pairs += is_pair
        if len(books) > 1:
            wrong_pairs += 1
            wrong_apart_ns = max(wrong_apart_ns, _measure_apart(truth, books))
        # a row that nobody delivered is of the first book of its content, and doubles it
        of_content = {book for book in books or {first_ids.get(content, NONE)} if truth.content.get(book) == content}
        foreign += content not in first_ids
        if len(of_content) > 1:
            open_rows.append(of_content)
        else:
            kept.update(of_content)
    for books in open_rows:
        kept[min(books, key=lambda book: (kept[book] - certain[book], book))] += 1
    wrong = [books for books in rows if len(books) > 1]
    in_wrong = set().union(*wrong)
    missed = certain - kept
    merged = [books for books in wrong if books & missed.keys()]
    doubled = kept - possible
    return Pairing(
        available=certain.total(),
        pairs=pairs,
        wrong_pairs=wrong_pairs,
        wrong_apart_ns=wrong_apart_ns,
        missed=missed.total(),
        merged=sum(count for book, count in missed.items() if book in in_wrong),
        merged_apart_ns=max((_measure_apart(truth, books) for books in merged), default=0),
        doubled=doubled.total(),
        doubled_alone=sum(count for book, count in doubled.items() if book not in in_wrong),
        foreign=foreign,
    )


def _measure_apart(truth: Truth, books: set[int]) -> int:
    times = [truth.mono_ns[book] for book in books]
    return max(times) - min(times)


def _match_feed(
    truth: Truth, delivered: Delivered, stored: Stored, feed: str, first_ids: Mapping[Hashable, int]
) -> dict[int, int]:
    """Row -> book id of this feed's arrival in it; arrivals that nobody delivered are left out."""
    sent: dict[Hashable, list[tuple[int, int]]] = defaultdict(list)
    for book, mono_ns in zip(delivered.ids, delivered.mono_ns, strict=True):
        sent[truth.identity[book]].append((mono_ns, book))
    others = [times for name, times in stored.arrived_ns.items() if name != feed]
    here: dict[Hashable, list[tuple]] = defaultdict(list)
    for row, arrived_ns in enumerate(stored.arrived_ns[feed]):
        if arrived_ns:
            # what was read at one instant is told apart by what else is known of it; of equal contents one that has no other
            # arrival is the later: the other feed's row that was there took the first
            order = first_ids.get(stored.content[row], NONE), *(times[row] or MAX_INT64 for times in others)
            here[stored.identity[row]].append((arrived_ns, *order, row))
    for entries in (*sent.values(), *here.values()):
        entries.sort()
    single = sorted(
        (arrivals[0][0], sent[identity][0][0])
        for identity, arrivals in here.items()
        if len(arrivals) == len(sent[identity]) == 1
    )
    found = {}
    for identity, arrivals in here.items():
        deliveries = sent[identity]
        times = [float(one[0]) for one in arrivals]
        if len(arrivals) != len(deliveries) and single:
            times = np.interp(times, *np.array(single, float).T).tolist()
        for arrival, delivery in _align(times, [mono_ns for mono_ns, _ in deliveries]):
            found[arrivals[arrival][-1]] = deliveries[delivery][1]
    return found


def _align(arrived: Sequence[float], sent: Sequence[float]) -> list[tuple[int, int]]:
    """Pairs (arrival, delivery), ascending in both: as many as the shorter has, the sum of their distances the least."""
    if len(arrived) > len(sent):
        return [(arrival, delivery) for delivery, arrival in _align(sent, arrived)]
    spare = len(sent) - len(arrived)
    if not spare:
        return [(place, place) for place in range(len(sent))]
    # costs[skipped]: of the arrivals so far, with so many deliveries left out; choices: how many were before each arrival
    costs, choices = [0.0] * (spare + 1), []
    for place, time in enumerate(arrived):
        chosen, now, best = [], [], 0
        for skipped in range(spare + 1):
            best = skipped if costs[skipped] < costs[best] else best
            chosen.append(best)
            now.append(costs[best])
        costs = [cost + abs(time - sent[place + skipped]) for skipped, cost in enumerate(now)]
        choices.append(chosen)
    skipped = min(range(spare + 1), key=costs.__getitem__)
    pairs = []
    for place in reversed(range(len(arrived))):
        pairs.append((place, place + skipped))
        skipped = choices[place][skipped]
    return pairs[::-1]
