"""Days of which the market data may go: certified for good, in no journal and, where that is asked for, copied.

Guarantees:
    * Nothing is changed; what cannot be read keeps its day.
    * A day of which files are gone already is judged by those that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from importlib.util import find_spec

import msgspec
import numpy as np
import pyarrow as pa

from collectorctl.export.certified import find_instruments
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import FINAL_GRADES
from conf.home import Home
from conf.market import KR
from writer.catalog import Catalog
from writer.publish.verified_file import PartitionWriteError

_JOURNALS = ("orderbook", "tick", "event")
_SHOWN = 5


def find_obstacles(home: Home, days: Iterable[date], on_day: Callable[[], None] = lambda: None) -> dict[date, str]:
    """Why the market data of each of these days stay, in words; "" where they may go. `on_day`: called before each."""
    chosen = sorted(days)
    in_journal = _find_journal_days(home) if chosen else set()
    found = {}
    for day in chosen:
        on_day()
        found[day] = _find_obstacle(home, day, in_journal)
    return found


def _find_obstacle(home: Home, day: date, in_journal: set[date]) -> str:
    if day in in_journal:
        return f"{day}: the journal has rows of it: `collectorctl restart writer`, or wait until the writer has pruned them"
    try:
        certificates = store.load(home.data, day)
        final = {key for key, one in certificates.items() if one.certificate in FINAL_GRADES}
        open_ones = [str(one) for one in find_instruments(home, day) if (one.symbol, one.venue) not in final]
        if not certificates or open_ones:
            names = (
                f" ({', '.join(open_ones[:_SHOWN])}{' ...' if len(open_ones) > _SHOWN else ''})" if open_ones else ""
            )
            return f"{day}: is not certified for good{names}: `collectorctl recover --date {day}`"
        return _find_copy_obstacle(home, day)
    except (PartitionWriteError, pa.ArrowException, msgspec.MsgspecError, OSError) as error:
        return f"{day}: {error}"


def _find_copy_obstacle(home: Home, day: date) -> str:
    """Why the copy that is asked for is none. OSError."""
    if not (url := home.settings.retention.require_copy):
        return ""
    if find_spec("fsspec") is None:
        return f"{day}: fsspec is not installed, so no copy can be looked at: pip install -e '.[copy]'"
    from collectorctl.copy.job import find_uncopied
    from collectorctl.copy.target import Target

    try:
        target = Target(url)
        lacking = find_uncopied(home, day, target)
    except (ValueError, ImportError) as error:
        return f"{day}: retention.require_copy: {error}"
    if not lacking:
        return ""
    return f"{day}: {target.name} has no verified copy ({lacking[0]}): `collectorctl copy --date {day} --to ...`"


def _find_journal_days(home: Home) -> set[date]:
    """The days of which journals have rows, published or not: a writer that starts looks for the files of those."""
    catalog, hours = Catalog(home), set[int]()
    for stream in _JOURNALS:
        for batch in catalog.journal(f"{KR.name}.{stream}"):
            hours.update(np.unique(batch.column("hour").to_numpy()).tolist())
    return {KR.to_local(hour).date() for hour in hours}
