"""The relay as a program of a home under a real supervisord."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
from support.process_tree import BIN, QUICK, read_pids, read_status, running_tree, wait_until
from support.ring_program import free_ports
from support.vendor_clients import KisClient

WAIT_S = 60.0
IS_BOOK = b"0|H0STASP0"


def read_books(ready: dict) -> KisClient:
    """A new client as the vendor's sample is, which has had a book."""
    client = KisClient(ready)
    client.subscribe("H0STASP0", "005930")
    client.await_frame(lambda frame: frame.startswith(IS_BOOK), WAIT_S)
    return client


@pytest.mark.long
def test_a_relay_that_is_restarted_or_killed_serves_again_and_no_collector_notices() -> None:
    ports = free_ports(2)
    url = f"127.0.0.1:{ports[0]}"
    ready = {"kis": {"rest_url": f"http://{url}", "ws_url": f"ws://{url}"}}
    relay = f'[universe]\nkr = ["005930"]\n[relay]\nenabled = true\nkis_port = {ports[0]}\nkiwoom_port = {ports[1]}\n'
    with running_tree(QUICK + relay) as root:
        before = read_pids(root)
        client = read_books(ready)

        def is_back(old: int) -> bool:
            process = read_status(root)["processes"]["relay"]
            return process["pid"] not in (0, old) and process["healthy"]

        subprocess.run([BIN / "supervisorctl", "restart", "relay"], cwd=root, capture_output=True, check=True)
        wait_until("the restarted relay is healthy", lambda: is_back(before["relay"]), WAIT_S)
        client.await_end()
        client = read_books(ready)
        restarted = read_pids(root)
        os.kill(restarted["relay"], signal.SIGKILL)
        wait_until("another relay is healthy", lambda: is_back(restarted["relay"]), WAIT_S)
        client.await_end()
        read_books(ready).ws.close()
        after = read_pids(root)

    assert len({pids.pop("relay") for pids in (before, restarted, after)}) == 3
    assert before == restarted == after
