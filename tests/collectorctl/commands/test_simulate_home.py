"""`simulate --home NEW`: a home that points at the simulator, its ports, and ports that are taken."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast
from urllib.request import Request, urlopen

import msgspec
import pytest
from support.process_tree import BIN, run_collectorctl

from brokers.simulator.addresses import PortError, choose_ports, find_free_ports
from collectorctl.commands.simulation import point_home_at_simulator
from collectorctl.simulated_home import create_simulated_home
from conf.loader import load_secrets, load_settings


def find_free_row() -> int:
    """The first of three free ports in a row."""
    while True:
        base = random.randrange(20_000, 30_000)
        with contextlib.suppress(PortError):
            find_free_ports(choose_ports(base, dict.fromkeys(("kis", "kiwoom", "us"), 0)))
            return base


@contextlib.contextmanager
def served(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, dict[str, str]]]]:
    """`collectorctl simulate` with these options, and the addresses that it prints."""
    command = [BIN / "collectorctl", "simulate", "--earlier-days", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, msgspec.json.decode(cast(IO[str], process.stdout).readline())
        finally:
            process.terminate()


class Served:
    """A home that a simulator has made, while it serves it."""

    def __init__(self, root: Path, base: int, process: subprocess.Popen[str], addresses: dict[str, dict[str, str]]):
        self.root, self.base, self.process, self.addresses = root, base, process, addresses
        self.files = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def home() -> Iterator[Served]:
    """A new one, at ports that were asked for."""
    with tempfile.TemporaryDirectory(prefix="cc-", dir="/tmp") as place:
        root, base = Path(place) / "new" / "home", find_free_row()
        with served("--home", str(root), "--port", str(base)) as (process, addresses):
            yield Served(root, base, process, addresses)


def test_a_new_home_points_at_the_simulator_that_made_it(home: Served) -> None:
    """Its settings are the addresses that are printed, at the ports that were asked for; the simulator takes its keys."""
    settings = load_settings(home.root)
    urls = {feed: getattr(settings, feed) for feed in ("kis", "kiwoom", "us")}
    assert list(home.addresses) == list(urls) and "master_url" in home.addresses["kis"]
    for feed, printed in home.addresses.items():
        assert {"ws_url", "rest_url"} <= set(printed)
        assert printed == {name: getattr(urls[feed], name) for name in printed}
    assert [urls[feed].rest_url for feed in urls] == [f"http://127.0.0.1:{home.base + at}" for at in range(3)]

    keys = load_secrets(home.root, "kis")
    body = {"grant_type": "client_credentials", "appkey": keys.app_key, "secretkey": keys.app_secret}
    request = Request(f"{urls['kis'].rest_url}/oauth2/Approval", msgspec.json.encode(body))
    assert msgspec.json.decode(urlopen(request, timeout=10).read())["approval_key"]


def test_a_new_home_can_be_started_as_it_is(home: Served) -> None:
    """All that `init` makes, secrets that nobody else may read, and `check` finds no fault."""
    assert {"collector.toml", "supervisord.conf", ".env", ".env.example"} <= {path.name for path in home.files}
    assert stat.S_IMODE((home.root / ".env").stat().st_mode) == 0o600
    assert run_collectorctl(home.root, "check").stdout.splitlines()[-1].startswith("ok")


def test_no_two_new_homes_have_the_same_keys(home: Served, tmp_path: Path) -> None:
    """Homes of one host that share a key refuse each other."""
    create_simulated_home(tmp_path / "other", home.addresses)

    assert load_settings(tmp_path / "other") == load_settings(home.root)
    assert load_secrets(tmp_path / "other", "kis").app_key != load_secrets(home.root, "kis").app_key


def test_secrets_that_are_there_already_stay(home: Served, tmp_path: Path) -> None:
    """A directory with an .env and no settings."""
    (tmp_path / ".env").write_text("KIS_APP_KEY=mine\n")

    assert (tmp_path / ".env", True) not in create_simulated_home(tmp_path, home.addresses)
    assert (tmp_path / ".env").read_text() == "KIS_APP_KEY=mine\n"


def test_a_taken_port_is_explained_and_no_home_is_made_for_it(home: Served, tmp_path: Path) -> None:
    """Which port, who has it, what to do; exit status 75, no traceback."""
    ran = run_collectorctl(tmp_path / "new", "simulate", "--port", str(home.base), check=False)

    assert (ran.returncode, ran.stdout) == (75, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith(
        f"collectorctl: 127.0.0.1:{home.base}: the port for kis is taken by process {home.process.pid} ("
    )
    assert "a simulator): end that, or name another with --kis-port" in line
    assert not (tmp_path / "new").exists()


def test_a_home_that_exists_is_served_at_its_own_ports_and_not_changed(home: Served, tmp_path: Path) -> None:
    """Asked for without a port, the simulator wants those of the home: while another has them it says so."""
    ran = run_collectorctl(home.root, "simulate", "--earlier-days", "0", check=False)
    assert (ran.returncode, ran.stdout) == (75, "")
    assert f"127.0.0.1:{home.base}: the port for kis is taken by process {home.process.pid} " in ran.stderr

    copy = tmp_path / "copy"
    shutil.copytree(home.root, copy, symlinks=True)
    with served("--home", str(copy), "--kis-port", str(find_free_row()), "--port", str(find_free_row())) as (
        process,
        _,
    ):
        process.terminate()
        assert f"names other ports than these (kis: {home.base}, " in process.communicate()[1]
    for root in (home.root, copy):
        assert {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()} == {
            path.relative_to(home.root): content for path, content in home.files.items()
        }


def test_without_a_named_home_none_is_made(tmp_path: Path) -> None:
    """A simulator in any directory leaves nothing there."""
    given = {"home": tmp_path, "port": 9000, "kis_port": 0, "kiwoom_port": 0, "us_port": 0}
    point_home_at_simulator(given, is_named=False)

    assert (given["kis_port"], given["us_port"]) == (9000, 9002)
    assert not list(tmp_path.iterdir())


def test_ports_are_counted_from_the_first_unless_named() -> None:
    """One that is named alone keeps its place in the row free."""
    assert choose_ports(9000, {"kis": 0, "kiwoom": 9500, "us": 0}) == {"kis": 9000, "kiwoom": 9500, "us": 9002}
    assert choose_ports(0, {"kis": 1, "kiwoom": 0, "us": 0}) == {"kis": 1, "kiwoom": 0, "us": 0}


def test_a_port_that_listens_is_no_free_one() -> None:
    """Also one that this process has, on every address."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortError, match=f"127.0.0.1:{port}: the port for us is taken by process "):
            find_free_ports({"kis": 0, "us": port})
