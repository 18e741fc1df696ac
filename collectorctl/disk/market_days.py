"""Days of which the market data may go: certified for good, in no journal and, where that is asked for, copied.

Guarantees:
    * Nothing is changed; what cannot be read keeps its day.
    * A day of which files are gone already is judged by those that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from itertools import product

import msgspec
import numpy as np
import pyarrow as pa

from collectorctl.export.certified import find_sessions
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import FINAL_GRADES
from collectorctl.recover.verify import format_market_option, format_recovery_command
from conf.home import Home
from conf.market import MARKETS, MarketDate
from writer.catalog import Catalog
from writer.publish.verified_file import PartitionWriteError

_JOURNALS = ("orderbook", "tick", "event")
_SHOWN = 5


def find_obstacles(
    home: Home, days: Iterable[MarketDate], on_day: Callable[[], None] = lambda: None
) -> dict[MarketDate, str]:
    """Why the market data of each of these days stay, in words; "" where they may go. `on_day`: called before each."""
    chosen = sorted(days)
    in_journal = _find_journal_days(home, {one.market for one in chosen})
    found = {}
    for day in chosen:
        on_day()
        found[day] = _find_obstacle(home, day, in_journal)
    return found


def _find_obstacle(home: Home, one: MarketDate, in_journal: set[MarketDate]) -> str:
    if one in in_journal:
        return f"{one}: the journal has rows of it: `collectorctl restart writer`, or wait until the writer has pruned them"
    try:
        return _find_certificate_obstacle(home, one) or _find_copy_obstacle(home, one)
    except (PartitionWriteError, pa.ArrowException, msgspec.MsgspecError, OSError) as error:
        return f"{one}: {error}"


def _find_certificate_obstacle(home: Home, one: MarketDate) -> str:
    """What of the sessions whose rows lie under the date is not certified for good. PartitionWriteError, OSError."""
    market = MARKETS[one.market]
    sessions = find_sessions(home, one.day, market)
    for session, instruments in (sessions or {one.day: []}).items():
        certificates = store.load(home.data, session, market)
        final = {key for key, found in certificates.items() if found.certificate in FINAL_GRADES}
        open_ones = [str(name) for name in instruments if (name.symbol, name.venue) not in final]
        if not certificates or open_ones:
            names = (
                f" ({', '.join(open_ones[:_SHOWN])}{' ...' if len(open_ones) > _SHOWN else ''})" if open_ones else ""
            )
            return f"{one}: is not certified for good{names}: {format_recovery_command(session, market)}"
    return ""


def _find_copy_obstacle(home: Home, one: MarketDate) -> str:
    """Why the copy that is asked for is none. OSError."""
    if not (url := home.settings.retention.require_copy):
        return ""
    if find_spec("fsspec") is None:
        return f"{one}: fsspec is not installed, so no copy can be looked at: pip install -e '.[copy]'"
    from collectorctl.copy.job import find_uncopied
    from collectorctl.copy.target import Target

    try:
        target = Target(url)
        lacking = find_uncopied(home, one.day, target, MARKETS[one.market])
    except (ValueError, ImportError) as error:
        return f"{one}: retention.require_copy: {error}"
    if not lacking:
        return ""
    command = f"collectorctl copy --date {one.day}{format_market_option(MARKETS[one.market])} --to ..."
    return f"{one}: {target.name} has no verified copy ({lacking[0]}): `{command}`"


def _find_journal_days(home: Home, markets: Iterable[str]) -> set[MarketDate]:
    """The days of which journals have rows, published or not: a writer that starts looks for the files of those."""
    catalog, found = Catalog(home), set[MarketDate]()
    for market, stream in product(markets, _JOURNALS):
        for batch in catalog.journal(f"{market}.{stream}"):
            hours = np.unique(batch.column("hour").to_numpy()).tolist()
            found.update(MarketDate(market, MARKETS[market].to_local(hour).date()) for hour in hours)
    return found
