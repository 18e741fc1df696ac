"""`check`: all faults of a home in one run, in both languages."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from string import Formatter

import msgspec
import pytest
from support.process_tree import SECRETS, run_collectorctl

from collectorctl import allocation_report, check, ring_directory
from collectorctl.check import check_home, require_startable
from collectorctl.check_messages import MESSAGES
from collectorctl.commands import setup
from collectorctl.init import create_home
from collectorctl.symbols import universe
from conf.settings import SettingsError
from conf.text.language import LANGUAGES


@pytest.fixture
def home(place: Path) -> Path:
    """A home that can be started."""
    root = place / "home"
    create_home(root)
    (root / ".env").touch(mode=0o600)
    (root / ".env").write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))
    return root


def faults_of(home: Path, settings: str) -> list[tuple[str, str]]:
    """Key and code of each fault."""
    (home / "collector.toml").write_text(settings, encoding="utf-8")
    return [(fault.key, fault.code) for fault in check_home(home)[0]]


def test_faults_of_every_kind_are_told_in_one_run(home: Path) -> None:
    """Settings, secrets, rotation, a directory, supervisord.conf: none hides another."""
    (home / ".env").write_text("KIS_APP_KEY=a\n")
    (home / "file").touch()
    (home / "supervisord.conf").write_text("[supervisord]\n[program:x]\n")

    found = faults_of(
        home,
        "[universe]\nkr = [005930]\n[kis]\nwsurl = 'x'\n[log]\nrotation = 'often'\n"
        "[paths]\ndata = 'file/data'\n[feed]\nbackoff_max_s = 0\n",
    )

    assert found == [
        *(("syntax", "syntax_codes"), ("kis.wsurl", "unknown_close"), ("feed.backoff_max_s", "too_small")),
        *(("supervisord", "supervisord_conf"), ("paths.data", "directory"), ("log.rotation", "not_rotation")),
        *((name, "secret_missing") for name in ("KIS_APP_SECRET", "KIWOOM_APP_KEY", "KIWOOM_APP_SECRET")),
    ]
    with pytest.raises(SettingsError) as error:
        require_startable(home)
    assert len(error.value.faults) == len(found)


def test_a_home_in_order_has_no_fault(home: Path) -> None:
    """And nothing is written by the check."""
    before = sorted(home.rglob("*"))

    assert faults_of(home, "") == []
    assert {path.name for path in set(home.rglob("*")) - set(before)} <= {"calendar.json"}


@pytest.mark.parametrize(
    ("settings", "key", "code"),
    [
        ("[kis]\nenabled = false\n[kiwoom]\nenabled = false\n", "enabled", "no_broker"),
        ("[kis]\nmax_subscriptions = 1\n[kiwoom]\nmax_subscriptions = 1\n", "universe", "not_collected"),
        ("[log]\nrotation = '20 potatoes'\n", "log.rotation", "not_rotation"),
        ("[notify]\nenabled = true\n", "NOTIFY_URL", "no_service"),
    ],
)
def test_what_must_not_be_started_is_a_fault(home: Path, settings: str, key: str, code: str) -> None:
    """It would run, and collect less than its settings say, or nothing."""
    assert faults_of(home, settings) == [(key, code)]


def test_uncollected_instruments_are_named(home: Path) -> None:
    """How many of how many, the first ones by name; one that is short of something is no fault."""
    (home / "collector.toml").write_text(
        '[universe]\nkr = ["005930", "000660", "035420"]\n[kiwoom]\nenabled = false\n[kis]\nmax_subscriptions = 2\n'
    )

    (fault,), found = check_home(home, "ko")

    assert "no slot is left for 1 of 3 instruments, not collected: 035420" in fault.format()
    assert "3종목 중 1종목은 구독 자리가 없어 수집하지 못함(035420)" in fault.format("ko")
    assert found["lines"][0]["books"] == 2
    assert "수집 안 함 1종목(035420)" in found["fit"]


def test_settings_that_cannot_be_read_hide_no_fault_of_the_secrets(home: Path) -> None:
    """A line that nobody understands, and a file of secrets that others may read."""
    (home / ".env").chmod(0o644)

    assert faults_of(home, "[[[\n") == [("syntax", "syntax"), ("mode", "secret_mode")]


def test_check_prints_every_fault_in_the_language_of_the_home(home: Path) -> None:
    """One line each on stderr and exit 78; JSON has them all, in English, whatever the language."""
    (home / "collector.toml").write_text("[universe]\nkr = [005930]\n[log]\nlevle = 'INFO'\n[ui]\nlanguage = 'ko'\n")

    shown = run_collectorctl(home, "check", check=False)
    started = run_collectorctl(home, "start", check=False)
    found = run_collectorctl(home, "check", "--json", check=False)
    status = run_collectorctl(home, "status", "--json", check=False)

    assert (shown.returncode, started.returncode, found.returncode) == (78, 78, 78)
    for ran in (shown, started):
        lines = [line for line in ran.stderr.splitlines() if line.startswith(f"collectorctl: {home}/collector.toml: ")]
        assert 'kr = [005930]: 종목코드에 따옴표가 없음: kr = ["005930"] 로 쓸 것' in lines[0]
        assert "log.levle: 없는 설정: log.level" in lines[1]
    assert "문제 2건" in shown.stderr
    faults = msgspec.json.decode(found.stdout)["faults"]
    assert [fault["code"] for fault in faults] == ["syntax_codes", "unknown_close"]
    assert found.stdout.isascii()
    assert status.stderr.isascii() and "log.levle: unknown setting: did you mean log.level?" in status.stderr


def test_each_message_of_check_is_complete_and_used() -> None:
    """In each language with the same values; none that nothing prints."""
    literals = {
        node.value
        for module in (allocation_report, check, ring_directory, setup, universe)
        for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    } | {"not collected", "no redundancy", "ticks by recovery only"}  # consequences of an allocation

    assert set(MESSAGES) - literals == set()
    for key, texts in MESSAGES.items():
        assert tuple(texts) == LANGUAGES, key
        english, korean = ({name for _, name, _, _ in Formatter().parse(text) if name} for text in texts.values())
        assert english == korean, key
        assert re.search("[가-힣]", texts["ko"]), key
