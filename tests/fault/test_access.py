"""Who may look in: modes that are kept or refused, no open port, and no key, secret or token anywhere it does not belong."""

from __future__ import annotations

import os
import re
import resource
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.process_tree import read_status, run_collectorctl, temporary_home, wait_until
from support.tcp_relay import TcpRelay

from brokers.errors import SessionError
from brokers.kiwoom.session import KiwoomSession
from brokers.subscription import SubscriptionTable
from brokers.transport.token_cache import TokenFile
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from conf.home import Home
from conf.settings import SettingsError

SETTINGS = """
[ring]
free_when_drained = false
[universe]
kr = ["005930", "000660", "0074K0"]
[clock]
start = "2026-11-20T10:00:00+09:00"
[kis]
subscribe_spacing_ms = 20
[feed]
acknowledge_within_s = 0.5
backoff_first_s = 0.2
backoff_max_s = 0.5
[writer]
grace_s = 10.0
"""

SECRETS = {
    "KIS_APP_KEY": "PSkisAppKey0123456789abcdefghijklmnop",
    "KIS_APP_SECRET": "kisSecret/+0123456789=" + "aBcDeFgHiJ" * 15,
    "KIWOOM_APP_KEY": "kiwoomAppKey-0123456789_ABCDEFGHIJKLMNOPQRS",
    "KIWOOM_APP_SECRET": "kiwoomSecret-0123456789_ABCDEFGHIJKLMNOPQR",
}
DAY_NS = 86_400_000_000_000


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def root() -> Iterator[Path]:
    """A home in which nothing runs."""
    with temporary_home(SETTINGS) as path:
        yield path


def issue(calls: list[int]) -> tuple[str, int]:
    """A vendor that issues another token each time."""
    calls.append(1)
    return f"token-{len(calls)}", 10 * DAY_NS


def test_secrets_that_others_may_read_are_refused_by_name(root: Path) -> None:
    """Exit 78 from `check` and `start`: the file, what is wrong, the command that mends it; never a value."""
    for bits in (0o640, 0o604, 0o620, 0o602):
        (root / ".env").chmod(bits)
        for command in ("check", "start"):
            ran = run_collectorctl(root, command, check=False)

            assert (78, True) == (ran.returncode, f"run: chmod 600 {root / '.env'}" in ran.stderr)
            assert "key-of-kis" not in ran.stdout + ran.stderr
    (root / ".env").chmod(0o600)
    assert run_collectorctl(root, "check").returncode == 0


def test_a_link_to_secrets_is_judged_by_what_it_leads_to(root: Path) -> None:
    """A vault may mount them elsewhere; a link is no way around the mode."""
    (root / ".env").rename(root / "vault")
    (root / ".env").symlink_to("vault")
    assert run_collectorctl(root, "check").returncode == 0

    (root / "vault").chmod(0o644)

    assert run_collectorctl(root, "check", check=False).returncode == 78


@pytest.mark.parametrize("bits", [0o770, 0o707, 0o722])
def test_a_run_directory_that_others_may_write_in_is_refused(root: Path, bits: int) -> None:
    """They may have put a socket, a ring or a token there; the mode is left for the owner to see."""
    (root / "run").chmod(bits)

    ran = run_collectorctl(root, "start", check=False)

    assert (78, bits) == (ran.returncode, mode(root / "run"))
    assert "others than you may write in it" in ran.stderr and f"chmod 700 {root / 'run'}" in ran.stderr
    assert read_status(root)["supervisor_pid"] is None


def test_a_run_directory_that_others_may_only_read_is_closed(root: Path) -> None:
    """Nobody can have put anything there."""
    (root / "run").chmod(0o755)

    Home(root).create_directories()

    assert mode(root / "run") == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_run_directory_of_somebody_else_is_refused(root: Path) -> None:
    """Its owner could replace anything in it."""
    os.chown(root / "run", 12345, 12345)

    with pytest.raises(SettingsError, match=f"run: owner: belongs to user 12345, you are user {os.geteuid()}"):
        Home(root).create_directories()


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o606])
def test_a_token_that_others_may_read_is_not_used(tmp_path: Path, bits: int) -> None:
    """A new one is issued and kept as it should be; the next asks no more."""
    file, calls = TokenFile(tmp_path / "token" / "kiwoom.json", "owner"), []
    assert file.get(0, lambda: issue(calls)) == "token-1"
    file.path.chmod(bits)

    assert file.get(0, lambda: issue(calls)) == "token-2"
    assert file.get(0, lambda: issue(calls)) == "token-2"
    assert (0o600, 0o700) == (mode(file.path), mode(file.path.parent))


def test_a_token_that_somebody_put_there_is_not_used(tmp_path: Path) -> None:
    """Neither a link to another file nor, where that can be made, a file of another user; a leftover's mode is not inherited."""
    file, calls = TokenFile(tmp_path / "token" / "kiwoom.json", "owner"), []
    assert file.get(0, lambda: issue(calls)) == "token-1"
    planted = tmp_path / "planted.json"
    file.path.rename(planted)
    file.path.symlink_to(planted)
    leftover = file.path.with_name(f".kiwoom.json.{os.getpid()}.new")
    leftover.touch(mode=0o666)
    leftover.chmod(0o666)

    assert file.get(0, lambda: issue(calls)) == "token-2"

    assert not file.path.is_symlink() and mode(file.path) == 0o600
    assert b"token-2" not in planted.read_bytes()
    if os.geteuid() == 0:
        os.chown(file.path, 12345, 12345)
        assert file.get(0, lambda: issue(calls)) == "token-3"


@pytest.mark.parametrize("code", ["R10001", "R10002", "R99999"])
def test_a_token_in_a_system_message_is_hidden(code: str) -> None:
    """Whatever of it is told or logged."""
    token = "A1b2C3d4" * 10
    session = KiwoomSession(token, 100, 0, 10.0, SubscriptionTable([]))
    said = f'{{"trnm":"SYSTEM","code":"{code}","message":"token {token} is used elsewhere"}}'.encode()
    try:
        words = session.receive(said, 0).message
    except SessionError as error:
        words = str(error)

    assert "***" in words and token not in words


@pytest.fixture
def cores() -> Iterator[None]:
    """Core files as large as the machine allows, unless a process forbids them itself."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.mark.usefixtures("cores")
def test_a_whole_run_keeps_its_secrets(tmp_path: Path) -> None:
    """Through refused keys, echoed keys, spoiled frames, an abort and a stop: no secret in any file, output or command line.

    Looked for in every file below the home except .env and run/token: the keys and secrets, and each approval key and token
    that the vendors issued in this run, as heard on the wire. On the way: every mode, and no open port.
    """
    with temporary_home(SETTINGS) as root:
        (root / ".env").write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))
        with SimulatorProcess(root, tmp_path / "truth") as simulator:
            ports = {
                name: urls["ws_url"].rpartition(":")[2].partition("/")[0] for name, urls in simulator.addresses.items()
            }
            relays = {name: TcpRelay(urls["rest_url"]) for name, urls in simulator.addresses.items()}
            set_addresses(
                root,
                {
                    name: {key: relays[name].rewrite_url(url) for key, url in urls.items()}
                    for name, urls in simulator.addresses.items()
                },
            )
            outputs = [run_collectorctl(root, "start").stdout]
            pids = {name: process["pid"] for name, process in read_status(root)["processes"].items()}
            _modes_are_kept(root)
            _nobody_listens(root)
            for name in ("kis", "kiwoom"):
                simulator.send_command(f"{name} garble 1")
                simulator.send_command(f"{name} badutf8 1")
            wait_until("frames are put aside", lambda: len(list((root / "data" / "quarantine").rglob("*.jsonl"))) == 2)
        # Other vendors on the same ports know neither key nor token. KIS repeats the key that it refuses, first in an answer
        # that nobody expected, as no registration of ours has that name.
        relays["kis"].transform = lambda said: said.replace(b"OPSP0011", b"OPSP7777").replace(b"H0STASP0", b"H0XXXXX0")
        options = [word for name, port in ports.items() for word in (f"--{name}-port", port)]
        with SimulatorProcess(root, tmp_path / "second", *options) as simulator:
            wait_until("a strange answer is put aside", lambda: "OPSP7777" in _quarantined(root, "kis"))
            relays["kis"].transform = lambda said: said
            wait_until("all is well again", lambda: read_status(root)["healthy"], 60)
            for name, words in (("kis", "OPSP0011"), ("kiwoom", "LOGIN refused")):
                assert words in (root / "log" / f"{name}.log").read_text()
            os.kill(pids["kis"], signal.SIGABRT)
            wait_until("kis is back", lambda: read_status(root)["processes"]["kis"]["pid"] not in (0, pids["kis"]))
            outputs += [run_collectorctl(root, *words, check=False).stdout for words in _reports(root)]
            assert not [secret for secret in _issued(relays) for line in _command_lines(root) if secret in line]
            outputs.append(run_collectorctl(root, "stop").stdout)

        secrets = [value.encode() for value in SECRETS.values()] + _issued(relays)
        assert len(_issued(relays)) >= 4  # an approval key and a token of each vendor's two lives
        files = [Path(at) / name for at, _, names in os.walk(root, followlinks=True) for name in names]
        files = [f for f in files if f.is_file() and f != root / ".env" and f.parent != root / "run" / "token"]
        kinds = {".parquet", ".jsonl", ".log", ".out", ".ring", ".vitals"}
        assert kinds <= {file.suffix for file in files}
        for file in files:
            content = file.read_bytes()
            assert not [secret for secret in secrets if secret in content], file
            assert not file.name.startswith("core")
        for output in outputs:
            assert not [secret for secret in secrets if secret.decode() in output]
        for relay in relays.values():
            relay.close()


def _quarantined(root: Path, broker: str) -> str:
    return "".join(file.read_text() for file in (root / "data" / "quarantine").rglob(f"{broker}.jsonl"))


def _issued(relays: dict[str, TcpRelay]) -> list[bytes]:
    """Each approval key and token that came over the wire."""
    answers = b"".join(relay.received for relay in relays.values())
    return sorted(set(re.findall(rb'"(?:approval_key|token)"\s*:\s*"([^"]+)"', answers)))


def _reports(root: Path) -> list[tuple[str, ...]]:
    names = sorted(file.stem for file in (root / "log").glob("*.log"))
    return [
        ("check",),
        ("check", "--json"),
        ("status",),
        ("status", "--json", "--counters"),
        ("tail", "orderbook"),
        ("tail", "tick", "--json"),
        *(("logs", name, "-n", "100000") for name in names),
    ]


def _tree(root: Path) -> list[psutil.Process]:
    """supervisord and all below it."""
    supervisord = psutil.Process(read_status(root)["supervisor_pid"])
    return [supervisord, *supervisord.children(recursive=True)]


def _command_lines(root: Path) -> list[bytes]:
    """What `ps` shows to every user of the machine."""
    return ["\0".join(process.cmdline()).encode() for process in _tree(root)]


def _modes_are_kept(root: Path) -> None:
    run = root / "run"
    directories = [run, run / "token", (run / "ring").resolve(), root / "log"]
    assert {0o700} == {mode(path) for path in directories}
    files = [run / "supervisor.sock", run / "token" / "kiwoom.json", *run.glob("*.lock"), *(run / "ring").iterdir()]
    assert {0o600} == {mode(path) for path in files}
    assert len(files) >= 2 + 4 + 4 + 4  # locks, rings, pages


def _nobody_listens(root: Path) -> None:
    for process in _tree(root):
        assert [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN or not c.raddr] == []
        if process.pid != read_status(root)["supervisor_pid"]:
            assert process.rlimit(psutil.RLIMIT_CORE)[0] == 0
