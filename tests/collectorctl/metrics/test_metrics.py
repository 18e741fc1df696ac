"""The metrics endpoint: every counter once, its kind as the code uses it, real scrapes of real pages, and the files of deploy/."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.process_tree import QUICK, read_status, run_collectorctl, temporary_home, wait_until

from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.metrics.counters import EXPORTS, PREFIX, convert_counter
from collectorctl.supervision.status import configured_programs
from collectorctl.verdict.messages import ACTIONS
from conf.home import Home
from ringbuf.vitals import COUNTERS, ProcessState, Vitals, read_snapshot

pytest.importorskip("prometheus_client", reason="extra metrics is not installed")
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/collectorctl.json"
SETTINGS = (
    QUICK
    + """
[universe]
kr = ["005930"]
[gapfill]
enabled = false
[metrics]
enabled = {enabled}
port = {port}
"""
)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def scrape_openmetrics(port: int) -> set[str]:
    """The names of the samples in the format that Prometheus itself asks for."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        families = list(openmetrics.text_string_to_metric_families(answer.read().decode()))
    return {sample.name.removeprefix(PREFIX) for family in families for sample in family.samples}


def scrape(port: int) -> tuple[Samples, Counter[str]]:
    """Every sample by name and labels, and how often each family is declared."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    found = {(one.name.removeprefix(PREFIX), tuple(sorted(one.labels.items()))): one.value for one in samples}
    assert len(found) == len(samples)  # no sample twice
    return found, Counter(re.findall(r"^# TYPE (\w+)", text, re.M))


def of(process: str, **labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({"process": process, **labels}.items()))


@contextmanager
def endpoint(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "collectorctl.metrics"], cwd=ROOT, env=os.environ | {"COLLECTOR_HOME": str(root)}
    )
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(30) == 0


def state_of(home: Home) -> ProcessState | None:
    try:
        return read_snapshot(home.vitals_path("metrics")).state
    except FileNotFoundError:
        return None


def test_every_counter_of_the_pages_is_exposed_once() -> None:
    """A new counter needs a row, and no two are the same series."""
    series = Counter((row.metric, row.feed, process) for row in EXPORTS.values() for process in row.processes)

    assert sorted(EXPORTS) == sorted(COUNTERS)
    assert [one for one, count in series.items() if count > 1] == []
    for metric in {row.metric for row in EXPORTS.values()}:
        assert len({(row.is_level, row.help[:4]) for row in EXPORTS.values() if row.metric == metric}) == 1


def test_what_the_code_adds_to_is_a_counter_and_what_it_sets_is_a_gauge() -> None:
    """Prometheus computes rates of the one and not of the other."""
    used: dict[str, set[str]] = {}
    for package in ("brokers", "writer", "collectorctl"):
        for file in (ROOT / package).rglob("*.py"):
            for method, name in re.findall(r"(?:vitals|heartbeat)\.(add|set)\(\s*\"(\w+)\"", file.read_text(), re.I):
                used.setdefault(name, set()).add(method)

    assert len(used) > 40
    assert {name: {"set" if EXPORTS[name].is_level else "add"} for name in used} == used


def test_units_are_those_of_the_metrics_name() -> None:
    """Seconds, shares, keys; no age of what never came."""
    assert convert_counter("lag_p50_us", -2_500_000, 0) == pytest.approx(-2.5)
    assert convert_counter("twin_share_kis_e4", 9_950, 0) == pytest.approx(0.995)
    assert convert_counter("up_keys", 0b101, 0) == 2
    assert convert_counter("last_data_mono_ns", 3_000_000_000, 5_000_000_000) == pytest.approx(2.0)
    assert convert_counter("last_data_mono_ns", 0, 5_000_000_000) is None


def test_a_scrape_has_what_the_pages_have_and_changes_nothing() -> None:
    """Counters start again with their process, which Prometheus knows how to read; those of an ended process stay until then."""
    port = free_port()
    with temporary_home(SETTINGS.format(enabled="true", port=port)) as root:
        home = Home(root)
        home.create_directories()
        page = Vitals.create(home.vitals_path("kis"), "kis")
        page.add("frames", 7)
        page.set("connected", 1)
        page.record_latency(100_000, 3)
        with endpoint(root):
            wait_until("it answers", lambda: state_of(home) == ProcessState.RUNNING)
            first, families = scrape(port)
            before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if "metrics" not in path.name}
            page.set_state(ProcessState.STOPPED)
            page.close()
            ended, _ = scrape(port)
            after = {path: path.stat().st_mtime_ns for path in root.rglob("*") if "metrics" not in path.name}
            page = Vitals.create(home.vitals_path("kis"), "kis")
            page.add("frames", 2)
            again, _ = scrape(port)
            page.close()
            (root / "collector.toml").rename(root / "moved.toml")
            unreadable, _ = scrape(port)
            (root / "moved.toml").rename(root / "collector.toml")

            assert unreadable == {("readable", ()): 0}
            assert scrape(port)[0]["readable", ()] == first["readable", ()] == 1
            assert first["frames_total", of("kis")] == ended["frames_total", of("kis")] == 7
            assert again["frames_total", of("kis")] == 2
            assert (first["connected", of("kis")], again["connected", of("kis")]) == (1, 0)
            assert first["latency_seconds_bucket", of("kis", le="+Inf")] == 3
            buckets = {
                float(dict(labels)["le"]): value
                for (name, labels), value in first.items()
                if name == "latency_seconds_bucket" and dict(labels)["process"] == "kis"
            }
            assert {bound: value for bound, value in buckets.items() if bound < 1e-4} == dict.fromkeys(
                [bound for bound in buckets if bound < 1e-4], 0
            )
            assert {value for bound, value in buckets.items() if bound > 1.4e-4} == {3}
            start = ("process_start_time_seconds", of("kis"))
            assert again[start] > first[start]
            assert set(families.values()) == {1}
            assert scrape_openmetrics(port) == {name for name, _ in again}
            assert before == after


def test_without_the_setting_it_is_no_program_and_the_process_idles() -> None:
    """Nothing listens."""
    port = free_port()
    with temporary_home(SETTINGS.format(enabled="false", port=port)) as root:
        home = Home(root)
        assert "metrics" not in configured_programs(home.settings)
        with endpoint(root), socket.socket() as probe:
            wait_until("it idles", lambda: state_of(home) == ProcessState.DISABLED)
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_that_is_taken_is_its_state_until_it_is_free() -> None:
    """In words, and without an end of the process."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with temporary_home(SETTINGS.format(enabled="true", port=port)) as root, endpoint(root):
            home = Home(root)
            wait_until("it says so", lambda: state_of(home) == ProcessState.FAILING)
            assert f"127.0.0.1:{port}" in read_snapshot(home.vitals_path("metrics")).detail
            taken.close()
            wait_until("it answers", lambda: state_of(home) == ProcessState.RUNNING, 30)
            assert scrape(port)[0]["readable", ()] == 1


def test_the_tree_starts_it_where_it_is_on_and_all_names_in_deploy_are_exposed(tmp_path: Path) -> None:
    """A real tree; level and findings are those of `status`."""
    port = free_port()
    home = temporary_home(SETTINGS.format(enabled="true", port=port))
    with home as root, SimulatorProcess(root, tmp_path / "truth") as simulator:
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        wait_until("it is healthy", lambda: read_status(root)["processes"]["metrics"]["healthy"])
        wait_until("the day is safe", lambda: scrape(port)[0]["verdict_level", ()] == 0)
        samples, families = scrape(port)
        os.kill(read_status(root)["processes"]["kis"]["pid"], 9)
        killed = ("findings", (("code", "restart"), ("level", "repairing")))
        wait_until("the kill is a finding", lambda: scrape(port)[0].get(killed) == 1)

        assert samples["frames_total", of("kis")] > 0
        assert samples["journal_rows_total", of("writer")] > 0
        assert samples["ring_capacity_records", (("feed", "kis"), ("stream", "tick"))] > 0
        assert {process: 1.0 for process in ("kis", "kiwoom", "writer", "watchdog", "metrics")}.items() <= {
            dict(labels)["process"]: value for (name, labels), value in samples.items() if name == "process_healthy"
        }.items()
        exposed = {name.removesuffix("_total") for name in families} | {f"{PREFIX}{name}" for name, _ in samples}
        exposed |= {f"{name}_total" for name in families if f"{name}_total" in exposed} | {f"{PREFIX}findings"}
        assert named_metrics(ALERTS.read_text()) and named_metrics(DASHBOARD.read_text())
        assert named_metrics(ALERTS.read_text()) | named_metrics(DASHBOARD.read_text()) <= exposed


def named_metrics(text: str) -> set[str]:
    return set(re.findall(r"\bcollectorctl_\w+", text))


def alerts() -> list[dict[str, str]]:
    """The alerts, as the file has them: one `key: value` a line."""
    return [
        dict(re.findall(r"^ +(\w+): (.+)$", f"    alert: {part}", re.M))
        for part in ALERTS.read_text().split("- alert: ")[1:]
    ]


def documented() -> dict[str, tuple[str, str]]:
    """Code -> level and what to do, by docs/verdict.md."""
    rows = re.findall(r"^\| (`[a-z_`, ]+) \| (.+?) \| .+? \| (.+?) \|$", (ROOT / "docs/verdict.md").read_text(), re.M)
    return {code: (level, action) for codes, level, action in rows for code in re.findall(r"\w+", codes)}


def test_what_to_do_is_the_same_in_the_verdict_the_alerts_and_the_document() -> None:
    """Every code that counts has an alert; no code of the rules is missing anywhere."""
    sentences = {code: texts["en"].format(name="NAME") for code, texts in ACTIONS.items()}
    told = documented()
    found: dict[str, str] = {}
    for alert in alerts():
        for code in re.findall(r'code="(\w+)"', alert["expr"]):
            found[code] = alert["action"].strip('"')

    assert {code: action for code, (_, action) in told.items()} == sentences
    assert found == {code: sentences[code] for code, (level, _) in told.items() if level[0] in "12"}


def test_the_dashboard_is_what_grafana_imports() -> None:
    """Panels with queries on one named data source, none upon another."""
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    places = [panel["gridPos"] for panel in board["panels"]]

    assert board["uid"] == "collectorctl"
    assert all(panel["targets"] and panel["title"] for panel in board["panels"])
    assert len({panel["id"] for panel in board["panels"]}) == len(places)
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


@needs_promtool
def test_promtool_accepts_the_rules() -> None:
    """Prometheus's own reader."""
    ran = subprocess.run(["promtool", "check", "rules", ALERTS], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_promtool
def test_every_alert_fires_on_its_finding_and_on_no_other(tmp_path: Path) -> None:
    """Those of attention at the next evaluation, those that repair themselves when they last; a note never."""
    up = {"series": 'up{job="collectorctl"}', "values": "1x60"}
    tests: list[dict[str, Any]] = []
    for alert in alerts()[1:]:
        code = re.findall(r'code="(\w+)"', alert["expr"])[0]
        for level in re.findall(r'level=~?"([\w|]+)"', alert["expr"])[0].split("|"):
            finding = {"code": code, "level": level}
            series = f'collectorctl_findings{{code="{code}",level="{level}"}}'
            note = f'collectorctl_findings{{code="{code}",level="safe"}}'
            expected = {
                "exp_labels": finding | {"severity": alert["severity"]},
                "exp_annotations": {key: alert[key].strip('"') for key in ("summary", "action")},
            }
            tests.append(
                {
                    "interval": "1m",
                    "input_series": [up, {"series": series, "values": "1x60"}, {"series": note, "values": "1x60"}],
                    "alert_rule_test": [
                        {
                            "eval_time": "30m",
                            "alertname": each["alert"],
                            "exp_alerts": [expected] if each == alert else [],
                        }
                        for each in alerts()
                    ],
                }
            )
    (tmp_path / "rules.json").write_text(json.dumps({"rule_files": [str(ALERTS)], "tests": tests}))
    ran = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "rules.json"], capture_output=True, text=True, check=False
    )

    assert len(tests) > 15
    assert ran.returncode == 0, ran.stdout + ran.stderr
