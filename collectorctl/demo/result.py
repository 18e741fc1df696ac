"""Result of a demo: accounts per stream, allowances and violations (pure).

    oracle.py ─accounts─> DemoResult ─> violations

Guarantees:
    * What either feed certainly delivered has no allowance, but for the bounds of arbitration.
    * A description claims nothing that the accounts do not show.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec


class Bounds(NamedTuple):
    """What arbitration may get wrong, as shares of the available books: missed ones, doubled ones, rows of two books."""

    missed: float = 0.000_5
    doubled: float = 0.000_3
    wrong_pairs: float = 0.002


LOSSY = Bounds(missed=0.005, wrong_pairs=0.01)
"""Where both feeds conflate, or one loses a tenth: of two books that are equal in all fields each feed may have another one."""
NO_MIDPOINT = Bounds(missed=0.000_5, wrong_pairs=0.02)
"""Where one feed does not say in what books differ that follow each other."""


class FeedAccount(msgspec.Struct):
    """One feed's deliveries of one stream against the rows that carry its arrival."""

    sent: int = 0
    in_flight: int = 0
    lost: int = 0
    conflated: int = 0
    corrupted: int = 0
    stored: int = 0
    missing: int = 0
    extra: int = 0


class StreamAccount(msgspec.Struct):
    """One stream: every feed, and the rows on disk.

    `available`: records that at least one feed certainly delivered. `stored`: rows that a feed brought. `fetched`: ticks backfilled
    during the day, of which `wrong` counts those that a feed had delivered or nobody traded.

    Of books, `pairs`: rows with both arrivals; `wrong_pairs`: those whose arrivals are of two books, which arose up to
    `wrong_pairs_apart_s` seconds apart. `merged`: missed books that are the other arrival of such a row. `doubled_unexplained`:
    doubled ones that are in no such row.
    """

    feeds: dict[str, FeedAccount]
    available: int = 0
    stored: int = 0
    missed: int = 0
    doubled: int = 0
    doubled_unexplained: int = 0
    wrong: int = 0
    fetched: int = 0
    pairs: int = 0
    wrong_pairs: int = 0
    wrong_pairs_apart_s: float = 0.0
    merged: int = 0
    merged_apart_s: float = 0.0

    @property
    def missed_unexplained(self) -> int:
        """Missed records that are in no row at all."""
        return self.missed - self.merged


class DemoResult(msgspec.Struct):
    """Both streams, compared."""

    books: StreamAccount
    ticks: StreamAccount

    def problems(self, bounds: Bounds = Bounds()) -> list[str]:  # noqa: B008 immutable
        """Violations, as messages; empty when the demo passed."""
        found = self._hard_problems()
        books = self.books
        for what, count, share in (
            ("missed", books.missed, bounds.missed),
            ("doubled", books.doubled, bounds.doubled),
            ("in a row with the arrival of another", books.wrong_pairs, bounds.wrong_pairs),
        ):
            if count > compute_allowance(share, books.available):
                found.append(f"books: {count} of {books.available} {what}, more than {share:.3%} and chance")
        return found

    def describe(self) -> list[str]:
        """What became of everything that was delivered, one sentence about each kind of outcome."""
        books, ticks = self.books, self.ticks
        found = []
        if not any((books.missed, books.doubled, books.wrong, *_count_feed_problems(books))):
            found.append(f"each of the {books.available:,} books that a feed delivered is stored once")
        if books.merged:
            one = (
                "one book that equals another"
                if books.merged == 1
                else f"{books.merged:,} books that equal another one"
            )
            verb = "is" if books.merged == 1 else "are"
            found.append(f"{one} within {_round_up(books.merged_apart_s)} s {verb} stored once with it")
        for account, name in ((books, "books"), (ticks, "ticks")):
            missed = account.missed - account.merged
            if missed:
                found.append(f"{missed:,} of {account.available:,} {name} that a feed delivered are in no row")
            if account.doubled:
                found.append(
                    f"{account.doubled:,} of {account.stored:,} rows of {name} are of one that is stored already"
                )
            if account.wrong:
                found.append(f"{account.wrong:,} rows of {name} are nothing that a feed delivered")
        if books.wrong_pairs:
            found.append(
                f"{books.wrong_pairs:,} of {books.pairs:,} rows with both arrivals have one of another book, "
                f"which arose up to {_round_up(books.wrong_pairs_apart_s)} s before or after"
            )
        if not any((ticks.missed, ticks.doubled, ticks.wrong, *_count_feed_problems(ticks))):
            found.append(f"each share of the {ticks.available:,} ticks that a feed delivered is in one row")
        if in_flight := sum(feed.in_flight for account in (books, ticks) for feed in account.feeds.values()):
            found.append(f"{in_flight:,} deliveries were in flight when their connection ended, and are not judged")
        return found

    def strict_problems(self) -> list[str]:
        """Violations without any allowance, but with contents that came back kept apart: for runs in which feeds often break.

        Where every few seconds one feed alone has a book, its neighbour of equal content finds a twin more often.
        """
        found = self._hard_problems()
        for what in ("missed", "doubled"):
            if count := getattr(self.books, f"{what}_unexplained"):
                found.append(
                    f"books: {count} of {self.books.available} {what}, and no content that came back explains it"
                )
        return found

    def _hard_problems(self) -> list[str]:
        found = []
        for name, account in (("books", self.books), ("ticks", self.ticks)):
            for feed, feed_account in account.feeds.items():
                if feed_account.missing or feed_account.extra:
                    found.append(
                        f"{name} of {feed}: {feed_account.missing} delivered but not stored, "
                        f"{feed_account.extra} stored but not sent"
                    )
            if account.wrong:
                found.append(f"{name}: {account.wrong} rows differ from what was sent")
            if not account.available:
                found.append(f"{name}: nothing was delivered, so nothing was proven")
        if self.ticks.missed or self.ticks.doubled:
            found.append(f"ticks: {self.ticks.missed} missed, {self.ticks.doubled} doubled")
        return found


def _count_feed_problems(account: StreamAccount) -> list[int]:
    return [feed.missing + feed.extra for feed in account.feeds.values()]


def _round_up(seconds: float) -> str:
    """A tenth of a second at least, and never less than it was."""
    return f"{max(math.ceil(seconds * 10), 1) / 10:.1f}"


def compute_allowance(share: float, available: int) -> float:
    """`share` of `available` books, plus three standard deviations of such a rare count.

    In a run of one minute the share is a handful, and a handful fluctuates.
    """
    expected = share * available
    return expected + 3 * math.sqrt(expected)
