"""The frame scanner: any chunking gives the same messages, and RFC 6455 is kept."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.errors import ConnectionClosed, ProtocolError
from brokers.transport.frame_parser import FrameParser

MOST = 1 << 20
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def encode(opcode: int, payload: bytes = b"", fin: bool = True, mask: bool = False, rsv: int = 0) -> bytes:
    """One frame as a server would send it."""
    first = (0x80 if fin else 0) | rsv | opcode
    masked = 0x80 if mask else 0
    if len(payload) < 126:
        head = bytes([first, masked | len(payload)])
    elif len(payload) < 1 << 16:
        head = struct.pack("!BBH", first, masked | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, masked | 127, len(payload))
    return head + (b"\0\0\0\0" if mask else b"") + payload


def scan(data: bytes, cuts: list[int], most: int = MOST) -> tuple[list[tuple[int, bytes]], FrameParser]:
    """Feed `data` cut at these places."""
    scanner = FrameParser(most)
    found = []
    edges = [0, *sorted(cuts), len(data)]
    for begin, end in pairwise(edges):
        found += scanner.feed(data[begin:end])
    return found, scanner


payloads = st.one_of(st.binary(max_size=40), st.sampled_from([b"x" * 125, b"x" * 126, b"y" * 65_535, b"z" * 65_536]))


@st.composite
def streams(draw) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Bytes of a server and what they say: whole messages, fragmented ones with pings inside, pings, a close at the end."""
    data, said = b"", []
    for _ in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["whole", "fragments", "ping", "pong"]))
        payload = draw(payloads)
        opcode = draw(st.sampled_from([TEXT, BINARY]))
        if kind == "whole":
            data += encode(opcode, payload)
            said.append((opcode, payload))
        elif kind in ("ping", "pong"):
            control = PING if kind == "ping" else PONG
            data += encode(control, payload[:125])
            said.append((control, payload[:125]))
        else:
            parts = [payload[:1], *(draw(st.binary(max_size=5)) for _ in range(draw(st.integers(0, 3)))), payload[1:]]
            for at, part in enumerate(parts):
                data += encode(opcode if at == 0 else 0, part, fin=at == len(parts) - 1)
                if at < len(parts) - 1 and draw(st.booleans()):
                    data += encode(PING, b"inside")
                    said.append((PING, b"inside"))
            said.append((opcode, b"".join(parts)))
    if draw(st.booleans()):
        data += encode(CLOSE, struct.pack("!H", 1000) + b"Bye") + encode(TEXT, b"after the close")
    return data, said


@settings(max_examples=300)
@given(streams(), st.data())
def test_any_chunking_gives_the_same_messages(stream, data):
    """However the bytes are cut, the messages are those sent, in order; what was whole before a close is handed out."""
    sent, said = stream
    cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=30))

    found, scanner = scan(sent, cuts)

    assert found == said
    assert (scanner.error is None) == (b"after the close" not in sent)


def test_one_byte_at_a_time():
    """The smallest chunks there are."""
    sent = encode(TEXT, b"a" * 200) + encode(PING, b"p") + encode(CLOSE)

    found, scanner = scan(sent, list(range(len(sent))))

    assert found == [(TEXT, b"a" * 200), (PING, b"p")]
    assert isinstance(scanner.error, ConnectionClosed)


def test_nothing_after_a_close_is_handed_out():
    """Whether it comes with the close or after it."""
    _, scanner = scan(encode(CLOSE), [])

    assert scanner.feed(encode(TEXT, b"late")) == []


def test_invalid_utf8_is_a_message_like_any_other():
    """Text is not validated (docs/wire/kis.md 8.9)."""
    found, scanner = scan(encode(TEXT, b"\xff\xfe\x80"), [])

    assert found == [(TEXT, b"\xff\xfe\x80")]
    assert scanner.error is None


def test_a_close_says_its_code_and_reason():
    """In words for the log."""
    _, scanner = scan(encode(CLOSE, struct.pack("!H", 1000) + "안녕".encode()), [])

    assert "1000 안녕" in str(scanner.error)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (encode(TEXT, b"x", mask=True), "masks"),
        (encode(TEXT, b"x", rsv=0x40), "reserved"),
        (encode(3, b"x"), "opcode 3"),
        (encode(11, b"x"), "opcode 11"),
        (encode(0, b"x"), "continuation of nothing"),
        (encode(TEXT, b"x", fin=False) + encode(TEXT, b"y"), "inside a fragmented"),
        (encode(PING, b"x", fin=False), "control frame"),
        (encode(PING, b"x" * 126), "control frame"),
        (struct.pack("!BBH", 0x81, 126, 2000), "2000 bytes"),
        (struct.pack("!BBQ", 0x82, 127, 1 << 62), f"{1 << 62} bytes"),
        (encode(TEXT, b"x" * 900, fin=False) + encode(0, b"x" * 900), "fragments of 1800"),
    ],
)
def test_what_is_not_rfc_6455_ends_the_stream_after_what_came_before(bad, words):
    """A refusal in words; the message before it is not lost."""
    found, scanner = scan(encode(TEXT, b"before") + bad + encode(TEXT, b"after"), [3], most=1000)

    assert found == [(TEXT, b"before")]
    assert isinstance(scanner.error, ProtocolError)
    assert words in str(scanner.error)
