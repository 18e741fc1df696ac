"""Hostile bytes into decoders, sessions and the frame scanner (short runs of fuzzer.py), and what a poll may cost."""

from __future__ import annotations

import json
import socket
import threading

import pytest
import websocket
from fuzz import fuzzer
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.transport.websocket import MAX_FRAMES, MAX_POLL_BYTES, READ_BYTES, WebSocketConnection


@pytest.mark.parametrize("target", ["kis", "kiwoom", "frames"])
def test_twenty_thousand_mutations_of_valid_frames_are_all_taken_in_order(target: str) -> None:
    """Nothing raised, nothing vanished, every number in its range; a million are run by `python tests/fuzz/fuzzer.py`."""
    told = fuzzer.fuzz(target, 20_000, seed=7)

    assert told["findings"] == []
    assert told["inputs"] == 20_000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | st.sampled_from(["values", "20"]), inner),
    max_leaves=12,
)  # fmt: skip
ENTRY = {"type": st.sampled_from(["0B", "0D", "0s"]) | JSON, "values": JSON, "item": JSON}
HEADER = {"tr_id": st.sampled_from(["PINGPONG", "H0STCNT0"]) | JSON, "tr_key": JSON}
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "trnm": st.sampled_from(["REAL", "PING", "REG", "LOGIN", "SYSTEM"]) | JSON,
        "data": st.lists(st.fixed_dictionaries({}, optional=ENTRY), max_size=3) | JSON,
        "header": st.fixed_dictionaries({}, optional=HEADER) | JSON,
        "body": JSON,
        "return_code": JSON,
        "return_msg": JSON,
        "code": JSON,
    },
)  # fmt: skip


@pytest.mark.parametrize("target", ["kis", "kiwoom"])
def test_any_json_of_the_dialogues_shape_is_data_or_control(target: str) -> None:
    """Any value in any place that the sessions and decoders look at."""
    check = fuzzer.build_decoder_check(target)

    @settings(max_examples=400, deadline=None, database=None)
    @given(MESSAGES)
    def taken(message: dict) -> None:
        assert check(json.dumps(message).encode()) == ""

    taken()


@pytest.mark.parametrize("target", ["kis", "kiwoom"])
def test_any_bytes_are_put_aside(target: str) -> None:
    """Nothing else can become of them."""
    check = fuzzer.build_decoder_check(target)

    @settings(max_examples=400, deadline=None, database=None)
    @given(st.sampled_from([b"", b"{", b"0|H0STCNT0|001|005930^"]), st.binary(max_size=300))
    def taken(start: bytes, rest: bytes) -> None:
        assert check(start + rest) == ""

    taken()


@pytest.fixture
def wired() -> tuple[WebSocketConnection, socket.socket]:
    """A wire and the server's end of it."""
    ours, theirs = socket.socketpair()
    link = websocket.WebSocket(enable_multithread=False, skip_utf8_validation=True)
    link.sock, link.connected = ours, True
    return WebSocketConnection(link, 1 << 22), theirs


def flood(theirs: socket.socket, start: bytes, piece: bytes, blocks: int) -> threading.Thread:
    """Send `start`, then so many reads' worth of `piece` in the background."""
    block = piece * (READ_BYTES // len(piece))

    def send() -> None:
        theirs.sendall(start)
        for _ in range(blocks):
            theirs.sendall(block)

    sender = threading.Thread(target=send)
    sender.start()
    return sender


@pytest.mark.parametrize(
    ("start", "piece"),
    [(b"", b"\x81\x00"), (b"", b"\x8a\x00"), (b"", b"\x89\x00"), (b"\x01\x00", b"\x00\x00")],
    ids=["messages", "pongs", "pings", "continuations"],
)
def test_a_poll_parses_few_frames_however_small_they_are(
    wired: tuple[WebSocketConnection, socket.socket], start: bytes, piece: bytes
) -> None:
    """Two million empty frames at once are seconds of work; they come in many polls, none missing, message or not."""
    wire, theirs = wired
    blocks, polls, messages = 16, [], 0
    sent = blocks * READ_BYTES // 2 + len(start) // 2

    sender = flood(theirs, start, piece, blocks)
    while sum(polls) < sent:
        before = wire._parser.frame_count
        messages += len(wire.poll(5))
        polls.append(wire._parser.frame_count - before)
    sender.join()

    assert sum(polls) == sent
    assert messages == (sent if piece == b"\x81\x00" else 0)
    assert max(polls) < MAX_FRAMES + READ_BYTES // 2


def test_a_poll_reads_few_bytes_however_large_the_frames_are(
    wired: tuple[WebSocketConnection, socket.socket],
) -> None:
    """Messages of 64 KiB: a poll returns before the server is done."""
    wire, theirs = wired
    size, blocks = 65_535, 64
    piece = b"\x81\x7e\xff\xff" + b"x" * size
    polls: list[int] = []

    sender = flood(theirs, b"", piece, blocks)
    while sum(polls) < blocks * (READ_BYTES // len(piece)):
        polls.append(len(wire.poll(5)))
    sender.join()

    assert max(polls) * size < MAX_POLL_BYTES + 2 * READ_BYTES


def test_after_a_send_that_nobody_took_no_more_is_sent(
    wired: tuple[WebSocketConnection, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand heartbeats to a server that reads nothing cost one wait, not a thousand."""
    monkeypatch.setattr("brokers.transport.websocket.SEND_S", 0.2)
    wire, theirs = wired
    waits = []
    wire._link.sock = wire._socket = _Counting(wire._socket, waits)

    for _ in range(1000):
        wire.send_text(b"x" * 100_000)

    assert sum(seconds == 0.2 for seconds in waits) < 20
    theirs.close()


class _Counting:
    """A socket that notes its timeouts."""

    def __init__(self, inner: socket.socket, waits: list[float]) -> None:
        self._inner = inner
        self._waits = waits

    def settimeout(self, seconds: float) -> None:
        self._waits.append(seconds)
        self._inner.settimeout(seconds)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)
