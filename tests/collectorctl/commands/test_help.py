"""What a person sees first: `collectorctl` alone, its help, and what Tab offers."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.process_tree import BIN

from collectorctl.cli import COMMAND_MODULES, main
from collectorctl.init import create_home

README = (Path(__file__).parents[3] / "README.md").read_text()


def test_alone_it_shows_three_things_to_do_first(tmp_path: Path) -> None:
    """Without a home: see it, set it up, find the rest; each a command that is there."""
    lines = CliRunner().invoke(main, ["--home", str(tmp_path)]).stdout.splitlines()

    assert [line.split()[:2] for line in lines] == [["collectorctl", word] for word in ("demo", "init", "--help")]


def test_alone_in_a_home_it_shows_the_verdict_first(tmp_path: Path) -> None:
    """Then where the rest is."""
    create_home(tmp_path)
    verdict, *rest = CliRunner().invoke(main, ["--home", str(tmp_path)]).stdout.splitlines()

    assert verdict.startswith("STOPPED ")
    assert [line.split()[1] for line in rest] == ["status", "--help"]


def test_the_help_has_each_command_once_under_its_task() -> None:
    """In the order of use; with what Tab needs."""
    text = CliRunner().invoke(main, ["--help"]).stdout

    assert [line[:-1] for line in text.splitlines() if line.endswith(":") and line[0] != " "] == [
        "Options",
        *COMMAND_MODULES,
    ]
    listed = re.findall(r"^  ([a-z]\S*)  ", text.partition("Look:")[2], re.M)
    assert sorted(listed) == sorted(main.commands)
    assert listed[0] == "status" and listed.index("recover") < listed.index("verify") < listed.index("reprocess")
    assert "_COLLECTORCTL_COMPLETE=bash_source" in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_readme_has_the_line_that_makes_tab_work(shell: str) -> None:
    """As the command itself answers it; run in bash, the one shell that is everywhere."""
    assert README.count(f"_COLLECTORCTL_COMPLETE={shell}_source collectorctl") == 1
    words = {"COMP_WORDS": "collectorctl st", "COMP_CWORD": "1" if shell != "fish" else "st"}
    environment = {"_COLLECTORCTL_COMPLETE": f"{shell}_complete", "PATH": f"{BIN}:/usr/bin:/bin"} | words

    offered = subprocess.run(
        [BIN / "collectorctl"], env=environment, capture_output=True, text=True, check=False
    ).stdout

    assert {"start", "status", "stop"} <= set(re.split(r"[\s,]", offered))


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_bash_takes_the_line_of_the_readme() -> None:
    """Afterwards it knows how to complete the command."""
    (line,) = re.findall(r"^ *(eval .*bash_source collectorctl\)\") ", README, re.M)
    script = f"{line}; complete -p collectorctl"
    ran = subprocess.run(
        ["bash", "-c", script], env={"PATH": f"{BIN}:/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )

    assert "_collectorctl_completion" in ran.stdout, ran.stderr
