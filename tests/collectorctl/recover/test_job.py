"""`collectorctl recover` against the simulator: every tick of the day once, in true order, and a certificate that does not lie."""

from __future__ import annotations

import datetime as dt
import fcntl
import gzip
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.day_fixture import (
    DAY,
    KIWOOM_SYMBOLS,
    SYMBOLS,
    FinishedDay,
    a_finished_day,
    assert_matches_truth,
    collect_grades,
    lose_between,
    lose_long_and_short,
    lose_randomly,
    publish_ticks,
    to_tick_records,
)
from support.process_tree import BIN

from collectorctl.recover.job import load_rates
from collectorctl.symbols.resolve import record_list
from conf.home import Home
from conf.universe.listing import UniverseList


@pytest.fixture(scope="module")
def the_day() -> Iterator[FinishedDay]:
    """A day of 1,500 trades a symbol, over; its simulator goes on answering."""
    with a_finished_day() as day:
        yield day


@pytest.fixture
def finished(the_day: FinishedDay) -> FinishedDay:
    """The same day, of which nothing is stored."""
    the_day.clear_data()
    return the_day


def test_every_tick_of_a_day_with_loss_and_an_outage_is_there_once_and_the_day_is_proven(finished: FinishedDay) -> None:
    """Live rows keep their receive times, recovered ones have none; the certificate can be made again from the files."""
    finished.publish_live(lose_long_and_short)
    lost = {symbol: lose_long_and_short(finished.true_trades(symbol)) for symbol in SYMBOLS}

    certificates = finished.recover()

    assert {"PROVEN"} == collect_grades(certificates)
    assert_matches_truth(finished)
    for symbol in SYMBOLS:
        stored = finished.load_stored(symbol)
        assert lost[symbol].tolist() == (stored.source == "recovered").tolist()
        assert lost[symbol].tolist() == stored.recv_time.isna().tolist()
        assert lost[symbol].tolist() == stored.seq.isna().tolist()
        live = stored[stored.source == "live"]
        assert finished.true_trades(symbol)["side"][~lost[symbol]].tolist() == live.side.tolist()
    assert 0 == finished.run("verify", "--date", DAY).exit_code


def test_recovering_twice_changes_no_byte(finished: FinishedDay) -> None:
    """Not even of the certificates."""
    finished.publish_live(lose_long_and_short)
    finished.recover()
    before = finished.read_published()

    again = finished.recover()

    assert {"PROVEN"} == collect_grades(again)
    assert before == finished.read_published()


def test_a_range_recovers_the_day_that_lacks_something_and_then_leaves_it_alone(finished: FinishedDay) -> None:
    finished.clear_data()
    finished.publish_live(lose_between("10:00", "10:10"))

    first, second = (finished.run("recover", "--from", DAY, "--to", DAY, "--json") for _ in range(2))
    table = finished.run("verify", "--from", DAY)

    for result, outcome in ((first, "recovered"), (second, "unchanged")):
        (one,) = msgspec.json.decode(result.stdout)
        assert (one["day"], one["status"], one["outcome"], len(one["result"])) == (DAY, 0, outcome, 3), result.output
    assert (table.exit_code, table.stdout.count("3 PROVEN")) == (0, 1)


def test_a_symbol_that_came_later_is_not_expected_of_a_day_before(finished: FinishedDay) -> None:
    """One that left since is; what has ticks is, whatever the lists say."""
    finished.clear_data()
    home = Home(finished.root)
    past, later = (UniverseList(entries=[], table_day=None, kr=list(kr), us=[]) for kr in (SYMBOLS[:1], SYMBOLS))
    try:
        record_list(home, dt.date.fromisoformat(DAY), past)
        record_list(home, dt.date.fromisoformat(DAY) + dt.timedelta(days=1), later)
        planned = msgspec.json.decode(finished.run("recover", "--date", DAY, "--dry-run", "--json").stdout)
    finally:
        shutil.rmtree(home.universe_directory())

    assert [one["instrument"][0] for one in planned] == SYMBOLS[:1]


def test_a_dry_run_writes_nothing(finished: FinishedDay) -> None:
    """It says what is missing, by instrument."""
    finished.publish_live(lose_long_and_short)
    before = sorted((finished.root / "data").rglob("*")), finished.read_published()

    ran = finished.run("recover", "--date", "20261120", "--dry-run", "--json")

    plan = {one["instrument"][0]: one for one in msgspec.json.decode(ran.stdout)}
    for symbol in SYMBOLS:
        trades = finished.true_trades(symbol)
        assert int(trades["size"][lose_long_and_short(trades)].sum()) == plan[symbol]["shares"]
    assert before == (sorted((finished.root / "data").rglob("*")), finished.read_published())


def test_a_small_gap_is_filled_from_prints_which_tell_the_side(finished: FinishedDay) -> None:
    """Two minutes of one symbol; the others are whole and nothing is asked for them but official figures."""
    lost = lose_between("13:00", "13:04")
    finished.publish_live(lost, ["005930"])
    publish_ticks(
        finished.root, to_tick_records(np.concatenate([finished.true_trades(symbol) for symbol in SYMBOLS[1:]]))
    )

    certificates = finished.recover()

    assert {"PROVEN"} == collect_grades(certificates)
    assert_matches_truth(finished)
    assert finished.true_trades("005930")["side"].tolist() == finished.load_stored("005930").side.tolist()
    assert certificates["005930"]["recovered_ticks"] > 0


def test_pages_and_rates_under_their_earlier_name_are_used(finished: FinishedDay) -> None:
    """Trades were called prints: a run that was left unfinished by an earlier version goes on without fetching its pages again."""
    finished.publish_live(lose_between("13:00", "13:04"), ["005930"])
    live = finished.read_published()
    finished.recover("--symbols", "005930")
    folders = list((finished.root / "data/recover").rglob("trades-*"))
    for folder in folders:
        folder.rename(folder.with_name(folder.name.replace("trades", "prints")))
    pages = {path: path.stat().st_mtime_ns for path in (finished.root / "data/recover").rglob("prints-*/*.json.gz")}
    shutil.rmtree(finished.root / "data/kr/completeness")
    for name, content in live.items():
        (finished.root / "data" / name).write_bytes(content)
    (finished.root / "data/recover/rates.json").write_text('{"ticks": 3.5, "prints": 2.5}')
    rates = load_rates(Home(finished.root))

    again = finished.recover("--symbols", "005930")

    assert folders and pages
    assert {"PROVEN"} == collect_grades(again)
    assert all(path.stat().st_mtime_ns == written_ns for path, written_ns in pages.items())
    assert list((finished.root / "data/recover").rglob("trades-*")) == []
    assert rates == {"ticks": 3.5, "trades": 2.5}


def test_an_hour_without_any_live_tick_and_a_symbol_without_any_get_files(finished: FinishedDay) -> None:
    """A day that was hardly collected at all."""
    finished.publish_live(lose_between("09:30", "16:00"), SYMBOLS[:2])

    certificates = finished.recover()

    assert {"PROVEN"} == collect_grades(certificates)
    assert_matches_truth(finished)


def test_a_later_part_of_an_hour_keeps_its_rows_and_every_part_its_place_in_the_journal(finished: FinishedDay) -> None:
    """The writer reads from the parts how far an hour is published; copies of a row are stored once."""
    trades = np.concatenate([finished.true_trades(symbol) for symbol in SYMBOLS])
    early = trades["exch_s"] < pd.Timestamp(f"{DAY} 10:30", tz="Asia/Seoul").timestamp()
    lost = lose_long_and_short(trades)
    publish_ticks(finished.root, to_tick_records(trades[early & ~lost]))
    publish_ticks(finished.root, to_tick_records(trades[~early & ~lost]))
    twice = trades[early & ~lost][5:25]
    publish_ticks(finished.root, to_tick_records(twice))
    before = {path: pq.read_metadata(path).metadata for path in (finished.root / "data/kr/tick").rglob("*.parquet")}

    certificates = finished.recover()

    assert {"PROVEN"} == collect_grades(certificates)
    for symbol in SYMBOLS:
        stored = finished.load_stored(symbol).sort_values("cum_volume")
        assert finished.true_trades(symbol)["cum_volume"].tolist() == stored.cum_volume.tolist()
    for path, metadata in before.items():
        now = pq.read_metadata(path).metadata
        assert all(metadata[name] == now[name] for name in (b"lineage", b"row_from", b"row_to"))


def test_trades_that_two_feeds_stamped_in_two_hours_are_stored_once_after_recovery(finished: FinishedDay) -> None:
    """What an earlier version published twice over the edge of an hour; the day is proven."""
    trades = np.concatenate([finished.true_trades(symbol) for symbol in SYMBOLS])
    eleven_s = int(pd.Timestamp(f"{DAY} 11:00", tz="Asia/Seoul").timestamp())
    publish_ticks(finished.root, to_tick_records(trades))
    last = np.array(
        [np.flatnonzero((trades["symbol"] == name.encode()) & (trades["exch_s"] < eleven_s))[-1] for name in SYMBOLS]
    )
    again = trades[last]
    again["exch_s"] = eleven_s
    publish_ticks(finished.root, to_tick_records(again))
    assert len(finished.load_stored(SYMBOLS[0])) == len(finished.true_trades(SYMBOLS[0])) + 1

    certificates = finished.recover()

    assert {"PROVEN"} == collect_grades(certificates)
    for symbol in SYMBOLS:
        stored = finished.load_stored(symbol).sort_values("cum_volume")
        assert finished.true_trades(symbol)["cum_volume"].tolist() == stored.cum_volume.tolist()


def test_killed_at_any_point_and_run_again_it_ends_with_the_same_bytes(finished: FinishedDay) -> None:
    """SIGKILL after a page, while an hour is rewritten, at the end, each a few times: as if it had never been interrupted."""
    finished.publish_live(lose_long_and_short)
    live = finished.read_published()
    finished.recover()
    whole = finished.read_published()

    for what in ("pages", "published", "certified"):
        finished.clear_data()
        for name, content in live.items():
            (finished.root / "data" / name).parent.mkdir(parents=True, exist_ok=True)
            (finished.root / "data" / name).write_bytes(content)
        killed = [_kill_when(finished, what, live) for _ in range(2)]
        again = finished.recover()

        assert any(killed), what
        assert {"PROVEN"} == collect_grades(again)
        said = {name: content for name, content in finished.read_published().items() if "completeness" not in name}
        assert {name: content for name, content in whole.items() if "completeness" not in name} == said


def _kill_when(day: FinishedDay, what: str, live: dict[str, bytes]) -> bool:
    """Start a recovery and kill it as soon as it has come as far as `what`; whether it was still there."""
    before = len(list((day.root / "data/recover").rglob("*.json.gz")))
    process = subprocess.Popen(
        [BIN / "collectorctl", "--home", day.root, "recover", "--date", DAY],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def there() -> bool:
        if what == "pages":
            return len(list((day.root / "data/recover").rglob("*.json.gz"))) > before
        if what == "published":
            return any(list((day.root / "data/kr/tick").rglob(".part-*"))) or _changed(day, live)
        return (day.root / "data/kr/completeness").exists()

    while process.poll() is None and not there():
        time.sleep(0.001)
    process.kill()
    return process.wait() == -signal.SIGKILL


def _changed(day: FinishedDay, live: dict[str, bytes]) -> bool:
    sizes = {name: (day.root / "data" / name).stat().st_size for name in live}
    return any(size != len(live[name]) for name, size in sizes.items())


@pytest.mark.parametrize("fault", ["limit 1", "error 1", "expire", "repeatpage 1", "emptypage 1"])
def test_a_fault_of_the_broker_is_overcome_or_said_never_proven_wrongly(finished: FinishedDay, fault: str) -> None:
    """Whatever the answers, PROVEN means that the truth is stored; once the broker is well, so is the day."""
    finished.publish_live(lose_long_and_short)
    assert finished.simulator.send_command(f"kiwoom {fault}")["ok"]

    first = finished.recover()
    assert_matches_truth(finished, [symbol for symbol, one in first.items() if one["certificate"] == "PROVEN"])
    again = finished.recover()

    assert {"PROVEN"} == collect_grades(again)
    assert_matches_truth(finished)


def test_trades_that_come_while_pages_are_fetched_make_nothing_proven_that_is_not() -> None:
    """The head moves under the pages and the day grows: what is proven at last is the day as it then is."""
    with a_finished_day("--kiwoom-keys", "offset") as day:
        day.publish_live(lose_long_and_short)
        assert day.simulator.send_command("kiwoom movehead 2")["ok"]

        certificates = day.recover()

        for symbol, one in certificates.items():
            stored = day.load_stored(symbol)
            exact = int(stored["size"].sum()) == one["official_volume"] and stored.cum_volume.is_monotonic_increasing
            assert (one["certificate"] == "PROVEN") <= exact
        assert {"PROVEN"} == collect_grades(day.recover())


def test_volume_off_the_book_is_reconciled_and_never_proven() -> None:
    """A block is in the day's volume and in no list of prints."""
    with a_finished_day() as finished:
        finished.publish_live(lose_randomly(0.02))
        assert finished.simulator.send_command("market block 005930 4321")["ok"]

        certificates = finished.recover()

        assert "RECONCILED" == certificates["005930"]["certificate"]
        assert 4321 == certificates["005930"]["missing_shares"]
        assert {"PROVEN"} == {certificates[symbol]["certificate"] for symbol in SYMBOLS[1:]}


def test_what_a_budget_leaves_out_gets_minute_bars_beside_the_ticks(finished: FinishedDay) -> None:
    """MINUTE_ONLY, and not one row among the ticks."""
    finished.publish_live(lose_long_and_short)
    before = {name: content for name, content in finished.read_published().items() if "/tick/" in name}

    certificates = finished.recover("--budget", "0.01s")

    assert {"MINUTE_ONLY"} == collect_grades(certificates)
    assert before == {name: content for name, content in finished.read_published().items() if "/tick/" in name}
    bars = pd.read_parquet(finished.root / "data/kr/bar_1m")
    for symbol in SYMBOLS:
        trades = finished.true_trades(symbol)
        minutes = pd.Series(trades["size"]).groupby(trades["exch_s"] // 60).sum()
        assert minutes.tolist() == bars[bars.symbol == symbol].volume.tolist()


def test_it_refuses_in_words_what_cannot_be_recovered(finished: FinishedDay) -> None:
    """A holiday, a future day, one beyond the horizon, nonsense: exit 2; another run at work: 75. Nothing is written."""
    finished.publish_live(lose_long_and_short)
    before = sorted((finished.root / "data").rglob("*"))

    for date, words in (
        ("2026-11-21", "future"),
        ("2026-11-15", "Sunday without a session"),
        ("2026-10-09", "Friday (Hangul Day) without a session"),
        ("2020-11-20", "trading days ago"),
        ("20261", "is no day"),
    ):
        ran = finished.run("recover", "--date", date)
        assert (2, True) == (ran.exit_code, words in ran.stderr), ran.stderr
    ran = finished.run("recover", "--date", "2026-10-01", "--mode", "ticks")
    assert (2, True) == (ran.exit_code, "minutes" in ran.stderr), ran.stderr
    ran = finished.run("verify", "--date", DAY)
    assert (1, True) == (ran.exit_code, "no certificate" in ran.stderr), ran.stderr
    assert before == sorted((finished.root / "data").rglob("*"))


def test_another_run_at_work_is_waited_for_by_nobody(finished: FinishedDay) -> None:
    """Exit 75, and a word."""
    finished.publish_live(lose_long_and_short)
    finished.recover()
    with (finished.root / "run/recovering.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        ran = finished.run("recover", "--date", DAY)

    assert (75, True) == (ran.exit_code, "another recovery is at work" in ran.stderr)


def test_minutes_alone_can_be_asked_for(finished: FinishedDay) -> None:
    """--mode minutes leaves the ticks as they are, for one symbol here; the other symbols get no certificate."""
    finished.publish_live(lose_long_and_short)

    certificates = finished.recover("--mode", "minutes", "--symbols", "000660")

    assert {"000660": "MINUTE_ONLY"} == {symbol: one["certificate"] for symbol, one in certificates.items()}
    assert {"000660"} == set(pd.read_parquet(finished.root / "data/kr/bar_1m").symbol)
    assert 0 == certificates["000660"]["recovered_ticks"]


def test_a_symbol_the_broker_does_not_know_does_not_stop_the_others(finished: FinishedDay) -> None:
    """It is INCOMPLETE, the others are PROVEN."""
    finished.publish_live(lose_long_and_short)

    certificates = finished.recover("--symbols", "999999,005930")

    assert {"999999": "INCOMPLETE", "005930": "PROVEN"} == {s: one["certificate"] for s, one in certificates.items()}


def test_while_the_session_is_open_nothing_is_proven() -> None:
    """What has been traded so far is recovered; the day may go on."""
    with a_finished_day(clock=f"{DAY}T19:30:00+09:00") as day:
        day.simulator.send_command("market rest")
        day.publish_live(lose_randomly(0.1))

        certificates = day.recover()

        assert {"INCOMPLETE"} == collect_grades(certificates)
        assert {("the day's sessions were not over",)} == {tuple(one["reasons"]) for one in certificates.values()}


FORGERIES = ["swap two sizes", "drop one and double another", "drop one", "leave out a page's worth", "shift a price"]


def test_files_that_were_tampered_with_are_not_verified(finished: FinishedDay) -> None:
    """The certificate is made from the rows, not believed."""
    finished.publish_live(lose_long_and_short)
    finished.recover()
    path = finished.root / f"data/kr/tick/date={DAY}/hour=10/part-0.parquet"
    table, content = pq.ParquetFile(path).read(), path.read_bytes()

    for forgery in FORGERIES:
        pq.write_table(forged(table, forgery), path)
        ran = finished.run("verify", "--date", DAY)
        assert 1 == ran.exit_code, forgery
        assert "000660 KRX: the stored certificate differs" in ran.stderr, forgery
        told = msgspec.json.decode(finished.run("verify", "--date", DAY, "--json").stdout)
        assert {"000660": "INCOMPLETE"} == {
            one["now"]["symbol"]: one["now"]["certificate"] for one in told if one["now"]["certificate"] != "PROVEN"
        }
    path.write_bytes(content)

    assert 0 == finished.run("verify", "--date", DAY).exit_code


def forged(table: pa.Table, forgery: str) -> pa.Table:
    """The hour with one lie about a symbol."""
    rows = table.to_pandas()
    mine = rows.index[rows.symbol == "000660"]
    one, other = unlike(rows.loc[mine])
    if forgery == "swap two sizes":
        rows.loc[[one, other], "size"] = rows.loc[[other, one], "size"].to_numpy()
    elif forgery == "drop one and double another":
        same = rows.loc[mine].groupby("size").filter(lambda group: len(group) > 2).index
        rows = pd.concat([rows.drop(same[0]), rows.loc[[same[2]]]])
    elif forgery == "drop one":
        rows = rows.drop(one)
    elif forgery == "leave out a page's worth":
        rows = rows.drop(mine[2:-2])
    else:
        rows.loc[one, "price"] += 1
    return pa.Table.from_pandas(rows, table.schema, preserve_index=False)


def unlike(rows: pd.DataFrame) -> tuple[int, int]:
    """Two trades of another price and another size."""
    for number, row in rows.iterrows():
        others = rows[(rows.price != row.price) & (rows["size"] != row["size"]) & (rows.index > number)]
        if len(others):
            return int(number), int(others.index[0])
    raise AssertionError("all trades are alike")


MERGED = "merge two of one price and second"
"""Volume, value and minutes agree: only a broker that counts each trade tells, and Kiwoom does not."""
LIES = ["swap two sizes", "drop one and double another", "leave out a page", MERGED]


@pytest.mark.parametrize("lie", LIES)
def test_pages_that_lie_prove_nothing(finished: FinishedDay, lie: str) -> None:
    """A broker's list that is wrong is noticed, fetched again, and the truth is stored in the end."""
    finished.publish_live(lose_long_and_short)
    finished.recover()
    pages = {path: path.read_bytes() for path in (finished.root / "data/recover").rglob("*") if path.is_file()}
    finished.clear_data()
    finished.publish_live(lose_long_and_short)
    for path, content in pages.items():
        if path.name != "evidence.json":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for symbol in set(SYMBOLS) - (KIWOOM_SYMBOLS if lie == MERGED else set()):
        lie_in(finished.root / f"data/recover/date={DAY}/{symbol}/chart", lie)

    first = finished.recover()

    assert_matches_truth(finished, [symbol for symbol, one in first.items() if one["certificate"] == "PROVEN"])
    assert {"PROVEN"} == collect_grades(finished.recover())
    assert_matches_truth(finished)


def lie_in(chart: Path, lie: str) -> None:
    """Change kept pages so that their hashes and keys still fit."""
    paths = sorted(chart.glob("*.json.gz"))
    assert len(paths) > 1
    kept = [msgspec.json.decode(gzip.decompress(path.read_bytes())) for path in paths]
    body = msgspec.json.decode(kept[0]["content"])
    (rows,) = (value for value in body.values() if isinstance(value, list))
    size, price = "trde_qty", "cur_prc"
    lost = [n for n, row in enumerate(rows) if "100500" <= row["cntr_tm"][8:] <= "112500"]
    if lie == "swap two sizes":
        one, other = next(
            (a, b) for a in lost for b in lost if rows[a][size] != rows[b][size] and rows[a][price] != rows[b][price]
        )
        rows[one][size], rows[other][size] = rows[other][size], rows[one][size]
    elif lie == "drop one and double another":
        one, other = next((a, b) for a in lost for b in lost if a + 2 < b and rows[a][size] == rows[b][size])
        rows.insert(other, dict(rows[other]))
        del rows[one]
    elif lie == MERGED:
        one = next(n for n in lost[:-1] if all(rows[n][name] == rows[n + 1][name] for name in (price, "cntr_tm")))
        rows[one][size] = str(int(rows[one][size]) + int(rows[one + 1][size]))
        del rows[one + 1]
    else:
        del rows[lost[0] : lost[-1] + 1]
    kept[0]["content"] = msgspec.json.encode(body).decode()
    kept[0]["sha256"] = sha256(kept[0]["content"].encode()).hexdigest()
    paths[0].write_bytes(gzip.compress(msgspec.json.encode(kept[0])))
