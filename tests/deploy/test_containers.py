"""Dockerfile and compose file, as far as they can be checked without an engine: sources, commands, times and paths fit the code."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import yaml
from click.testing import CliRunner

from collectorctl.cli import main
from collectorctl.supervision import supervisor
from collectorctl.supervision.status import evaluate, never_started
from collectorctl.supervision.supervisor import Program
from conf.home import Home
from conf.loader import load_settings
from ringbuf.records import STREAMS
from ringbuf.vitals import ProcessState, Vitals, read_snapshot

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICE = COMPOSE["services"]["collector"]
HOME = "/home/collector/home"


def instructions(name: str) -> list[str]:
    """The arguments of each instruction of that name, in order."""
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.M)


def test_the_image_has_every_package_and_no_source_that_is_missing_or_ignored() -> None:
    """What `pip install` reads is there, and .dockerignore lets nothing else in: no key, no data of a home in the clone."""
    sources = [source for line in instructions("COPY") for source in line.split()[:-1]]
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    first, *rules = (ROOT / ".dockerignore").read_text().split()

    assert [source for source in sources if not (ROOT / source).exists()] == []
    links = [path.resolve() for name in packages for path in (ROOT / name).rglob("*") if path.is_symlink()]
    linked = {str(path.relative_to(ROOT)) for path in links}
    assert linked  # a link whose target is not copied would be left out without a word
    assert packages | linked | {"setup.cfg", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"} == set(
        sources
    )
    assert first == "**"
    assert sorted(sources) == sorted(rule[1:] for rule in rules if rule.startswith("!"))
    assert not [rule for rule in rules if rule.startswith("!") and fnmatch.fnmatch(".env", rule[1:])]


def test_the_image_is_installed_from_pinned_versions_with_extras_that_exist() -> None:
    """With the same constraints as everything else, and a Python that the package allows."""
    setup = (ROOT / "setup.cfg").read_text()
    (install,) = [line for line in instructions("RUN") if line.startswith("pip install")]
    extras = re.search(r'"\.\[([\w,]+)\]"', install)
    minor = int(re.fullmatch(r"python:3\.(\d+)-slim", instructions("FROM")[0])[1])

    assert "-c constraints.txt" in install
    assert all(re.search(rf"^{extra} =$", setup, re.M) for extra in extras[1].split(","))
    assert minor >= int(re.search(r"python_requires = >=3\.(\d+)", setup)[1])


def test_it_runs_supervisord_in_the_foreground_in_the_home_and_not_as_root() -> None:
    """Everything after the installation; the home is where the volume is."""
    program, *arguments = json.loads(instructions("CMD")[0])

    assert (BIN / program).exists() and arguments == ["-n", "-c", "supervisord.conf"]
    assert instructions("USER") == ["collector"] and "user" not in SERVICE
    assert DOCKERFILE.index("\nUSER ") > DOCKERFILE.index("pip install")
    assert instructions("WORKDIR")[-1] == HOME and f"COLLECTOR_HOME={HOME}" in instructions("ENV")[0]
    assert SERVICE["volumes"][0].endswith(f":{HOME}")
    assert (SERVICE["init"], SERVICE["restart"]) == (True, "unless-stopped")


def test_its_health_is_the_verdict() -> None:
    """Exit 0 for safe and repairing, 1 for all else, which is all that an engine knows; the real command in a real shell."""
    (health,) = instructions("HEALTHCHECK")
    command = health.partition(" CMD ")[2]
    assert command.startswith("collectorctl status --line || ")

    for status, expected in ((0, 0), (1, 0), (2, 1), (3, 1), (4, 1), (78, 1)):
        script = command.replace("collectorctl status --line", f"(exit {status})")
        assert subprocess.run(["sh", "-c", script], check=False).returncode == expected
    ran = CliRunner().invoke(main, ["--home", "/nowhere", "status", "--line"])
    assert ran.exit_code == 4


def test_a_stop_has_the_time_that_supervisord_takes() -> None:
    """Else the engine would kill the writer before it has drained."""
    seconds = int(re.fullmatch(r"(\d+)s", SERVICE["stop_grace_period"])[1])

    assert seconds > supervisor.STOP_TIMEOUT_S
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


def test_shared_memory_holds_the_rings_of_every_feed(tmp_path: Path) -> None:
    """At the default capacities, three feeds."""
    (tmp_path / "collector.toml").write_text('[universe]\nkr = ["005930"]\n')
    ring = load_settings(tmp_path).ring
    feed = sum(dtype.itemsize * getattr(ring, f"{stream}_capacity") for stream, dtype in list(STREAMS.items())[:2])
    size = int(re.fullmatch(r"(\d+)gb", SERVICE["shm_size"])[1]) << 30

    assert size > 3 * 1.1 * feed


def test_keys_are_files_of_the_home_and_locked_where_other_homes_see_it(tmp_path: Path) -> None:
    """No secret in the image or the environment; the setting that the compose file names leads to its volume."""
    text = (ROOT / "deploy/compose.yaml").read_text()
    assert "environment" not in SERVICE and "env_file" not in SERVICE
    assert "chmod 600" in text and not re.search(r"APP_KEY|APP_SECRET|NOTIFY_URL", text + DOCKERFILE)
    assert SERVICE["volumes"][1] == "keys:/keys" and COMPOSE["volumes"]["keys"]["name"] == "collectorctl-keys"
    assert 'key_locks = "/keys"' in text and " /keys" in instructions("RUN")[0]
    (tmp_path / "collector.toml").write_text('[universe]\nkr = ["005930"]\n[paths]\nkey_locks = "/keys"\n')
    assert Home(tmp_path).key_lock_directory == Path("/keys")


def test_a_collector_that_supervisord_does_not_run_is_not_healthy_however_well_it_is(tmp_path: Path) -> None:
    """Why there is no container per broker: status cannot judge it, and the watchdog starts its own."""
    page = Vitals.create(tmp_path / "kis.vitals", "kis")
    page.set_state(ProcessState.STREAMING)
    elsewhere = Program("kis", "STOPPED", 0, 0, "")

    assert evaluate(elsewhere, read_snapshot(page.path), time.monotonic_ns()) == (False, "supervisor: STOPPED")
    assert never_started(elsewhere)
