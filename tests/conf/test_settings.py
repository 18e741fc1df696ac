"""Settings and secrets: every wrong one is found at once, and the message is the whole story."""

from __future__ import annotations

import re
import string
import tomllib
from datetime import date
from importlib import resources
from pathlib import Path
from string import Formatter
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import conf
from conf import calendar, validation
from conf.instrument import Instrument
from conf.loader import (
    SECRETS_FILE,
    SETTINGS_FILE,
    Secrets,
    choose_home_language,
    count_keys,
    load_secrets,
    load_settings,
    read_settings,
    reject_duplicate_keys,
)
from conf.settings import Settings, SettingsError
from conf.text.fault_messages import FAULTS
from conf.text.language import LANGUAGES, Language
from conf.text.toml_syntax import find_mistakes

DEFAULTS = tomllib.loads(resources.files("conf").joinpath("default.toml").read_text(encoding="utf-8"))


def complaint(home: Path, text: str) -> tuple[str, str, str]:
    """Key, what and write of the one error that these settings give; the file and the form are checked here."""
    (home / SETTINGS_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as error:
        load_settings(home)
    where, _, rest = str(error.value).partition(": ")
    assert where == str(home / SETTINGS_FILE)
    assert "\n" not in rest
    assert re.fullmatch(r"[^:]+: .+: .+", rest), rest
    key, _, rest = rest.partition(": ")
    what, _, write = rest.partition(": ")
    return key, what, write


def test_a_home_without_a_file_has_the_defaults(tmp_path: Path) -> None:
    """default.toml alone is a whole, valid set of settings."""
    settings = load_settings(tmp_path)

    assert msgspec.to_builtins(settings) == DEFAULTS | {"in_force": None}


def test_every_setting_has_a_default_and_every_default_is_a_setting() -> None:
    """default.toml is the manual: nothing is missing from it and nothing in it is without effect."""

    def names(table: type) -> dict[str, Any]:
        hints = get_type_hints(table)
        return {field: hints[field] for field in table.__struct_fields__ if field != "in_force"}  # no setting

    assert list(DEFAULTS) == list(names(Settings))
    for name, table in names(Settings).items():
        if name not in ("sessions", "special_day"):
            assert list(DEFAULTS[name]) == list(names(table)), name
    assert set(DEFAULTS["sessions"]) == set(calendar.TABLES)
    assert {calendar.FIRST_DAY, calendar.EARLY_CLOSE} < set(DEFAULTS["special_day"])
    for tables in (DEFAULTS["sessions"], *DEFAULTS["special_day"].values()):
        assert set(tables) <= set(calendar.TABLES)
        assert {phase for phases in tables.values() for phase in phases} <= set(calendar.PHASES)


def test_every_number_has_a_rule() -> None:
    """A new number in the settings must say what its least value is."""
    numbers = {
        f"{table}.{name}"
        for table, rows in DEFAULTS.items()
        for name, value in rows.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }

    assert numbers - {"clock.speed"} == set(validation._MINIMUM)


def test_the_defaults_are_the_vendors_real_endpoints(tmp_path: Path) -> None:
    """docs/wire/kis.md 1 and docs/wire/kiwoom.md 1: production, not the paper-trading hosts."""
    settings = load_settings(tmp_path)

    assert settings.kis.ws_url == "ws://ops.koreainvestment.com:21000"
    assert settings.kis.rest_url == "https://openapi.koreainvestment.com:9443"
    assert settings.kiwoom.ws_url == "wss://api.kiwoom.com:10000/api/dostk/websocket"
    assert settings.kiwoom.rest_url == "https://api.kiwoom.com"
    assert (settings.kis.max_subscriptions, settings.kiwoom.max_subscriptions) == (41, 100)


def test_a_homes_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    """Table by table; lists are replaced, not joined."""
    (tmp_path / SETTINGS_FILE).write_text(
        '[universe]\nkr = ["0074K0", "005930_AL", "Q500001"]\n[writer]\ngrace_s = 9\n'
        '[sessions.NXT]\nregular = "09:00-15:00"\n[calendar]\nclosed = [2026-12-25, "2026-12-31"]\n'
    )

    settings = load_settings(tmp_path)

    assert settings.instruments() == [
        Instrument("0074K0", "KRX"),
        Instrument("005930", "UN"),
        Instrument("Q500001", "KRX"),
    ]
    assert settings.writer.grace_s == 9.0
    assert settings.writer.twin_window_s == DEFAULTS["writer"]["twin_window_s"]
    assert settings.sessions["NXT"] == DEFAULTS["sessions"]["NXT"] | {"regular": "09:00-15:00"}
    assert settings.sessions["KRX"] == DEFAULTS["sessions"]["KRX"]
    assert settings.calendar.closed == [date(2026, 12, 25), date(2026, 12, 31)]


def test_days_and_kinds_of_days_can_be_added(tmp_path: Path) -> None:
    """A date with hours of its own, a kind of day of one's own, and a library's special day made a normal one."""
    (tmp_path / SETTINGS_FILE).write_text(
        '[calendar]\nopen = [2026-05-01]\nus_closed = ["2027-01-20"]\n'
        '[calendar.special]\n2027-03-02 = "half_day"\n"2026-11-19" = ""\n'
        '[special_day.half_day.KRX]\nregular = "09:00-12:00"\nafter_market = ""\n'
        '[special_day.exam_day.NXT]\npre_market = "07:00-08:00"\n'
    )

    settings = load_settings(tmp_path)

    assert settings.calendar.special == DEFAULTS["calendar"]["special"] | {"2027-03-02": "half_day", "2026-11-19": ""}
    assert settings.special_day["half_day"] == {"KRX": {"regular": "09:00-12:00", "after_market": ""}}
    assert settings.special_day["exam_day"]["NXT"]["pre_market"] == "07:00-08:00"
    assert settings.special_day["first_day"] == DEFAULTS["special_day"]["first_day"]


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    """Frozen: what was checked is what is used."""
    with pytest.raises(AttributeError):
        load_settings(tmp_path).writer.grace_s = 0


@pytest.mark.parametrize(
    ("text", "key", "write"),
    [
        ("[writter]\n", "writter", "did you mean writer?"),
        ("[kis]\nws_ulr = 'x'\n", "kis.ws_ulr", "did you mean kis.ws_url?"),
        ("[kis]\napp_key = 'very-secret'\n", "kis.app_key", "write it into .env"),
        ("zzz = 1\n", "zzz", "known here: universe, shards"),
        ("[feed]\nbackoff_most_s = 9.0\n", "feed.backoff_most_s", "it is now feed.backoff_max_s"),
        ("[fill]\nenabled = false\n", "fill", "it is now gapfill"),
        ("[shards]\nA = []\n", "shards.A", "it is now shards.kis"),
        ("[sessions.KRW]\n", "sessions.KRW", "did you mean sessions.KRX?"),
        ("[special_day.exam_day.KRW]\n", "special_day.exam_day.KRW", "did you mean special_day.exam_day.KRX?"),
        ("[special_day.x.KRX]\nregluar = ''\n", "special_day.x.KRX.regluar", "did you mean special_day.x.KRX.regular?"),
        ("[sessions.KRX]\nregluar = '09:00-15:20'\n", "sessions.KRX.regluar", "did you mean sessions.KRX.regular?"),
        ("[sessions.KRX]\nlunch = '09:00-15:20'\n", "sessions.KRX.lunch", "known here: pre_market, opening_auction"),
    ],
)
def test_an_unknown_setting_is_refused_with_a_suggestion(tmp_path: Path, text: str, key: str, write: str) -> None:
    """A typing error must not silently leave the default in force."""
    found = complaint(tmp_path, text)

    assert found[0] == key
    assert found[1] in ("unknown setting", "secrets are no settings")
    assert write in found[2]
    assert "very-secret" not in str(found)


@pytest.mark.parametrize(
    ("text", "key", "what", "write"),
    [
        ("kis = 3\n", "kis", "is a table, not 3", "begin it with a line [kis]"),
        ("sessions = 'x'\n", "sessions", 'is a table, not "x"', "begin it with a line [sessions]"),
        ("[sessions]\nKRX = true\n", "sessions.KRX", "is a table, not true", "begin it with a line [sessions.KRX]"),
        ("[sessions.KRX]\nregular = 9\n", "sessions.KRX.regular", "9 is no span of time", 'e.g. "09:00-15:20"'),
        ("[sessions.KRX.regular]\n", "sessions.KRX.regular", "{} is no span of time", 'e.g. "09:00-15:20"'),
        (
            "[kis]\nmax_subscriptions = '41'\n",
            "kis.max_subscriptions",
            '"41" is no whole number',
            "e.g. 41",
        ),
        (
            "[kis]\nmax_subscriptions = 1.5\n",
            "kis.max_subscriptions",
            "1.5 is no whole number",
            "e.g. 41",
        ),
        (
            "[kis]\nmax_subscriptions = true\n",
            "kis.max_subscriptions",
            "true is no whole number",
            "e.g. 41",
        ),
        ("[kis]\nenabled = 1\n", "kis.enabled", "1 is not true or false", "write true or false, without quotes"),
        (
            "[kis.ws_url]\n",
            "kis.ws_url",
            "{} is no text",
            f'e.g. "{DEFAULTS["kis"]["ws_url"]}"',
        ),
        (
            "[universe]\nkr = '005930'\n",
            "universe.kr",
            '"005930" is no list',
            'write ["005930"]',
        ),
        (
            "[universe]\nkr = ['005930', 660]\n",
            "universe.kr[1]",
            "660 is no text in quotes",
            'write "000660"',
        ),
        ("[shards]\nkis = [1]\n", "shards.kis[0]", "1 is no text in quotes", 'write "000001"'),
        ("[kis]\ncustomer_type = 'C'\n", "kis.customer_type", '"C" cannot be chosen', 'one of "P", "B"'),
        ("[log]\nlevel = 'LOUD'\n", "log.level", '"LOUD" cannot be chosen', 'one of "TRACE", "DEBUG", "INFO"'),
        (
            "[writer]\nidentity_cum_volume = ['KRX', 'NYSE']\n",
            "writer.identity_cum_volume[1]",
            '"NYSE" cannot be chosen',
            'one of "KRX", "NXT", "UN"',
        ),
        ("calendar = 1\n", "calendar", "is a table, not 1", "begin it with a line [calendar]"),
        ("special_day = 1\n", "special_day", "is a table, not 1", "begin it with a line [special_day]"),
        (
            "[calendar]\nspecial = 1\n",
            "calendar.special",
            "is a table, not 1",
            "begin it with a line [calendar.special]",
        ),
        ("[calendar.special]\n2026-11-19 = 1\n", "calendar.special.2026-11-19", "1 is no kind of day", "exam_day"),
        ("[special_day]\nx = 1\n", "special_day.x", "is a table, not 1", "begin it with a line [special_day.x]"),
        ("[special_day.x.KRX]\nregular = 1\n", "special_day.x.KRX.regular", "1 is no span of time", "09:00-15:20"),
        (
            "[calendar]\nclosed = ['Christmas']\n",
            "calendar.closed[0]",
            '"Christmas" is no date',
            'a date, e.g. "2026-12-25"',
        ),
        ("[calendar]\nclosed = [2026-12-25T00:00:00]\n", "calendar.closed[0]", "is no date", "a date, e.g."),
    ],
)
def test_a_wrong_type_is_named_with_what_belongs_there(
    tmp_path: Path, text: str, key: str, what: str, write: str
) -> None:
    """The key down to the item of a list, what was found, and the default or the choices."""
    found = complaint(tmp_path, text)

    assert found[0] == key
    assert what in found[1]
    assert write in found[2]


@pytest.mark.parametrize(
    ("text", "key", "what", "write"),
    [
        ("[universe]\nkr = []\n", "universe.kr", "nothing to collect", 'kr = ["005930"]'),
        ("[universe]\nkr = ['005930', 'AAPL']\n", "universe.kr[1]", "'AAPL' is not an instrument", "write six"),
        ("[universe]\nkr = ['005930', '005930']\n", "universe.kr[1]", "005930 is named twice", "once"),
        ("[shards]\nkis = ['000001']\n", "shards.kis[0]", "000001 is not in universe.kr", "add it there"),
        (
            "[shards]\nkis = ['005930']\nkiwoom = ['000660', '005930']\n",
            "shards.kiwoom[1]",
            "already in shards.kis",
            "once",
        ),
        ("[shards]\nkis = ['005930', '005930']\n", "shards.kis[1]", "already in shards.kis", "once"),
        ("[paths]\nrun = ''\n", "paths.run", "is empty", 'e.g. "run"'),
        ("[clock]\nspeed = 2.0\n", "clock.speed", "only a warped clock has a speed", "set clock.start"),
        ("[clock]\nspeed = nan\n", "clock.speed", "only a warped clock has a speed", "set clock.start"),
        ("[clock]\nstart = 'noon'\n", "clock.start", "'noon' is no ISO time with offset", "+09:00"),
        ("[clock]\nstart = '2026-11-20T08:55:00'\n", "clock.start", "is no ISO time with offset", "+09:00"),
        ("[clock]\nstart = '2026-11-20T08:55:00+09:00'\nspeed = 0\n", "clock.speed", "0.0 is no speed", "above 0"),
        ("[clock]\nstart = '2026-11-20T08:55:00+09:00'\nspeed = inf\n", "clock.speed", "inf is no speed", "above 0"),
        ("[clock]\nstart = '2026-11-20T08:55:00+09:00'\nspeed = nan\n", "clock.speed", "nan is no speed", "above 0"),
        ("[sessions.KRX]\nregular = 'all day'\n", "sessions.KRX.regular", "'all day' is no span", "09:00-15:20"),
        ("[sessions.KRX]\nregular = '9:00-15:20'\n", "sessions.KRX.regular", "is no span", "09:00-15:20"),
        ("[sessions.KRX]\nafter_market = '16:00-24:30'\n", "sessions.KRX.after_market", "is no span", "09:00-15:20"),
        ("[sessions.KRX]\nafter_market = '20:00-16:00'\n", "sessions.KRX.after_market", "ends before", "earlier"),
        ("[sessions.NXT]\nregular = '09:00-09:00'\n", "sessions.NXT.regular", "ends before it begins", "earlier"),
        ("[sessions.US]\nnight_market = '20:30-04:00'\n", "sessions.US.night_market", "ends before", "earlier"),
        ("[sessions.US]\nnight_market = '21:00-04:30'\n", "sessions.US.pre_market", "begins at 04:00", "overlap"),
        ("[sessions.US]\nafter_market = '16:00-22:00'\n", "sessions.US.after_market", "the next day's", "21:00"),
        (
            "[sessions.KRX]\nregular = '09:00-15:21'\n",
            "sessions.KRX.closing_auction",
            "begins at 15:20, before regular ends at 15:21",
            "do not overlap",
        ),
        ("[special_day.x.KRX]\nregular = '9-10'\n", "special_day.x.KRX.regular", "'9-10' is no span", "09:00-15:20"),
        ("[calendar.special]\n2026-13-01 = ''\n", "calendar.special.2026-13-01", "is no date", "2026-11-19"),
        (
            "[calendar.special]\n2026-12-30 = 'half_day'\n",
            "calendar.special.2026-12-30",
            "'half_day' is no kind of day",
            "one of first_day, exam_day, early_close",
        ),
        ("[kis]\nws_url = 'https://x'\n", "kis.ws_url", "'https://x' is no such address", "wss://HOST:PORT"),
        ("[kis]\nws_url = 'ws://'\n", "kis.ws_url", "is no such address", "wss://HOST:PORT"),
        ("[kiwoom]\nws_url = 'wss://x:port/p'\n", "kiwoom.ws_url", "is no such address", "wss://HOST:PORT"),
        ("[kiwoom]\nrest_url = 'api.kiwoom.com'\n", "kiwoom.rest_url", "is no such address", "https://HOST:PORT"),
        ("[kis]\nrest_url = 'https://h:1/a b'\n", "kis.rest_url", "is no such address", "https://HOST:PORT"),
        ("[writer]\ngrace_s = 5.0\n", "writer.grace_s", "leaves no time for the last twins", "more than twin_window_s"),
        ("[metrics]\nport = 65536\n", "metrics.port", "65536 is no port", "write 65535 or less"),
        ("[relay]\nkis_port = 65536\n", "relay.kis_port", "65536 is no port", "write 65535 or less"),
        ("[relay]\nkis_port = 10000\n", "relay.kiwoom_port", "10000 is the port of relay.kis_port", "another one"),
        ("[zmq]\nresend_port = 21100\n", "zmq.resend_port", "21100 is the port of zmq.port", "another one"),
        ("[relay]\naddress = 'here'\n", "relay.address", "'here' is no IP address", "write 127.0.0.1"),
        (
            "[retention]\nuncertified_days = 39\n",
            "retention.uncertified_days",
            "39 days may take pages from a day that is still recovered",
            "write 0 or at least 40",
        ),
        (
            "[retention]\ntick_days = 7\n",
            "retention.tick_days",
            "7 days take market data that is still looked back at",
            "write 0 or at least 8",
        ),
        ("[feed]\nbackoff_max_s = 0.5\n", "feed.backoff_max_s", "0.5 is below backoff_first_s", "write 1.0 or more"),
    ],
)
def test_a_value_that_cannot_work_is_refused(tmp_path: Path, text: str, key: str, what: str, write: str) -> None:
    """What types cannot say: forms, ranges, and how settings agree with each other."""
    found = complaint(tmp_path, text)

    assert found[0] == key
    assert what in found[1]
    assert write in found[2]


@pytest.mark.parametrize("key", validation._MINIMUM)
def test_a_number_is_refused_below_its_least_and_beyond_all_sense(tmp_path: Path, key: str) -> None:
    """The least value itself is no fault of that number; one below it, a gigantic one, nan and inf are."""
    table, name = key.split(".")
    least = validation._MINIMUM[key]
    is_float = isinstance(DEFAULTS[table][name], float)

    below = least - (0.01 if is_float else 1)
    assert complaint(tmp_path, f"[{table}]\n{name} = {below}\n") == (
        key,
        f"{below} is too small",
        f"write {least} or more",
    )
    for large in ("1e30", "inf") if is_float else (10**30,):
        found = complaint(tmp_path, f"[{table}]\n{name} = {large}\n")
        assert found[0] == key
        assert "too large" in found[1]
    if is_float:
        assert complaint(tmp_path, f"[{table}]\n{name} = nan\n")[:2] == (key, "nan is no number")
    (tmp_path / SETTINGS_FILE).write_text(f"[{table}]\n{name} = {float(least) if is_float else least}\n")
    try:
        load_settings(tmp_path)
    except SettingsError as error:  # another setting may not agree with it
        assert "is too" not in str(error)


def test_a_phase_can_be_taken_out_and_another_put_in(tmp_path: Path) -> None:
    """The exam day, half days: sessions are data."""
    (tmp_path / SETTINGS_FILE).write_text("[sessions.KRX]\nclosing_price = ''\nintraday_auction = '15:30-16:00'\n")

    sessions = load_settings(tmp_path).sessions["KRX"]

    assert sessions["closing_price"] == ""
    assert sessions["intraday_auction"] == "15:30-16:00"


def faults_of(home: Path, text: str, language: Language = "en") -> list[str]:
    """All faults that these settings have, without the name of the file."""
    (home / SETTINGS_FILE).write_text(text, encoding="utf-8")
    return [fault.format(language).partition(": ")[2] for fault in read_settings(home)[1]]


def test_every_fault_is_found_in_one_run(tmp_path: Path) -> None:
    """Of the lines, the names, the types, the values; the order is that in which they are judged."""
    text = (
        "[universe]\nkr = [5930, “000660”, 'AAPL', \"035420\"]\n[kis]\nenabled = True\nws_ulr = 'x'\ncustomer_type = 'C'\n"
        "[feed]\nbackoff_first_s = 100.0\nbackoff_max_s = 'x'\n[log]\nlevel = 'LOUD'\nretention = 0\n"
        "[shards]\nkis = ['035420', '1']\n"
    )

    found = faults_of(tmp_path, text)

    assert [": ".join(line.split(": ")[:1]) for line in found] == [
        *("syntax", "syntax", "kis.ws_ulr", "universe.kr[0]", "kis.customer_type", "feed.backoff_max_s", "log.level"),
        *("log.retention", "universe.kr[2]", "shards.kis[1]"),
    ]
    with pytest.raises(SettingsError) as error:
        load_settings(tmp_path)
    assert len(error.value.faults) == len(found)


def test_what_can_be_used_is_used_beside_faults(tmp_path: Path) -> None:
    """A wrong setting has its default; one that needed only quotes is what was meant."""
    (tmp_path / SETTINGS_FILE).write_text(
        "[universe]\nkr = [373220]\n[writer]\ngrace_s = 9\nwatermark_ms = -1\n[ui]\nlanguage = ko\n"
    )

    settings, faults = read_settings(tmp_path)

    assert settings is not None
    assert [fault.key for fault in faults] == ["syntax", "universe.kr[0]", "writer.watermark_ms"]
    assert (settings.universe.kr, settings.writer.grace_s, settings.writer.watermark_ms) == (["373220"], 9.0, 20)
    assert choose_home_language(tmp_path) == "ko"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[universe]\nkr = [005930]\n", 'line 2, kr = [005930]: codes need quotes: write kr = ["005930"]'),
        ("[universe]\nkr = [\n005930,\n0074K0\n]\n", 'line 3, 4, 005930,: codes need quotes: write "005930",'),
        ("[universe]\nkr = [“005930”]\n", 'typographic or full-width characters: write kr = ["005930"]'),
        ("[universe]\nkr ＝ ['005930'，　'000660']\n", "full-width characters: write kr = ['005930', '000660']"),
        (
            '[universe]\nkr = ["005930"\n\n[kis]\n',
            'line 2, kr = ["005930": a closing bracket is missing: write kr = ["005930"]',
        ),
        ('[universe]\nkr = ["005930"  # last', 'a closing bracket is missing: write kr = ["005930"]  # last'),
        ('[universe]\nkr = ["005930" "000660"]\n', 'a comma is missing: write kr = ["005930", "000660"]'),
        ("[universe]\nkr = 005930, 000660\n", 'write kr = ["005930", "000660"]'),
        ("[kis\nenabled = true\n", "line 1, [kis: a closing bracket is missing: write [kis]"),
        ("[kis]\nenabled = False # off\n", "in lower case: write enabled = false # off"),
        ("[kis]\nenabled: true\n", "write enabled = true"),
        ("[kis]\nenabled =\n", "line 2, enabled =: has no value: write one"),
        ("[kis]\nenabled = false // off\n", "a comment begins with #: write enabled = false # off"),
        ("[log]\nlevel = INFO\n", 'text needs quotes: write level = "INFO"'),
        ('[paths]\ndata = "C:\\data"\n', "single quotes around it: write data = 'C:\\data'"),
        ('[paths]\ndata = "x\nrun = "y"\n', 'line 2, data = "x: a closing quote is missing: write data = "x"'),
        (
            "[kis]\nenabled = true\n[kis]\n",
            "line 3, [kis]: this table is further up already: put both under one header",
        ),
        ("[kis]\nenabled = true\nenabled = true\n", "line 3, enabled = true: is set further up already"),
        ("[[[[\n", "line 1, [[[[ (Invalid initial character for a key part): correct that line; `collectorctl init`"),
    ],
)
def test_a_line_that_toml_refuses_is_shown_with_what_to_write(tmp_path: Path, text: str, said: str) -> None:
    """The mistakes of somebody who has never written TOML, some of them with a Korean keyboard."""
    found = faults_of(tmp_path, text)

    assert found[0].startswith("syntax: line ")
    assert said in found[0]
    assert re.search("[가-힣]", faults_of(tmp_path, text, "ko")[0])


@pytest.mark.parametrize(
    "line",
    ["app_key = PSED321z47AA8hJLdQ", "x = 'PSED321z47AA8hJLdQ", "PSED321z47AA8hJLdQ", "app_key = “PSED321z47AA8hJLdQ”"],
)
def test_a_refused_line_shows_no_secret(tmp_path: Path, line: str) -> None:
    """Keys are written into the wrong file sooner or later."""
    (tmp_path / SETTINGS_FILE).write_text(f"[kis]\n{line}\n")

    with pytest.raises(SettingsError, match="syntax: line 2") as error:
        load_settings(tmp_path)

    assert "PSED" not in str(error.value)


@given(st.text(alphabet=string.ascii_lowercase + "0123456789 \"'[]{}=#,.\\\n“”＝-:", max_size=60))
def test_any_text_ends_with_tables_or_a_mistake(text: str) -> None:
    """However broken: the search for corrections ends, and a correct text has none."""
    tables, mistakes = find_mistakes(text, {"kr", "level"})

    try:
        assert (tables, mistakes) == (tomllib.loads(text), [])
    except tomllib.TOMLDecodeError:
        assert mistakes


def test_a_byte_order_mark_is_no_fault(tmp_path: Path, env_file: Path) -> None:
    """Editors on Windows write one, into settings and secrets."""
    (tmp_path / SETTINGS_FILE).write_bytes(b"\xef\xbb\xbf[writer]\r\ngrace_s = 9\r\n")
    env_file.write_bytes(b"\xef\xbb\xbfKIS_APP_KEY=a\r\nKIS_APP_SECRET=b\r\n")

    assert load_settings(tmp_path).writer.grace_s == 9
    assert load_secrets(tmp_path, "kis", {}).app_key == "a"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kr = ["005930"]\n', "kr: unknown setting: it belongs below a line [universe]"),
        ('[universe]\nkr = ["5930"]\n', """universe.kr[0]: '5930' is not an instrument: did you mean "005930"?"""),
        ('[universe]\nkr = ["005930.KS"]\n', 'did you mean "005930"?'),
        ('[universe]\nkr = ["0074k0"]\n', 'did you mean "0074K0"?'),
        (
            '[universe]\nkr = ["NAS.AAPL"]\n',
            "universe.kr[0]: NAS.AAPL is traded elsewhere: name it in the list of its own market, universe.us",
        ),
        ("[kis]\nKIS_APP_KEY = 'x'\n", "kis.KIS_APP_KEY: secrets are no settings: write it into .env"),
    ],
)
def test_a_newcomers_mistake_is_answered_with_what_was_meant(tmp_path: Path, text: str, said: str) -> None:
    """Where it is likely what was meant."""
    assert said in faults_of(tmp_path, text)[0]


def test_each_message_of_a_fault_is_complete_and_used() -> None:
    """In each language with the same values; none that nothing raises."""
    source = "".join(
        path.read_text(encoding="utf-8")
        for package in ("conf", "collectorctl")
        for path in Path(conf.__file__).parents[1].joinpath(package).rglob("*.py")
        if path.name != "fault_messages.py"
    )
    for code, texts in FAULTS.items():
        assert f'"{code}"' in source or code.startswith("not_"), code
        assert tuple(texts) == LANGUAGES, code
        english, korean = ({name for _, name, _, _ in Formatter().parse(text) if name} for text in texts.values())
        assert english == korean, code
        assert re.search("[가-힣]", texts["ko"]) and not re.search("[가-힣]", texts["en"]), code
        assert all(": " in text for text in texts.values()), code


def test_a_file_that_is_no_text_says_so(tmp_path: Path) -> None:
    """Bytes that are not UTF-8, or a directory of that name."""
    (tmp_path / SETTINGS_FILE).write_bytes(b'log = "\xff"')
    with pytest.raises(SettingsError, match=r"collector\.toml: file: is not UTF-8 text: make it a UTF-8 text file"):
        load_settings(tmp_path)

    (tmp_path / SETTINGS_FILE).unlink()
    (tmp_path / SETTINGS_FILE).mkdir()
    with pytest.raises(SettingsError, match=r"collector\.toml: file: .*directory.*: make it a UTF-8 text file"):
        load_settings(tmp_path)


def test_a_home_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    """A mistyped --home must not become a new installation with default settings."""
    with pytest.raises(SettingsError, match=r"nowhere: home: there is no such directory: .*collectorctl init"):
        load_settings(tmp_path / "nowhere")


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    file = tmp_path / SECRETS_FILE
    file.touch(mode=0o600)
    return file


def test_secrets_come_from_the_file_and_the_environment_goes_before(tmp_path: Path, env_file: Path) -> None:
    """The same names in both; an empty variable is none; nothing in a key is interpolated."""
    env_file.write_text("KIS_APP_KEY=stored-key\nKIS_APP_SECRET='se$cret${HOME}+/='\n")

    stored = load_secrets(tmp_path, "kis", {"KIS_APP_KEY": ""})
    given = load_secrets(tmp_path, "kis", {"KIS_APP_KEY": "given-key"})

    assert (stored.app_key, stored.app_secret) == ("stored-key", "se$cret${HOME}+/=")
    assert (given.app_key, given.app_secret) == ("given-key", "se$cret${HOME}+/=")


def test_the_environment_alone_is_enough(tmp_path: Path) -> None:
    """No file is needed."""
    secrets = load_secrets(tmp_path, "kiwoom", {"KIWOOM_APP_KEY": "k", "KIWOOM_APP_SECRET": "s"})

    assert (secrets.app_key, secrets.app_secret) == ("k", "s")


@pytest.mark.parametrize("missing", ["KIS_APP_KEY", "KIS_APP_SECRET"])
@pytest.mark.parametrize("line", ["", "{}=", "{}=   ", "{}"])
def test_a_missing_secret_is_named(tmp_path: Path, env_file: Path, missing: str, line: str) -> None:
    """Absent, empty, blank or without a value: the variable and the line to write are in the message."""
    both = {"KIS_APP_KEY": "hidden-key", "KIS_APP_SECRET": "hidden-secret"}
    env_file.write_text(
        "\n".join(line.format(name) if name == missing else f"{name}={value}" for name, value in both.items())
    )

    with pytest.raises(SettingsError) as error:
        load_secrets(tmp_path, "kis", {})

    assert str(error.value) == (
        f"{env_file}: {missing}: is missing: write a line {missing}=... there, or set it in the environment"
    )


@pytest.mark.parametrize("value", ["two words", "tab\tbed", "한글-key", "line\nbreak", "no\u00a0break", "bell\x07"])
def test_a_secret_with_blanks_is_refused_without_showing_it(tmp_path: Path, value: str) -> None:
    """The usual result of a bad copy; the message says where it came from, and not what it is."""
    (tmp_path / SECRETS_FILE).touch(mode=0o600)
    (tmp_path / SECRETS_FILE).write_text(f'KIS_APP_KEY=fine\nKIS_APP_SECRET="{value}"\n', encoding="utf-8")

    for environ, where in (({}, str(tmp_path / SECRETS_FILE)), ({"KIS_APP_SECRET": value}, "environment")):
        with pytest.raises(SettingsError) as error:
            load_secrets(tmp_path, "kis", environ)
        assert str(error.value) == (
            f"{where}: KIS_APP_SECRET: has blanks or letters that no key has: copy the key again"
        )


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_secrets_that_others_may_read_are_refused(tmp_path: Path, env_file: Path, mode: int) -> None:
    """The message is the command to run; the value is not in it."""
    env_file.write_text("KIS_APP_KEY=hidden-key\nKIS_APP_SECRET=hidden-secret\n")
    env_file.chmod(mode)

    with pytest.raises(SettingsError) as error:
        load_secrets(tmp_path, "kis", {})

    assert str(error.value) == f"{env_file}: mode: others than you may read it: run: chmod 600 {env_file}"


def test_a_secrets_file_that_cannot_be_read_is_a_sentence(tmp_path: Path, env_file: Path) -> None:
    """Not UTF-8 (the decoder's own message would quote it), or a directory."""
    env_file.write_bytes(b"KIS_APP_KEY=hidden\xff\n")
    with pytest.raises(SettingsError, match="file: is not UTF-8 text: write it again") as error:
        load_secrets(tmp_path, "kis", {})
    assert "hidden" not in str(error.value)
    assert error.value.__suppress_context__

    env_file.unlink()
    env_file.mkdir(mode=0o700)
    with pytest.raises(SettingsError, match="file: Is a directory: make it a file that you may read"):
        load_secrets(tmp_path, "kis", {})


def test_further_keys_are_numbered(tmp_path: Path, env_file: Path) -> None:
    """KIS_APP_KEY_2 with KIS_APP_SECRET_2, from file or environment; an empty one is none, a pair that is half there is named."""
    env_file.write_text("KIS_APP_KEY=a\nKIS_APP_SECRET=b\nKIS_APP_KEY_2=c\nKIS_APP_SECRET_2=d\nKIS_APP_KEY_3=\n")

    assert count_keys(tmp_path, "kis", {}) == 2
    assert count_keys(tmp_path, "kis", {"KIS_APP_SECRET_3": "e"}) == 3
    assert count_keys(tmp_path, "kiwoom", {}) == 1
    assert load_secrets(tmp_path, "kis", {}, number=2).app_key == "c"
    with pytest.raises(SettingsError, match="KIS_APP_KEY_3: is missing"):
        load_secrets(tmp_path, "kis", {"KIS_APP_SECRET_3": "e"}, number=3)


def test_one_key_in_two_places_is_refused_without_showing_it(tmp_path: Path, env_file: Path) -> None:
    """Within a broker or across brokers; the variables are named, the key is not."""
    env_file.write_text("KIS_APP_KEY=hidden-key\nKIS_APP_KEY_2=other\nKIWOOM_APP_KEY=third\n")

    reject_duplicate_keys(tmp_path, ["kis", "kiwoom"], {})
    for brokers, environ, name in (
        (["kis"], {"KIS_APP_KEY_2": "hidden-key"}, "KIS_APP_KEY_2"),
        (["kis", "kiwoom"], {"KIWOOM_APP_KEY": "hidden-key"}, "KIWOOM_APP_KEY"),
    ):
        with pytest.raises(SettingsError, match=f"{name}: is the same key as KIS_APP_KEY: one key holds") as error:
            reject_duplicate_keys(tmp_path, brokers, environ)
        assert "hidden" not in str(error.value)


@pytest.mark.parametrize(
    ("rate", "complaint"),
    [
        ('{ "000660" = 1 }', "shards.rate.000660: 000660 is not in universe.kr"),
        ('{ "005930" = 0 }', "shards.rate.005930: 0.0 is no rate"),
        ('{ "005930" = nan }', "shards.rate.005930: nan is no rate"),
        ('{ "005930" = "much" }', 'shards.rate.005930: "much" is no number: e.g. 1'),
        ("3", "shards.rate: is a table, not 3: begin it with a line [shards.rate]"),
    ],
)
def test_rates_are_numbers_of_symbols_that_are_collected(tmp_path: Path, rate: str, complaint: str) -> None:
    """A table whose keys the user chooses is checked all the same."""
    (tmp_path / SETTINGS_FILE).write_text(f'[universe]\nkr = ["005930"]\n[shards]\nrate = {rate}\n')

    with pytest.raises(SettingsError, match=re.escape(complaint)):
        load_settings(tmp_path)


def test_secrets_do_not_show_themselves() -> None:
    """Neither repr nor str nor a format gives a value away."""
    secrets = Secrets("the-key", "the-secret")

    assert {repr(secrets), str(secrets), f"{secrets}", f"{[secrets]}"[1:-1]} == {"Secrets(hidden)"}


def test_the_example_names_all_secrets(tmp_path: Path) -> None:
    """example.env, copied and filled in, is a valid .env."""
    example = resources.files("conf").joinpath("example.env").read_text(encoding="utf-8")
    (tmp_path / SECRETS_FILE).touch(mode=0o600)
    (tmp_path / SECRETS_FILE).write_text(re.sub(r"=$", "=value", example, flags=re.MULTILINE))

    for broker in ("kis", "kiwoom"):
        assert load_secrets(tmp_path, broker, {}).app_secret == "value"
