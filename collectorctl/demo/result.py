"""Result of a demo: accounts per stream, allowances and violations (pure).

    oracle.py ─accounts─> DemoResult ─> violations

Guarantees:
    * What either feed certainly delivered has no allowance, but for what first-wins arbitration cannot tell apart.
"""

from __future__ import annotations

import math

import msgspec

MAX_MISSED_SHARE = 0.0005
MAX_DOUBLED_SHARE = 0.0003
"""Shares of available books that first-wins may miss or double."""


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
    during the day, of which `wrong` counts those that a feed had delivered or nobody traded. `..._unexplained`: missed and doubled
    books that are not explained by a content that came back (A, B, A): the arbiter may pair one feed's first A with the other
    feed's second A, so that one of two rows is stored, with both arrivals.
    """

    feeds: dict[str, FeedAccount]
    available: int = 0
    stored: int = 0
    missed: int = 0
    doubled: int = 0
    missed_unexplained: int = 0
    doubled_unexplained: int = 0
    wrong: int = 0
    fetched: int = 0


class DemoResult(msgspec.Struct):
    """Both streams, compared."""

    books: StreamAccount
    ticks: StreamAccount

    def problems(self) -> list[str]:
        """Violations, as messages; empty when the demo passed."""
        found = self._hard_problems()
        books = self.books
        for what, count, share in (
            ("missed", books.missed, MAX_MISSED_SHARE),
            ("doubled", books.doubled, MAX_DOUBLED_SHARE),
        ):
            if count > compute_allowance(share, books.available):
                found.append(f"books: {count} of {books.available} {what}, more than {share:.2%} and chance")
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


def compute_allowance(share: float, available: int) -> float:
    """`share` of `available` books, plus three standard deviations of such a rare count.

    In a run of one minute the share is a handful, and a handful fluctuates.
    """
    expected = share * available
    return expected + 3 * math.sqrt(expected)
