"""Pages of one question, one after the other, at the rate the broker allows.

    Caller: wait for the rate ─> ask ─┬─> Reply
                  ^                   └─ too soon, no answer: wait, again, `attempts` times at most
    fetch:  Chain.next_key ─> ask ─> rows in order? ─> keep ─> older than the range? ─ no ─┐
                  ^─────────────────────────────────────────────────────────────────────────┘

Promises: the end of a range is a row *older* than it, not the end of a page; a page that does not advance or comes out of order
is an error; a chain that an earlier run left unfinished is continued, and begun anew once if the broker no longer knows its key.
Leaves to others: the calls (brokers/*/quotes.py), keeping pages (pages.py), the rate (limiter.py), what the rows mean (fill.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from brokers.errors import RestError, RestLimited, RestUnreachable
from brokers.history import PRINTS, Asked, Quotes, Reply
from collectorctl.recover.download.page_store import Chain, PageError
from collectorctl.recover.download.rate_limiter import Limiter
from conf.settings import Recover

PAUSE_S, PAUSE_MOST_S = 1.0, 8.0
"""After a refusal for the rate 1 s is enough (spec kiwoom 1.6); it doubles."""

Told = Callable[[str], None]


class FetchError(Exception):
    """A page that cannot be had; the message says which and why. What was fetched is kept."""


class Unanswered(FetchError):
    """No answer after every attempt, or none for this key at all: what is kept is still good, and others fare no better."""


class Caller:
    """Every call of a run goes through here."""

    def __init__(self, quotes: Quotes, settings: Recover, told: Told = lambda _: None) -> None:
        """`told` hears of every page and every pause, in words."""
        self.quotes = quotes
        self.calls: dict[str, int] = {}
        self.unanswered = ""
        """The last call that was given up without an answer, in words: what follows from the lack of it may be otherwise soon."""
        self._settings = settings
        self._told = told
        self._limiters: dict[str, Limiter] = {}

    def ask(self, asked: Asked) -> Reply:
        """One page. FetchError when it cannot be had."""
        pause_s = PAUSE_S
        for attempt in range(1, self._settings.attempts + 1):
            limiter = self._limiter(asked.what)
            time.sleep(limiter.wait_s(time.monotonic()))
            limiter.called(time.monotonic())
            self.calls[asked.what] = self.calls.get(asked.what, 0) + 1
            try:
                reply = self.quotes.ask(asked)
            except RestLimited as error:
                limiter.refused()
                why = error
            except RestUnreachable as error:
                why = error
            except RestError as error:
                # who is to wait is refused as such: key, address, permission; else it is this question
                raise (self._given_up(str(error)) if error.wait_s else FetchError(str(error))) from error
            else:
                limiter.succeeded()
                return reply
            if attempt < self._settings.attempts:
                self._told(f"{why}: again in {pause_s:g} s")
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MOST_S)
        raise self._given_up(f"given up after {self._settings.attempts} attempts: {why}") from why

    def _given_up(self, words: str) -> Unanswered:
        self.unanswered = words
        return Unanswered(words)

    def rate(self, what: str) -> float:
        """Calls a second that this kind has been found to bear."""
        return self._limiter(what).rate

    def _limiter(self, what: str) -> Limiter:
        if what not in self._limiters:
            self._limiters[what] = Limiter(self._settings.calls_per_s_first, self._settings.calls_per_s_most)
        return self._limiters[what]


Read = Callable[[bytes], np.ndarray]
"""Makes PRINTS of an answer, newest first."""
Older = Callable[[np.ndarray], bool]
"""Whether one of a page's rows lies before the range."""


def fetch(caller: Caller, chain: Chain, first: Asked, read: Read, older: Older, **said: int) -> np.ndarray:
    """Ask page after page until one has a row before the range; the chain is then ended, and says so with `said`. All of its rows
    in true order, oldest first.

    Ended with `older=False` where the broker has no more. FetchError; what was fetched is kept, but for a page that led astray.
    """
    if chain.ended is not None:
        return _oldest_first([read(content) for content in chain])
    goes_on = chain.count > 0
    try:
        seen, pages = _walk(caller, chain, first, read, older)
        chain.end(older=seen, **said)
        return _oldest_first(pages)
    except Unanswered:
        raise
    except (FetchError, PageError, RestError) as error:
        if not goes_on:
            raise FetchError(str(error)) from error
        chain.clear()
        try:
            seen, pages = _walk(caller, chain, first, read, older)
        except (PageError, RestError) as again:
            raise FetchError(str(again)) from again
        chain.end(older=seen, **said)
        return _oldest_first(pages)


def _walk(caller: Caller, chain: Chain, first: Asked, read: Read, older: Older) -> tuple[bool, list[np.ndarray]]:
    """To the end; whether that was a row before the range, and the rows of every page."""
    oldest: np.void | None = None
    pages = []
    for content in chain:
        rows = read(content)
        pages.append(rows)
        oldest = rows[-1] if len(rows) else oldest
        if len(rows) and older(rows):
            return True, pages
    if chain.count and not chain.next_key:
        return False, pages
    while True:
        reply = caller.ask(first._replace(key=chain.next_key))
        rows = read(reply.content)
        _check_order(chain, rows, oldest)
        if not len(rows) and reply.next_key:
            raise PageError(f"{chain.directory}: page {chain.count + 1} is empty, and yet the list goes on")
        chain.add(reply)
        pages.append(rows)
        if len(rows) and older(rows):
            return True, pages
        if not reply.next_key:
            return False, pages
        oldest = rows[-1]


def _check_order(chain: Chain, rows: np.ndarray, oldest: np.void | None) -> None:
    """PageError unless the rows go back in time, within the page and from the page before."""
    at = rows["exch_ns"] if oldest is None else np.concatenate([[oldest["exch_ns"]], rows["exch_ns"]])
    if (np.diff(at) > 0).any():
        raise PageError(f"{chain.directory}: page {chain.count + 1} has a row newer than the one before it")


def _oldest_first(pages: list[np.ndarray]) -> np.ndarray:
    return (np.concatenate(pages) if pages else np.zeros(0, PRINTS))[::-1]
