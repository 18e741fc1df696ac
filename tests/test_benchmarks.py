"""Every benchmark still measures: nobody runs most of them between two releases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALLEST = {
    "decode": "--messages 1000",
    "isolation": "--seconds 6",
    "journal": "--batches 10 --rows 10 --times 1",
    "journal_latency": "--rates 50 --seconds 1 --times 1",
    "live": "--readers 1 --seconds 0.5 --rounds 1",
    "merge": "--seconds 5",
    "pairing": "--seconds 5",
    "peers": "--runs 1 --messages 50",
    "place": "--rows 2000",
    "receive": "--runs 1 --messages 50",
    "recover": "--trades 200",
    "recovery_time": "--times 1",
    "ring": "--runs 1",
    "scale": "--symbols 5 --rates 1 --times 1",
    "soak": "--days 0.05 --samples 2",
    "start": "--times 1",
    "store": "--seconds 5 --times 1",
    "tree": "--rates 20 --seconds 1",
    "verify": "--rows 5000 --instruments 2",
}
SHARED = {"process_tree"}


def test_every_benchmark_is_run_here() -> None:
    """What another one imports aside."""
    found = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if not path.stem.startswith("__")}

    assert found == SMALLEST.keys() | SHARED


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_a_benchmark_prints_its_table(name: str) -> None:
    """With the least that it can measure."""
    ran = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *SMALLEST[name].split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )

    assert ran.returncode == 0, ran.stderr
    assert any(character.isdigit() for character in ran.stdout)
