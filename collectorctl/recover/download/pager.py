"""Paging client: page after page of one request, throttled and retried.

    client: wait for the rate ─> fetch ─┬─> PageResponse
                  ^                     └─ rate limited, no response: wait, repeat, at most `attempts` times
    range:  next_key ─> fetch ─> rows in order? ─> store ─> older than the range? ── no ───┐
                  ^─────────────────────────────────────────────────────────────────────────┘

Guarantees:
    * The end of a range is a row *older* than it, not the end of a page.
    * A page that does not advance or is out of order is an error. A row that cannot be read costs no other row; the end record
      of a sequence has the number of such rows.
    * An unfinished sequence of an earlier run is continued, and begun anew once if the broker no longer knows its key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from brokers.errors import RateLimited, RestError, ServiceUnavailable
from brokers.history import TRADE_ROW, HistoricalData, PageRequest, PageResponse, PageRows
from collectorctl.recover.download.page_store import PageError, PageSequence
from collectorctl.recover.download.rate_limiter import RateLimiter
from conf.settings import Recover

RETRY_DELAY_S, MAX_RETRY_DELAY_S = 1.0, 8.0
"""After a refusal for the rate 1 s is enough (docs/wire/kiwoom.md 1.6); it doubles."""

ProgressCallback = Callable[[str], None]


class FetchError(Exception):
    """A page that cannot be fetched; the message has the reason. Fetched pages are kept."""


class NoAnswer(FetchError):
    """No response after every attempt, or none for this key at all: stored pages stay valid, and other requests would fail too."""


class ThrottledClient:
    """Every call of a run goes through here."""

    def __init__(
        self,
        history: HistoricalData,
        settings: Recover,
        on_progress: ProgressCallback = lambda _: None,
        before_call: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_progress` gets a message for every pause; what `before_call` raises ends the run."""
        self.history = history
        self.call_counts: dict[str, int] = {}
        self.no_answer_message = ""
        """The last call that was given up without a response: conclusions from its absence may change soon."""
        self._settings = settings
        self._on_progress = on_progress
        self._before_call = before_call
        self._limiters: dict[str, RateLimiter] = {}

    def fetch_page(self, request: PageRequest) -> PageResponse:
        """One page. FetchError when it cannot be had."""
        retry_delay_s = RETRY_DELAY_S
        cause: RestError
        for attempt in range(1, self._settings.attempts + 1):
            self._before_call()
            limiter = self._get_limiter(request.kind)
            time.sleep(limiter.wait_s(time.monotonic()))
            limiter.on_call(time.monotonic())
            self.call_counts[request.kind] = self.call_counts.get(request.kind, 0) + 1
            try:
                response = self.history.fetch_page(request)
            except RateLimited as error:
                limiter.on_refusal()
                cause = error
            except ServiceUnavailable as error:
                cause = error
            except RestError as error:
                # a rejection with a waiting time concerns key, address or permission; else it concerns this request
                raise (self._record_no_answer(str(error)) if error.retry_after_s else FetchError(str(error))) from error
            else:
                limiter.on_success()
                return response
            if attempt < self._settings.attempts:
                self._on_progress(f"{cause}: again in {retry_delay_s:g} s")
                time.sleep(retry_delay_s)
                retry_delay_s = min(2 * retry_delay_s, MAX_RETRY_DELAY_S)
        raise self._record_no_answer(f"given up after {self._settings.attempts} attempts: {cause}") from cause

    def report(self, message: str) -> None:
        """Show what a user should know."""
        self._on_progress(message)

    def _record_no_answer(self, message: str) -> NoAnswer:
        self.no_answer_message = message
        return NoAnswer(message)

    def get_rate(self, kind: str) -> float:
        """Calls a second that this kind has been found to bear."""
        return self._get_limiter(kind).rate

    def _get_limiter(self, kind: str) -> RateLimiter:
        if kind not in self._limiters:
            self._limiters[kind] = RateLimiter(self._settings.calls_per_s_first, self._settings.max_calls_per_s)
        return self._limiters[kind]


ParsePage = Callable[[bytes], PageRows]
"""Makes rows of an answer, newest first."""


@dataclass
class PageProgress:
    """Counts the pages of one instrument, whatever sequence they are of; `on_page` gets their number and the rate of a kind."""

    client: ThrottledClient
    kind: str
    on_page: Callable[[int, float], None]
    count: int = 0
    rejects: list[str] = field(default_factory=list)
    """Why rows of them could not be read."""

    def reporting(self, parse: ParsePage) -> ParsePage:
        """Report each page as it is parsed."""

        def parse_and_report(content: bytes) -> PageRows:
            self.count += 1
            self.on_page(self.count, self.client.get_rate(self.kind))
            page = parse(content)
            self.rejects += page.rejects
            return page

        return parse_and_report


def fetch_pages(
    client: ThrottledClient,
    sequence: PageSequence,
    request: PageRequest,
    parse: ParsePage,
    begin: tuple[str, int],
    **end_fields: int,
) -> np.ndarray:
    """Fetch page after page until one has a row before the range, and mark the sequence complete; all rows, oldest first.

    `begin`: a column, and the value from which on a row lies in the range. `older=False` is recorded where the broker has no
    more pages, `rejects` where rows could not be read. FetchError: fetched pages are kept, except one out of order.
    """
    if sequence.end_record is not None:
        return _oldest_first([parse(content).rows for content in sequence])
    is_resumed = sequence.count > 0
    try:
        return _oldest_first([page.rows for page in walk_pages(client, sequence, request, parse, begin, **end_fields)])
    except NoAnswer:
        raise
    except (FetchError, PageError, RestError) as error:
        if not is_resumed:
            raise FetchError(str(error)) from error
        sequence.clear()
        return fetch_pages(client, sequence, request, parse, begin, **end_fields)


def walk_pages(
    client: ThrottledClient,
    sequence: PageSequence,
    request: PageRequest,
    parse: ParsePage,
    begin: tuple[str, int],
    **end_fields: int,
) -> Iterator[PageRows]:
    """Each page in turn, newest first: those that are stored, then fetched ones; then the sequence is complete.

    Arguments as of fetch_pages, but the memory holds one page. FetchError, PageError, RestError: a sequence that was resumed may
    have to be begun anew.
    """
    oldest: np.void | None = None
    rejects, reached_start = 0, False
    for content in sequence:
        page = parse(content)
        yield page
        rejects += len(page.rejects)
        oldest = page.rows[-1] if len(page.rows) else oldest
        if reached_start := _reaches_before(page.rows, begin):
            break
    while not reached_start and (sequence.next_key or not sequence.count):
        response = client.fetch_page(request._replace(key=sequence.next_key))
        page = parse(response.content)
        rows = page.rows
        _check_order(sequence, rows, oldest)
        if not len(rows) and response.next_key:
            reason = f"has no row that can be read ({page.rejects[0]})" if page.rejects else "is empty"
            raise PageError(f"{sequence.directory}: page {sequence.count + 1} {reason}, but the list continues")
        sequence.add(response)
        yield page
        rejects += len(page.rejects)
        reached_start = _reaches_before(rows, begin)
        oldest = rows[-1] if len(rows) else oldest
    if rejects:
        end_fields["rejects"] = rejects
    sequence.mark_complete(older=reached_start, **end_fields)


def _reaches_before(rows: np.ndarray, begin: tuple[str, int]) -> bool:
    return len(rows) > 0 and bool(rows[begin[0]].min() < begin[1])


def _check_order(sequence: PageSequence, rows: np.ndarray, oldest: np.void | None) -> None:
    """PageError unless the rows go back in time, within the page and from the page before."""
    at = rows["exch_ns"] if oldest is None else np.concatenate([[oldest["exch_ns"]], rows["exch_ns"]])
    if (np.diff(at) > 0).any():
        raise PageError(f"{sequence.directory}: page {sequence.count + 1} has a row newer than the one before it")


def _oldest_first(pages: list[np.ndarray]) -> np.ndarray:
    return (np.concatenate(pages) if pages else np.zeros(0, TRADE_ROW))[::-1]
