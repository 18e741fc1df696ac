"""The commands that need no running tree, and those that read a running one."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.process_tree import SECRETS, read_status, run_collectorctl, temporary_home, wait_until

from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.init import comment_out_settings
from conf.loader import load_settings

SETTINGS = """
[universe]
kr = ["005930", "000660"]
[clock]
start = "2026-11-20T10:00:00+09:00"
[kis]
subscribe_spacing_ms = 20
"""


def test_init_lays_out_a_home_and_touches_nothing_that_exists(tmp_path: Path) -> None:
    """Three files, three directories; what the user changed stays; every setting is there, commented out: nothing differs."""
    home = tmp_path / "home"

    first = run_collectorctl(tmp_path, "init", str(home)).stdout
    (home / "supervisord.conf").write_text("mine")
    second = run_collectorctl(tmp_path, "init", str(home)).stdout

    assert {"collector.toml", "supervisord.conf", ".env.example"} == {p.name for p in home.iterdir() if p.is_file()}
    assert {"data": 0o755, "run": 0o700, "log": 0o700} == {
        p.name: stat.S_IMODE(p.stat().st_mode) for p in home.iterdir() if p.is_dir()
    }
    assert first.count("created") == 3
    assert second.count("exists") == 3
    assert (home / "supervisord.conf").read_text() == "mine"
    assert load_settings(home) == load_settings(tmp_path)


def test_the_commented_manual_becomes_the_manual_again_when_uncommented() -> None:
    """Removing the first # of a line brings the setting to life."""
    manual = "# a manual\n\n[kis]\n# why\nenabled = true\n"

    assert comment_out_settings(manual).splitlines()[1:] == ["", "[kis]", "# why", "#enabled = true"]


def test_check_counts_registrations_and_says_ok() -> None:
    """Books on both brokers, ticks shared out."""
    with temporary_home(SETTINGS) as root:
        found = msgspec.json.decode(run_collectorctl(root, "check", "--json").stdout)

    assert {line["name"]: (line["books"], line["ticks"], line["subscriptions"]) for line in found["lines"]} == {
        "kis": (2, 1, 3),
        "kiwoom": (2, 1, 2),
    }


@pytest.mark.parametrize(
    ("settings", "environment", "complaint"),
    [
        (
            "[kis]\nmax_subscriptons = 1\n",
            SECRETS,
            "kis.max_subscriptons: unknown setting: did you mean kis.max_subscriptions?",
        ),
        ("", SECRETS | {"KIWOOM_APP_KEY": ""}, "KIWOOM_APP_KEY"),
        ("", SECRETS | {"KIS_APP_KEY_2": "another-key"}, "KIS_APP_SECRET_2: is missing"),
        (
            "",
            SECRETS | {"KIS_APP_KEY_2": SECRETS["KIS_APP_KEY"], "KIS_APP_SECRET_2": "another"},
            "KIS_APP_KEY_2: is the same key as KIS_APP_KEY: one key holds one session",
        ),
    ],
)
def test_check_exits_78_and_names_the_key(settings: str, environment: dict[str, str], complaint: str) -> None:
    """Unknown setting, missing secret, one appkey in two places: one line each, no secret shown."""
    with temporary_home(settings) as root:
        (root / ".env").write_text("".join(f"{name}={value}\n" for name, value in environment.items()))

        ran = run_collectorctl(root, "check", check=False)

    assert ran.returncode == 78
    assert complaint in ran.stderr
    assert not [value for value in SECRETS.values() if value in ran.stdout + ran.stderr]


def test_status_says_until_when_the_market_is_closed() -> None:
    """A Saturday; in words and for machines."""
    with temporary_home(SETTINGS.replace("2026-11-20", "2026-11-21").replace('"000660"', '"005930_NX"')) as root:
        words = "closed until Monday 2026-11-23 08:00 KST (NXT pre-market)"

        assert read_status(root)["market"] == words
        assert f"market: {words}\n" in run_collectorctl(root, "status", check=False).stdout


def test_plan_says_what_market_status_costs() -> None:
    """Off, and on with too few slots."""
    with temporary_home(SETTINGS) as root:
        off = run_collectorctl(root, "plan").stdout
    with temporary_home(SETTINGS + "max_subscriptions = 4\nmarket_status = true\n") as root:
        on = run_collectorctl(root, "plan").stdout

    assert "kis.market_status = true takes 2 of 38 free slots, for 2 instruments" in off
    assert "takes 1 of 1 free slots, for 2 instruments; failover comes first" in on
    assert "kis      key 1: 2 books, 1 ticks, 1 status: 4 of 4 slots" in on


def test_check_warns_while_the_year_has_no_exam_day() -> None:
    """No library knows it, and on that day everything is an hour later."""
    said = {}
    for year in (2026, 2031):
        with temporary_home(f'clock.start = "{year}-03-03T10:00:00+09:00"\n') as root:
            said[year] = run_collectorctl(root, "check").stdout
            (root / "collector.toml").open("a").write(f'calendar.special."{year}-11-13" = "exam_day"\n')
            assert "exam day" not in run_collectorctl(root, "check").stdout

    assert "exam day" not in said[2026]
    assert "warning  no exam day is named for 2031" in said[2031]


def test_what_does_not_fit_is_said_by_plan_check_and_status() -> None:
    """Two slots at KIS, one at Kiwoom for two symbols: no error, but named with what it costs."""
    with temporary_home(
        SETTINGS.replace("[kis]", "[kiwoom]\nmax_subscriptions = 1\n[kis]\nmax_subscriptions = 2")
    ) as root:
        planned = msgspec.json.decode(run_collectorctl(root, "plan", "--json").stdout)
        shown = run_collectorctl(root, "plan").stdout
        checked = run_collectorctl(root, "check").stdout
        seen = msgspec.json.decode(run_collectorctl(root, "status", "--json", check=False).stdout)

    assert planned["shortfalls"] == seen["shortfalls"] == ["000660: no redundancy", "000660: ticks by recovery only"]
    assert planned["connections"] == [
        {"feed": "kis", "key": 1, "books": 2, "ticks": 0, "status": 0, "slots": 2, "limit": 2},
        {"feed": "kiwoom", "key": 1, "books": 1, "ticks": 1, "status": 0, "slots": 1, "limit": 1},
    ]
    assert [share["books"] for share in planned["instruments"]] == [["kis", "kiwoom"], ["kis"]]
    assert "kis      key 1: 2 books, 0 ticks: 2 of 2 slots" in shown
    for said in (shown, checked):
        assert "does not fit: 1 no redundancy (000660), 1 ticks by recovery only (000660)" in said


def test_stored_ticks_tell_what_to_expect() -> None:
    """The newest day counts, instruments of the universe only; the printed line is a setting that the plan follows."""
    with temporary_home(SETTINGS) as root:
        none = run_collectorctl(root, "plan", "--rates", check=False)
        for date, symbols in (("2026-11-19", ["005930"]), ("2026-11-20", ["000660"] * 3 + ["005930", "373220"])):
            for hour in ("09", "10"):
                place = root / "data" / "kr" / "tick" / f"date={date}" / f"hour={hour}"
                place.mkdir(parents=True)
                table = pa.table({"symbol": symbols, "venue": ["KRX"] * len(symbols)})
                pq.write_table(table, place / "part-0.parquet")
        said = run_collectorctl(root, "plan", "--rates").stdout
        (root / "collector.toml").write_text(f"[shards]\n{said}{SETTINGS}")
        planned = msgspec.json.decode(run_collectorctl(root, "plan", "--json").stdout)

    assert (none.returncode, none.stdout) == (1, "")
    assert said.splitlines()[1] == 'rate = { "005930" = 2, "000660" = 6 }'
    assert [share["ticks"] for share in planned["instruments"]] == [["kis"], ["kiwoom"]]


def test_secrets_that_others_may_read_are_refused() -> None:
    """Mode 0644 on .env: exit 78, and what to run."""
    with temporary_home("") as root:
        (root / ".env").chmod(0o644)

        ran = run_collectorctl(root, "check", check=False)

    assert ran.returncode == 78
    assert "chmod 600" in ran.stderr


def test_tail_shows_the_newest_rows_while_the_writer_writes() -> None:
    """As text and as JSON, each row whole."""
    with temporary_home(SETTINGS) as root, SimulatorProcess(root, root / "truth") as simulator:
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        wait_until(
            "rows are journalled", lambda: read_status(root)["processes"]["writer"]["counters"]["journal_rows"] > 50
        )

        books = [
            msgspec.json.decode(line)
            for line in run_collectorctl(root, "tail", "orderbook", "--json").stdout.splitlines()
        ]
        ticks = wait_until(
            "a tick is journalled", lambda: run_collectorctl(root, "tail", "tick", "-n", "3").stdout.splitlines()
        )

        writer = Path("/proc", str(read_status(root)["processes"]["writer"]["pid"]), "maps").read_text()
        assert "/pyarrow/" in writer and "/pandas/" not in writer  # the writer makes no data frame
        assert len(books) == 10
        assert {book["symbol"] for book in books} <= {"005930", "000660"}
        assert [book["row"] for book in books] == sorted(book["row"] for book in books)
        assert all(book["ask_price_1"] > book["bid_price_1"] > 0 for book in books)
        events = run_collectorctl(root, "tail", "event", "-n", "50").stdout.splitlines()
        assert 0 < len(ticks) <= 3
        assert any(" kis    acknowledged  005930 KRX orderbook" in line for line in events)
        assert any(" writer started       pid " in line for line in events)
        assert "begins" in run_collectorctl(root, "logs", "kis").stdout
        plain = [run_collectorctl(root, *words, check=False).stdout for words in (("status", "--counters"), ("check",))]
        assert "last_data 0." in plain[0] or "last_data 1." in plain[0]
        assert not re.search(r"_ns\b|\b\d{13,}\b", "".join([*plain, *ticks, *events])), plain
        assert "there is no such log" in run_collectorctl(root, "logs", "nobody", check=False).stderr
        assert stat.S_IMODE((root / "log").stat().st_mode) == 0o700


@pytest.mark.parametrize(("setting", "words"), [("", "명령으로 정지함"), ("en", "stopped on purpose")])
def test_status_is_in_the_language_of_the_home_or_of_the_locale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, words: str
) -> None:
    """Exit status, level and JSON are the same in each."""
    (tmp_path / "collector.toml").write_text(f"[ui]\nlanguage = '{setting}'\n")
    monkeypatch.setenv("LC_ALL", "ko_KR.UTF-8")

    shown = run_collectorctl(tmp_path, "status", check=False)
    assert (shown.returncode, shown.stdout.splitlines()[0]) == (3, f"STOPPED {words}")
    assert run_collectorctl(tmp_path, "status", "--json", check=False).stdout.isascii()
