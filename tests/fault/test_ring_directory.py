"""The ring directory is deleted while everything runs: logind's RemoveIPC, tmpfiles, or a person."""

from __future__ import annotations

import os
import secrets
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from kill.harness import KillHarness, kill_harness
from kill.injections import PROCESSES
from support.process_tree import read_status, wait_until

from conf.home import RING_OWNER
from ringbuf.records import STREAMS


def delete_ring_directory(harness: KillHarness) -> None:
    """find "$(readlink run/ring)" -mindepth 1 -delete; rmdir it; as logind does it, whatever is made meanwhile."""
    directory = (harness.home.run / "ring").resolve()
    for path in directory.iterdir():
        path.unlink(missing_ok=True)
    with suppress(OSError):  # a process made its page again already
        directory.rmdir()


def read_pids(root: Path) -> dict[str, int]:
    """The processes' ids by name."""
    return {name: process["pid"] for name, process in read_status(root)["processes"].items() if name in PROCESSES}


def everything_is_back(harness: KillHarness) -> bool:
    """Every page and every ring of the feeds is at its path again, and all is healthy."""
    home = harness.home
    rings = [home.ring_path(feed, stream) for feed in ("kis", "kiwoom") for stream in (*STREAMS, "event")]
    pages = [home.vitals_path(name) for name in PROCESSES]
    return (
        all(path.exists() for path in (*rings, *pages, home.run / "ring" / RING_OWNER))
        and read_status(harness.root)["healthy"]
    )


@pytest.mark.timeout(240)
def test_when_the_ring_directory_is_deleted_nothing_is_lost_nobody_is_restarted_and_all_of_it_returns() -> None:
    """Alone, with the writer killed at the same instant, and with a collector killed: every row once, by the oracle.

    What a killed process held is in the pages of the one that lives; the watchdog gives no order, and its own page returns.
    """
    seed = int(os.environ.get("KILL_SEED") or secrets.randbelow(1_000_000))
    with kill_harness(seed) as harness:
        try:
            time.sleep(3.0)  # rows of both feeds, some of them published
            before = read_pids(harness.root)
            delete_ring_directory(harness)
            began_s = time.monotonic()
            wait_until("everything is back", lambda: everything_is_back(harness), 60)
            print(f"everything was back within {time.monotonic() - began_s:.1f} s")
            assert read_pids(harness.root) == before
            for victim in ("writer", "kis"):
                pid = read_pids(harness.root)[victim]
                delete_ring_directory(harness)
                os.kill(pid, signal.SIGKILL)
                wait_until("everything is back", lambda: everything_is_back(harness), 60)
            after = read_pids(harness.root)
            assert [name for name in before if before[name] != after[name]] == ["kis", "writer"]

            result = harness.stop_and_compare()

            print(harness.report(result))
            assert list((harness.home.run / "ring").glob("*.ring")) == []  # drained, so freed
            assert result.strict_problems() == []
            assert harness.find_leftovers() == []
            events = harness.read_dataset("event")
            losses = events[events["kind"] == "ring_loss"]
            # of the killed writer's own events nobody else had a page: that is said, without a number
            assert set(losses["line"]) <= {"writer"} and losses["value"].isna().all(), losses["message"].tolist()
            assert "no sign of life" not in (harness.home.log / "watchdog.log").read_text()
        except BaseException as error:
            error.add_note(f"KILL_SEED={seed} repeats this")
            raise
