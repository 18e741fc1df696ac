"""Which files go when their days are over: the rule, for any set of files."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from collectorctl.disk.retention import (
    MARKET_KINDS,
    CleanPlan,
    Kind,
    RetentionClock,
    StoredFile,
    find_market_dates,
    plan_removal,
)
from conf.clock import DAY_NS
from conf.market import KR, US, MarketDate
from conf.settings import Retention

TODAY = date(2026, 11, 25)
NOW_NS = 1_795_600_000 * 10**9
CERTIFIED = {str(TODAY - timedelta(days)): {"005930"} for days in range(60)}


def keep(**days: int) -> Retention:
    return Retention(**({f"{kind}_days": days.get(kind, 0) for kind in Kind} | {"require_copy": ""}))


def file(path: str, age_days: float = 100, size: int = 7) -> StoredFile:
    return StoredFile(PurePosixPath(path), size, NOW_NS - round(age_days * DAY_NS))


def plan(files: list[StoredFile], **days: int) -> CleanPlan:
    return plan_removal(files, keep(**days), RetentionClock(TODAY, NOW_NS), CERTIFIED)


def names(files: list[StoredFile], **days: int) -> list[str]:
    return [one.path for one in plan(files, **days).removals]


EVERY = dict.fromkeys(Kind, 1)
DAY = st.integers(0, 59).map(lambda days: str(TODAY - timedelta(days)))
PATHS = st.one_of(
    DAY.map(lambda day: f"data/quarantine/date={day}/kis.jsonl"),
    DAY.map(lambda day: f"data/quarantine/date={day}/placing-ab/published.json"),
    st.builds(lambda day, page: f"data/recover/date={day}/005930/chart/{page:06}.json.gz", DAY, st.integers(1, 9)),
    DAY.map(lambda day: f"data/recover/date={day}/000660_NX/filled-1795132800.npy"),
    st.integers(10, 30).map(lambda day: f"data/capture/kis/2026-10-{day}T09-00-00.000000000.jsonl.gz"),
    st.sampled_from(["log/kis.2026-11-01_09-00-00_000000.log", "log/kis.out.1", "log/supervisord.log.2"]),
)
FILES = st.lists(st.builds(file, PATHS, st.floats(-2, 60), st.integers(0, 99)), unique_by=lambda one: one.path)
STAYS = [
    "data/kr/tick/date=2026-01-02/hour=09/part-0.parquet",
    "data/kr/completeness/date=2026-01-02/part-0.parquet",
    "data/journal/kr.tick/000000000001.journal",
    "data/recover/date=2026-11-02/005930/evidence.json",
    "data/recover/date=2026-11-02/NAS.AAPL/minutes/000001.json.gz",
    "data/recover/date=2026-11-02/NAS.AAPL/minutes/end.json",
    "data/recover/round.json",
    "data/quarantine/date=2026-13-45/kis.jsonl",
    "data/quarantine/notes.txt",
    "log/kis.log",
    "log/kis.out",
    "log/check-live.json",
]


@given(FILES, st.dictionaries(st.sampled_from(list(Kind)), st.integers(0, 50)))
def test_only_files_over_their_days_go_and_the_totals_are_theirs(files: list[StoredFile], days: dict[str, int]) -> None:
    """Whatever there is: a kind with 0 days stays whole, and so does everything of no kind."""
    everything = [*files, *map(file, STAYS)]
    found = plan(everything, **days)

    by_path = {str(one.path): one for one in everything}
    assert len({one.path for one in found.removals}) == len(found.removals)
    for one in found.removals:
        limit = days.get(one.kind, 0)
        named = date.fromisoformat(one.path.split("date=")[1][:10]) if "date=" in one.path else None
        age_days = (TODAY - named).days if named else (NOW_NS - by_path[one.path].mtime_ns) / DAY_NS
        assert limit > 0 and age_days > limit
        assert one.path not in STAYS
    for total in found.kinds:
        mine = [one.bytes for one in found.removals if one.kind == total.kind]
        assert (total.removable_files, total.removable_bytes) == (len(mine), sum(mine))
        assert total.removable_files <= total.files <= len(everything)


def test_frames_go_the_day_after_their_days_are_over() -> None:
    """`reprocess` may still decode them until then."""
    days = [file(f"data/quarantine/date={TODAY - timedelta(age)}/kis.jsonl") for age in (6, 7, 8)]

    assert names(days, quarantine=7) == [f"data/quarantine/date={TODAY - timedelta(8)}/kis.jsonl"]


def test_a_date_with_an_interrupted_reprocess_stays_whole() -> None:
    """Its batch has rows that are not all stored yet."""
    files = [
        file("data/quarantine/date=2026-11-02/kis.jsonl"),
        file("data/quarantine/date=2026-11-02/placing-ab/kis.taken"),
        file("data/quarantine/date=2026-11-03/kis.jsonl"),
        file("data/quarantine/date=2026-11-03/.placing.tmp/kis.taken"),
    ]

    assert sorted(names(files, quarantine=1)) == [str(files[3].path), str(files[2].path)]


def test_pages_go_by_the_certificate_of_their_instrument() -> None:
    """005930 is certified for good, 000660 is not; of a day whose certificates cannot be read nothing goes."""
    certified = file("data/recover/date=2026-10-12/005930/trades-1-9/000001.json.gz")
    other = file("data/recover/date=2026-10-12/000660/chart/000001.json.gz")
    unknown = file("data/recover/date=2026-01-12/000660/chart/000001.json.gz")
    files = [certified, other, unknown]

    assert names(files, staging=1) == [str(certified.path)]
    assert names(files, uncertified=40) == [str(other.path)]


def test_pages_that_an_unfinished_backfill_left_go_by_the_day_of_its_run() -> None:
    """Of ticks and of bars; the list of backfilled days stays."""
    folder = "data/recover/backfill/date=2026-10-12/000660"
    pages = [file(f"{folder}/{name}/000001.json.gz") for name in ("ticks", "bars-2026-10-09-2026-09-01")]
    days = file("data/recover/backfilled.json")

    assert sorted(names([*pages, days], uncertified=1)) == sorted(str(page.path) for page in pages)


@given(st.permutations(["000001.json.gz", "000002.json.gz", "000003.json.gz", "end.json"]), st.integers(0, 4))
def test_what_is_left_of_a_folder_at_any_moment_is_a_valid_beginning_of_it(order: list[str], killed_after: int) -> None:
    """No mark of the end without its pages, no page without those before it."""
    folder = "data/recover/date=2026-11-02/005930/chart"
    going = names([file(f"{folder}/{name}") for name in order], staging=1)
    left = {PurePosixPath(path).name for path in going[killed_after:]}

    assert left in [set(sorted([*order])[:count]) for count in range(5)]


def test_market_data_go_by_the_day_and_only_where_nothing_is_in_the_way() -> None:
    """Of each dataset by its own days; the newest days that there are stay, and what is no published file of a dataset."""
    old, older, *newest = (TODAY - timedelta(age) for age in (32, 40, 31, 30, 9))
    files = [
        *(
            file(f"data/{market}/{name}/date={day}/hour=09/part-0.parquet", 0)
            for market, name in MARKET_KINDS.values()
            for day in (old, older)
        ),
        *(file(f"data/kr/tick/date={day}/hour=09/part-0.parquet", 0) for day in newest),
        file(f"data/kr/orderbook/date={older}/hour=all/part-0.parquet", 0),
        *(file(f"data/kr/{name}/date={older}/part-0.parquet") for name in ("completeness", "bar_1m", "symbol")),
        file(f"data/us/completeness/date={older}/part-0.parquet"),
        file(f"data/kr/tick/date={older}/notes.txt"),
    ]
    rule, clock = keep(orderbook=35, tick=8), RetentionClock(TODAY, NOW_NS)
    old_kr, older_kr = MarketDate(KR.name, old), MarketDate(KR.name, older)

    def going(obstacles: dict[MarketDate, str]) -> list[str]:
        return sorted(one.path for one in plan_removal(files, rule, clock, CERTIFIED, obstacles).removals)

    assert find_market_dates(files, rule, TODAY) == {old_kr, older_kr}
    assert find_market_dates(files, keep(orderbook=40), TODAY) == set()
    assert find_market_dates(files, keep(tick=8), TODAY) == {old_kr, older_kr}
    assert going({}) == going({old_kr: "is not certified", older_kr: "is not certified"}) == []
    ticks, books = f"data/kr/tick/date={older}", f"data/kr/orderbook/date={older}"
    of_older = [
        f"{books}/hour=09/part-0.parquet",
        f"{books}/hour=all/part-0.parquet",
        f"{ticks}/hour=09/part-0.parquet",
    ]
    assert going({old_kr: "is not certified", older_kr: ""}) == of_older
    assert going({old_kr: "", older_kr: ""}) == sorted([*of_older, f"data/kr/tick/date={old}/hour=09/part-0.parquet"])
    assert plan_removal(files, rule, clock, CERTIFIED, {old_kr: "why", older_kr: ""}).kept == ["why"]


def test_the_market_data_of_each_market_go_by_its_own_days_and_each_keeps_its_newest() -> None:
    old, *newest = (TODAY - timedelta(age) for age in (40, 32, 31, 30))
    files = [
        *(file(f"data/us/{name}/date={old}/hour=09/part-0.parquet") for name in ("orderbook", "tick", "event")),
        *(file(f"data/us/tick/date={day}/hour=09/part-0.parquet") for day in newest),
        file(f"data/kr/tick/date={old}/hour=09/part-0.parquet"),
    ]
    of_us = MarketDate(US.name, old)
    rule = keep(us_tick=8, tick=8)
    found = plan_removal(files, rule, RetentionClock(TODAY, NOW_NS), CERTIFIED, {of_us: ""}).removals

    assert find_market_dates(files, rule, TODAY) == {of_us}
    assert [(one.kind, one.path) for one in found] == [
        (Kind.US_TICK, f"data/us/tick/date={old}/hour=09/part-0.parquet")
    ]


def test_the_newest_capture_of_each_feed_and_the_logs_in_use_stay() -> None:
    """A process may have them open, however long nothing came."""
    files = [file(f"data/capture/{feed}/2026-10-0{day}.jsonl.gz") for feed in ("kis", "us") for day in (1, 2)]
    logs = [file("log/kis.log"), file("log/kis.out"), file("log/kis.2026-11-01_09-00-00_000000.log")]

    assert sorted(names([*files, *logs], **EVERY)) == sorted(str(one.path) for one in (files[0], files[2], logs[2]))
