"""The offer of a backfill: whose past nobody has fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from support.certified_day import certify_day
from support.process_tree import temporary_home
from support.stored_day import SYMBOLS, make_whole_day

from collectorctl.cli import main


def run(root: Path, *arguments: str) -> str:
    ran = CliRunner().invoke(main, ["--home", str(root), *arguments])
    assert ran.exit_code == 0, ran.output
    return ran.stdout


@pytest.fixture
def root() -> Iterator[Path]:
    """A home with a stored day, whose path is short enough for a supervisord."""
    with temporary_home("") as path:
        yield make_whole_day(path)


def test_a_symbol_without_a_past_is_offered_its_backfill_by_plan_and_reload(root: Path) -> None:
    settings = root / "collector.toml"
    settings.write_text(settings.read_text().replace('"005930"', ", ".join(f'"{one}"' for one in SYMBOLS), 1))
    shutil.rmtree(root / "data/kr/completeness", ignore_errors=True)
    before = msgspec.json.decode(run(root, "plan", "--json"))
    certify_day(root, SYMBOLS[:1])
    one = run(root, "plan")
    certify_day(root, SYMBOLS)
    whole = msgspec.json.decode(run(root, "plan", "--json"))
    run(root, "reload")
    settings.write_text(settings.read_text().replace('"373220"', '"373220", "035420_NX"', 1))
    reloaded = run(root, "reload")

    assert (before["without_past"], whole["without_past"]) == ([], [])
    assert f"collectorctl backfill {' '.join(SYMBOLS[1:])} --days 20" in one
    assert "past     collectorctl backfill 035420_NX --days 20" in reloaded.splitlines()
