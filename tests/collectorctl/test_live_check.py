"""`check --live` against the simulator as a process: what is right, what is odd, what fails, and a home that runs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.process_tree import SECRETS, read_status, run_collectorctl, running_tree, temporary_home

from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.live_check.probe import SessionSample, judge_fsync, judge_records, judge_room, judge_skew
from conf.home import Home

SETTINGS = """
[universe]
kr = ["005930", "000660"]
[clock]
start = "{start}"
[feed]
acknowledge_within_s = 3.0
"""
MORNING = SETTINGS.format(start="2026-11-20T10:00:00+09:00")


def check_live(root: Path) -> tuple[int, list[dict[str, str]]]:
    """Exit status and probes; nothing secret is in output or report, and both say the same."""
    ran = run_collectorctl(root, "check", "--live", "--json", check=False)
    assert ran.stdout, ran.stderr
    found = json.loads(ran.stdout)
    report = Path(found["report"])
    assert report == root / "log" / "check-live.json"
    assert json.loads(report.read_text())["probes"] == found["probes"]
    reject_secrets(root, ran, report.read_text())
    return ran.returncode, found["probes"]


def reject_secrets(root: Path, ran: subprocess.CompletedProcess[str], report: str) -> None:
    """Neither what is configured nor a token that was issued."""
    tokens = [json.loads(path.read_text())["text"] for path in (root / "run" / "token").glob("*.json")]
    assert not [secret for secret in (*SECRETS.values(), *tokens) if secret in ran.stdout + ran.stderr + report]


def select(probes: list[dict[str, str]], subject: str, check: str) -> list[dict[str, str]]:
    """Probes of one kind."""
    return [one for one in probes if one["subject"].startswith(subject) and one["check"].startswith(check)]


def outcomes(probes: list[dict[str, str]], subject: str) -> Counter[str]:
    """How often each outcome on a feed."""
    return Counter(one["outcome"] for one in probes if one["subject"].startswith(subject))


@pytest.fixture(scope="module")
def market() -> Iterator[tuple[Path, SimulatorProcess]]:
    """A home that does not run, and its simulator."""
    with (
        temporary_home(MORNING) as root,
        SimulatorProcess(root, root / "truth", "--always-open", "--history", "500", "--books-per-s", "20") as simulator,
    ):
        set_addresses(root, simulator.addresses)
        yield root, simulator


def test_everything_is_ok_and_the_next_session_finds_its_slot_free(market: tuple[Path, SimulatorProcess]) -> None:
    """Twice in a row: the vendor counts no session any more, the token is the cached one."""
    root, _ = market
    for _ in range(2):
        status, probes = check_live(root)
        assert [one for one in probes if one["outcome"] != "ok"] == []
        assert status == 0
        tokens = {path.name: path.read_bytes() for path in (root / "run" / "token").glob("*.json")}
        assert set(tokens) == {"kis.json", "kiwoom.json"}
    _, probes = check_live(root)

    assert tokens == {path.name: path.read_bytes() for path in (root / "run" / "token").glob("*.json")}
    assert len(select(probes, "kis key 1", "registration")) == len(select(probes, "kiwoom key 1", "registration")) == 2
    assert [one["check"] for one in select(probes, "kiwoom", "REST")] == [
        *("REST ticks", "REST trades", "REST bars", "REST days")
    ]
    assert {one["check"] for one in probes if one["subject"] in ("disk", "machine")} == {
        *("fsync", "room", "rings", "RemoveIPC")
    }


@pytest.mark.long
def test_a_changed_width_and_a_skewed_clock_are_odd(market: tuple[Path, SimulatorProcess]) -> None:
    """A field more than known; a home whose clock is five minutes ahead of the vendor's stamps has wrong times."""
    root, simulator = market
    assert simulator.send_command("kis width 48")["ok"]
    status, probes = check_live(root)
    (fields,) = select(probes, "kis key 1", "fields")
    assert (status, fields["outcome"]) == (0, "odd")
    assert "48 fields, more than known" in fields["message"] and "collectorctl capture on" in fields["remedy"]
    assert set(outcomes(probes, "kiwoom")) == {"ok"}
    assert simulator.send_command("kis width 47")["ok"]

    with temporary_home(SETTINGS.format(start="2026-11-20T11:00:00+09:00")) as ahead:
        set_addresses(ahead, simulator.addresses)
        status, probes = check_live(ahead)
        (clock,) = select(probes, "kiwoom key 1", "clock")
        assert (status, clock["outcome"]) == (1, "failed")
        assert " s ahead of the stamps of records" in clock["message"] and "NTP" in clock["remedy"]


def test_a_wrong_secret_fails_its_feed_and_no_other(market: tuple[Path, SimulatorProcess]) -> None:
    """The vendor's own words, what to do, and exit 1."""
    root, _ = market
    check_live(root)
    env = (root / ".env").read_text()
    (root / ".env").write_text(env.replace(SECRETS["KIS_APP_SECRET"], "another-secret-of-kis"))
    try:
        status, probes = check_live(root)
    finally:
        (root / ".env").write_text(env)

    (credential,) = select(probes, "kis key 1", "credential")
    assert (status, credential["outcome"]) == (1, "failed")
    assert "refused" in credential["message"] and ".env" in credential["remedy"]
    assert select(probes, "kis key 1", "registration") == []
    assert set(outcomes(probes, "kiwoom")) == {"ok"}


def test_a_token_that_is_refused_is_reported_and_left_to_those_who_use_it(
    market: tuple[Path, SimulatorProcess],
) -> None:
    """It stays stored: a process of the home that has it replaces it by itself."""
    root, simulator = market
    check_live(root)
    before = (root / "run" / "token" / "kiwoom.json").read_bytes()
    assert simulator.send_command("kiwoom expire")["ok"]
    _, probes = check_live(root)
    after = (root / "run" / "token" / "kiwoom.json").read_bytes()
    (root / "run" / "token" / "kiwoom.json").unlink()

    (token,) = select(probes, "kiwoom key 1", "token")
    assert token["outcome"] == "odd" and "run/token" in token["remedy"]
    assert {one["outcome"] for one in select(probes, "kiwoom", "REST")} == {"failed"}
    assert before == after


def test_a_server_that_is_down_fails_what_needs_it(market: tuple[Path, SimulatorProcess]) -> None:
    """Everything else is looked at all the same."""
    with temporary_home(MORNING) as root:
        down = {name: {key: url.replace(url.split(":")[2].split("/")[0], "1") for key, url in urls.items()}
                for name, urls in market[1].addresses.items()}  # fmt: skip
        set_addresses(root, down)
        status, probes = check_live(root)

    assert status == 1
    for feed in ("kis", "kiwoom"):
        assert outcomes(probes, feed) == {"failed": 2}
        assert all("no answer" in one["message"] and one["remedy"] for one in probes if one["subject"].startswith(feed))
    assert set(outcomes(probes, "disk")) == {"ok"}


def test_a_closed_market_is_no_fault() -> None:
    """On a Saturday: key and registration are tried, fields and stamps are not judged."""
    saturday = SETTINGS.format(start="2026-11-21T12:00:00+09:00") + "[kiwoom]\nenabled = false\n"
    with temporary_home(saturday) as root, SimulatorProcess(root, root / "truth") as simulator:
        set_addresses(root, simulator.addresses)
        status, probes = check_live(root)

    assert (status, set(outcomes(probes, "kis"))) == (0, {"ok"})
    (fields,) = select(probes, "kis key 1", "fields")
    assert "not judged" in fields["message"] and "closed" in fields["message"]


@pytest.mark.timeout(300)
def test_a_running_home_is_not_disturbed_and_judged_by_its_vitals() -> None:
    """One connection before and after, the same token, no fault; another home with its keys opens no session either."""
    with running_tree(MORNING) as root:
        before = {path.name: path.read_bytes() for path in (root / "run" / "token").glob("*.json")}
        status, probes = check_live(root)
        processes = read_status(root)["processes"]

        assert status == 0
        for feed in ("kis", "kiwoom"):
            (session,) = select(probes, feed, "session")
            assert session["outcome"] == "ok"
            assert "no second session was opened" in session["message"]
            counters = processes[feed]["counters"]
            assert (counters["connects"], counters["disconnects"]) == (1, 0)
            assert {one["subject"] for one in probes if one["subject"].startswith(feed)} == {feed}
        after = {path.name: path.read_bytes() for path in (root / "run" / "token").glob("*.json")}
        assert before.items() <= after.items()

        with temporary_home((root / "collector.toml").read_text()) as other:
            shutil.copy(root / ".env", other / ".env")
            status, probes = check_live(other)
        for feed in ("kis", "kiwoom"):
            (key,) = select(probes, f"{feed} key 1", "key")
            assert key["outcome"] == "odd" and str(Home(root).root) in key["message"]
        counted = read_status(root)["processes"]
        assert [counted[feed]["counters"]["connects"] for feed in ("kis", "kiwoom")] == [1, 1]


def sample(**fields: Any) -> SessionSample:
    """A session that brought nothing but what is named."""
    return SessionSample(
        **{"answers": {}, "records": 0, "wide": Counter(), "rejects": [], "skews_s": [], "listened_s": 9.0} | fields
    )


def test_the_limits_between_ok_odd_and_failed() -> None:
    """Of what no simulator can be brought to do in time."""
    assert [judge_skew("x", [skew], "s").outcome for skew in (-61, -2, -0.4, 0, 2.9, 3.1, 60, 61)] == [
        *("failed", "odd", "ok", "ok", "ok", "odd", "odd", "failed")
    ]
    assert judge_skew("x", [40.0, 0.1], "s").outcome == "ok"  # the least delayed record counts
    assert judge_skew("x", [], "s").message.endswith("not judged")
    assert [judge_fsync([0.001, slow], "d").outcome for slow in (0.2, 0.3, 6.0)] == ["ok", "odd", "failed"]
    assert [judge_room(days * 10, 10.0, "b").outcome for days in (31, 29, 1)] == ["ok", "odd", "failed"]
    assert judge_records("x", sample(), "open", is_open=True).outcome == "odd"
    assert judge_records("x", sample(records=3, rejects=["bad"]), "open", is_open=True).outcome == "failed"
