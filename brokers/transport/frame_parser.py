"""WebSocket frame parser: bytes of a server into messages (sans-I/O, RFC 6455 section 5).

      fin op |mask len | length        | payload
    +--------+---------+---------------+---------...   all complete frames of one read are cut out in one pass;
    |  0x81  |  0..125 |               |               the rest waits in a buffer for the next read
    |  0x81  |   126   | 2 bytes       |
    |  0x81  |   127   | 8 bytes       |
    +--------+---------+---------------+

Guarantees:
    * Any chunking gives the same messages; control frames may come between fragments.
    * Messages that were complete before a close frame or a fault are delivered first; `error` then holds the reason.
    * Text is not validated as UTF-8: a bad byte in a quote must not cost the connection (docs/wire/kis.md 8.9).
    * The buffer holds at most one frame of `max_bytes` and one read.
"""

from __future__ import annotations

from brokers.errors import ConnectionClosed, ProtocolError, TransportError

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FIN = 0x80


class FrameParser:
    """Feed bytes, get messages."""

    def __init__(self, max_bytes: int) -> None:
        self.error: TransportError | None = None
        self.frame_count = 0
        """How many frames were parsed, of any kind: what bounds the work of a poll."""
        self._max_bytes = max_bytes
        self._remainder = bytearray()
        self._needed_bytes = 0
        self._fragments: bytearray | None = None
        self._fragments_opcode = TEXT

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Complete messages and control frames in `data`, as (opcode, payload), in order; nothing after `error`."""
        found: list[tuple[int, bytes]] = []
        if self.error:
            return found
        if self._remainder:
            self._remainder += data
            if len(self._remainder) < self._needed_bytes:
                return found  # no copy of the buffer for every piece of a large frame
            data = bytes(self._remainder)
        self._needed_bytes = 0
        at, size, max_bytes, count = 0, len(data), self._max_bytes, 0
        while size - at >= 2:
            first, length = data[at], data[at + 1]
            begin = at + 2
            if length == 126:
                if size - at < 4:
                    break
                length = int.from_bytes(data[begin : at + 4])
                begin = at + 4
            elif length == 127:
                if size - at < 10:
                    break
                length = int.from_bytes(data[begin : at + 10])
                begin = at + 10
            elif length > 127:
                self.error = ProtocolError("the server masks its frames, which only clients do")
                break
            if length > max_bytes:
                self.error = ProtocolError(f"a frame of {length} bytes: feed.frame_max_bytes allows {max_bytes}")
                break
            end = begin + length
            if end > size:
                self._needed_bytes = end - at
                break
            payload = data[begin:end]
            at = end
            count += 1
            if (first == _FIN | TEXT or first == _FIN | BINARY) and self._fragments is None:
                found.append((first & 0x0F, payload))
            elif not self._parse_uncommon(first, payload, found):
                break
        self.frame_count += count
        self._remainder = bytearray(data[at:]) if at < size and not self.error else bytearray()
        return found

    def _parse_uncommon(self, first: int, payload: bytes, found: list[tuple[int, bytes]]) -> bool:
        """Everything but a complete data frame; False when it ends the stream."""
        opcode = first & 0x0F
        if first & 0x70:
            self.error = ProtocolError(f"reserved bits are set in a frame beginning with {first:#04x}")
        elif opcode >= CLOSE:
            self._parse_control(first, payload, found)
        elif opcode == CONTINUATION:
            self._parse_continuation(first, payload, found)
        elif opcode > BINARY:
            self.error = ProtocolError(f"opcode {opcode} is unknown")
        elif self._fragments is not None:
            self.error = ProtocolError("a new message inside a fragmented one")
        else:
            self._fragments, self._fragments_opcode = bytearray(payload), opcode
        return self.error is None

    def _parse_control(self, first: int, payload: bytes, found: list[tuple[int, bytes]]) -> None:
        opcode = first & 0x0F
        if not first & _FIN or len(payload) > 125:
            self.error = ProtocolError("a control frame is fragmented or longer than 125 bytes")
        elif opcode == CLOSE:
            code = int.from_bytes(payload[:2]) if len(payload) >= 2 else 1005
            reason = payload[2:].decode("utf-8", "replace")
            self.error = ConnectionClosed(f"the server closed the connection: {code} {reason}".rstrip())
        elif opcode in (PING, PONG):
            found.append((opcode, payload))
        else:
            self.error = ProtocolError(f"opcode {opcode} is unknown")

    def _parse_continuation(self, first: int, payload: bytes, found: list[tuple[int, bytes]]) -> None:
        if self._fragments is None:
            self.error = ProtocolError("a continuation of nothing")
            return
        self._fragments += payload
        if len(self._fragments) > self._max_bytes:
            self.error = ProtocolError(
                f"fragments of {len(self._fragments)} bytes: feed.frame_max_bytes allows {self._max_bytes}"
            )
        elif first & _FIN:
            found.append((self._fragments_opcode, bytes(self._fragments)))
            self._fragments = None
