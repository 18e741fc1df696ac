"""What a worker of a cluster must have before it verifies a day; with a cluster: tests/interop/test_verify_cluster.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.certified_day import run
from support.stored_day import DAY

from collectorctl.recover.verify_cluster import Check, read_versions


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """What a client asks that has laid its marker."""
    (tmp_path / "collector.toml").write_text('[universe]\nkr = ["005930"]\n')
    (tmp_path / "data").mkdir()
    (tmp_path / "data/.verify-1").write_text("token")
    return Check(tmp_path, ".verify-1", "token", read_versions())


def test_a_worker_with_the_same_versions_and_files_is_not_refused(check: Check) -> None:
    assert check.find_refusal() == ""


@pytest.mark.parametrize("name", ["collectorctl", "python", "pyarrow", "code"])
def test_a_worker_of_another_version_is_refused_with_both_of_them(check: Check, name: str) -> None:
    check.versions = check.versions | {name: "0.0.9"}

    assert f"{name} {read_versions()[name]} instead of 0.0.9" in check.find_refusal()


def test_a_worker_that_sees_no_marker_or_another_one_is_refused(check: Check) -> None:
    (check.root / "data/.verify-1").write_text("of another home")
    other = check.find_refusal()
    (check.root / "data/.verify-1").unlink()
    none = check.find_refusal()

    assert (f"sees other files than these: {check.root}" in other, "at the same path" in other) == (True, True)
    assert none.startswith(f"does not see the files of {check.root}: ")


def test_without_the_extra_the_command_says_what_to_install(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)

    result = run(check.root, "verify", "--date", DAY, "--cluster", "tcp://127.0.0.1:1")
    both = run(check.root, "verify", "--date", DAY, "--cluster", "tcp://127.0.0.1:1", "--jobs", "2")

    assert (result.exit_code, "pip install -e '.[cluster]'" in result.stderr) == (2, True), result.output
    assert (both.exit_code, "name one of them" in both.stderr) == (2, True), both.output
