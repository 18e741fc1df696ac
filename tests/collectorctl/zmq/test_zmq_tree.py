"""The ZeroMQ publisher as a program of a home under a real supervisord."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable

import pytest
from support.process_tree import BIN, QUICK, read_pids, running_tree
from support.ring_program import free_ports

import collectorctl
from collectorctl.reader.messages import Book, Message, Tick
from collectorctl.zmq.sequence import Missed, Restarted
from collectorctl.zmq.subscriber import Received, Snapshot, Subscriber

WAIT_S = 60.0


def read_beyond_restart(stream: Subscriber) -> list[Received]:
    """What comes until a book of the next publisher."""
    found: list[Received] = []
    deadline_s = time.monotonic() + WAIT_S
    restarted_at = 0
    while not any(isinstance(one, Book) for one in found[restarted_at:]) or not restarted_at:
        assert time.monotonic() < deadline_s, found[-20:]
        found += stream.read(0.1)
        restarted_at = next((at for at, one in enumerate(found, 1) if isinstance(one, Restarted)), 0)
    return found


def keys_of(messages: Iterable[Received | Message], begin_ns: int, end_ns: int) -> set[tuple[object, ...]]:
    """Books by their content, whichever feed was first, ticks by what they cover."""
    return {
        (one.asks, one.bids, one.cum_volume) if isinstance(one, Book) else (one.cum_volume, one.size)
        for one in messages
        if isinstance(one, Book | Tick) and begin_ns <= one.recv_ns <= end_ns
    }


@pytest.mark.long
def test_over_restarts_and_kills_of_the_publisher_subscriber_and_home_together_have_everything() -> None:
    port, resend_port = free_ports(2)
    settings = f'[universe]\nkr = ["005930"]\n[zmq]\nenabled = true\nport = {port}\nresend_port = {resend_port}\n'
    addresses = [f"tcp://127.0.0.1:{number}" for number in (port, resend_port)]
    with (
        running_tree(QUICK + settings) as root,
        collectorctl.subscribe(["005930"], ("orderbook", "tick"), *addresses) as stream,
    ):
        found: list[Received] = []
        before = read_pids(root)
        while not any(isinstance(message, Book) for message in found):
            found += stream.read(0.1)
        subprocess.run([BIN / "supervisorctl", "restart", "zmq"], cwd=root, capture_output=True, check=True)
        found += read_beyond_restart(stream)
        restarted = read_pids(root)
        os.kill(restarted["zmq"], signal.SIGKILL)
        found += read_beyond_restart(stream)
        after = read_pids(root)
        losses = [message for message in found if isinstance(message, Missed | Restarted)]
        received = [message.message if isinstance(message, Snapshot) else message for message in found]
        times = [message.recv_ns for message in received if isinstance(message, Book | Tick)]
        begin_ns, end_ns = min(times), max(times) - 10**9
        stored: list[Message] = [message for loss in losses for message in stream.read_stored(root, loss)]
        expected: list[Message] = []
        with collectorctl.open(root).live(["005930"], since=begin_ns) as live:
            while live.is_past:
                expected += live.read()

    assert len([loss for loss in losses if isinstance(loss, Restarted)]) == 2
    wanted = keys_of(expected, begin_ns, end_ns)
    had = keys_of(received, begin_ns, end_ns)
    assert wanted - had != set()  # what was received while there was no publisher
    assert wanted - had - keys_of(stored, begin_ns, end_ns) == set()
    assert len({pids.pop("zmq") for pids in (before, restarted, after)}) == 3
    assert before == restarted == after
