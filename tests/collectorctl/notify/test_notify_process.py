"""The process `notify` and the command: a real process, real files, real web servers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from support.process_tree import run_collectorctl, temporary_home, wait_until
from support.webhook import TOKEN, Webhook

from collectorctl.notify.channel import open_channels
from conf.home import Home
from conf.settings import SettingsError
from ringbuf.vitals import ProcessState, read_snapshot
from writer.feeds.day_events import Incident
from writer.feeds.day_report import DayReport

SETTINGS = '[universe]\nkr = ["005930"]\n[notify]\nenabled = true\nping_s = 1.0\n'


@contextmanager
def notified_home(*urls: str, ping: str = "") -> Iterator[Path]:
    """A home with these services, in which nothing else runs."""
    with temporary_home(SETTINGS) as root:
        names = ["NOTIFY_URL", *(f"NOTIFY_URL_{number}" for number in range(2, len(urls) + 1))]
        with (root / ".env").open("a") as file:
            file.writelines(f"{name}={url}\n" for name, url in zip(names, urls, strict=False))
            file.write(f"NOTIFY_PING_URL={ping}\n")
        Home(root).create_directories()
        publish(root)
        yield root


@contextmanager
def running(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process, which is killed at the end."""
    command = [sys.executable, "-m", "collectorctl.notify"]
    with (
        (root / "log" / "notify.out").open("ab") as out,
        subprocess.Popen(
            command, cwd=root, env=os.environ | {"COLLECTOR_HOME": "."}, stdout=out, stderr=out
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def publish(root: Path, *kinds: str) -> None:
    """The writer's report: incidents of these kinds, a second ago."""
    now_ns = time.time_ns()
    incidents = [
        Incident(kind, "kis", now_ns - 10**9, now_ns - 10**6, "of a test", "tick" * (kind == "ring_loss"), value=7)
        for kind in kinds
    ]
    (root / "run" / ".day").write_bytes(msgspec.json.encode(DayReport(now_ns, {"kr": incidents}, {}, [])))
    (root / "run" / ".day").rename(root / "run" / "day.json")


def state(root: Path) -> tuple[ProcessState, str]:
    vitals = read_snapshot(Home(root).vitals_path("notify"))
    return vitals.state, vitals.detail


def test_a_loss_is_sent_within_ten_seconds_once_whatever_is_killed_and_the_end_of_a_restart_is_sent() -> None:
    """A second process, after a SIGKILL of the first, sends only what is new."""
    with Webhook() as hook, notified_home(hook.url) as root:
        with running(root):
            wait_until("the process judges", lambda: hook.lines("not_running"))
            begin_s = time.monotonic()
            publish(root, "ring_loss", "restart")
            wait_until("the loss is sent", lambda: hook.lines("ATTENTION ring_loss kis tick: 7 "))
            assert time.monotonic() - begin_s < 10
            wait_until(
                "the restart is sent", lambda: publish(root, "ring_loss", "restart") or hook.lines("restart kis")
            )
            wait_until("that is on record", lambda: state(root)[1].endswith("0 lines wait, 0 pings"))
        with running(root):
            wait_until(
                "the end of the restart is sent",
                lambda: publish(root, "ring_loss") or hook.lines("recovered restart kis"),
            )
            publish(root, "ring_loss", "paused")
            wait_until("the next one is sent", lambda: publish(root, "ring_loss", "paused") or hook.lines("paused kis"))

    for word in ("ring_loss", "REPAIRING restart", "recovered restart", "not_running"):
        assert len(hook.lines(word)) == 1, word


def test_a_receiver_that_refuses_or_hangs_stops_no_other_and_gets_later_what_it_missed() -> None:
    """Neither the other service nor the ping; and no token is anywhere but in .env."""
    with (
        Webhook() as good,
        Webhook() as bad,
        socket.create_server(("127.0.0.1", 0)) as silent,
        notified_home(
            bad.url, f"json://127.0.0.1:{silent.getsockname()[1]}/{TOKEN}", good.url, ping=good.ping_url
        ) as root,
    ):
        bad.refuses = True
        publish(root, "ring_loss")
        with running(root) as process:
            wait_until("the good one has it", lambda: good.lines("ring_loss"))
            wait_until("the bad one was tried twice", lambda: bad.refused >= 2)
            wait_until("pings go on", lambda: good.pings >= 3)
            bad.refuses = False
            wait_until("the bad one has it", lambda: bad.lines("ring_loss"))
            assert len(good.lines("ring_loss")) == len(bad.lines("ring_loss")) == 1
            shown = run_collectorctl(root, "status", "--json", check=False).stdout
            process.terminate()
            assert process.wait(10) == 0
        log = (root / "log" / "notify.log").read_text()
        assert "NOTIFY_URL (JSON): not delivered: " in log
        assert "NOTIFY_URL_2 (JSON): not delivered: " in log, log
        assert "error=500" in log, log
        found = [path for path in root.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
        assert found == [root / ".env"] and TOKEN not in shown


def test_the_ping_stops_while_the_verdict_cannot_be_judged() -> None:
    """So that somebody is alarmed; the state has the reason."""
    with Webhook() as hook, notified_home(ping=hook.ping_url) as root, running(root):
        wait_until("it pings", lambda: hook.pings)
        (root / "run" / "day.json").unlink()
        (root / "run" / "day.json").mkdir()
        wait_until("it fails", lambda: state(root)[0] == ProcessState.FAILING)
        assert "cannot be judged" in state(root)[1]
        pings, heartbeat = hook.pings, read_snapshot(Home(root).vitals_path("notify")).heartbeat_mono_ns
        wait_until("it goes on", lambda: time.monotonic_ns() > heartbeat + 3 * 10**9)
        assert hook.pings <= pings + 1  # one that was under way
        assert read_snapshot(Home(root).vitals_path("notify")).heartbeat_mono_ns > heartbeat
        (root / "run" / "day.json").rmdir()
        publish(root)
        wait_until("it pings again", lambda: hook.pings > pings + 1)


def test_the_command_tries_each_service_and_names_what_failed() -> None:
    """Also where notifications are off; its exit status is 1 if one failed."""
    with Webhook() as good, Webhook() as bad, notified_home(good.url, bad.url, ping=good.ping_url) as root:
        assert run_collectorctl(root, "notify").stdout.split("\n")[0].split() == [
            "NOTIFY_URL",
            "(JSON)",
            "0",
            "lines",
            "wait",
        ]
        assert run_collectorctl(root, "notify", "--test").stdout.count("delivered") == 3
        assert good.lines("test message") and bad.lines("test message") and good.pings == 1
        bad.refuses = True
        tried = run_collectorctl(root, "notify", "--test", check=False)

    assert tried.returncode == 1 and TOKEN not in tried.stdout + tried.stderr
    assert "NOTIFY_URL_2 (JSON)" in tried.stdout and "failed: " in tried.stdout and "500" in tried.stdout


@pytest.mark.parametrize("url", [f"nothing://{TOKEN}", f"https://127.0.0.1/{TOKEN}", f"json://127.0.0.1/ {TOKEN}"])
def test_a_url_that_is_no_service_is_refused_by_the_name_of_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Without the URL."""
    (tmp_path / "collector.toml").write_text(SETTINGS)
    monkeypatch.setenv("NOTIFY_URL", url)

    with pytest.raises(SettingsError, match="NOTIFY_URL: ") as error:
        open_channels(Home(tmp_path))
    assert TOKEN not in str(error.value)


def test_without_any_service_check_fails_and_a_running_process_names_what_is_missing() -> None:
    """It idles, with heartbeats."""
    with notified_home() as root, running(root):
        checked = run_collectorctl(root, "check", check=False)
        assert checked.returncode == 78 and "NOTIFY_URL: is missing" in checked.stderr
        wait_until("it has a page", lambda: (root / "run/ring/notify.vitals").exists())
        wait_until("it names it", lambda: state(root)[0] == ProcessState.FAILING)
        assert "NOTIFY_URL: is missing" in state(root)[1]


def test_the_library_is_imported_only_where_a_service_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home without it can ping; one with a service names the extra."""
    (tmp_path / "collector.toml").write_text(SETTINGS)
    (tmp_path / ".env").touch(mode=0o600)
    monkeypatch.setitem(sys.modules, "apprise", None)
    monkeypatch.setenv("NOTIFY_PING_URL", "http://127.0.0.1:1/ping-of-a-test")

    services, ping = open_channels(Home(tmp_path))
    assert services == [] and ping is not None
    monkeypatch.setenv("NOTIFY_URL", "json://127.0.0.1:1/hook-of-a-test")
    with pytest.raises(SettingsError, match=r"\.\[notify\]"):
        open_channels(Home(tmp_path))
