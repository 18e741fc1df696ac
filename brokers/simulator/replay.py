"""Replay of recorded frames in place of the simulated market.

    *.txt                   KIS, one frame a line; *_payload_only.txt: one record a line, the TR is in the file's name
                            overseas frames go to the US feed if there is one, else to KIS
    *.json  frame, frames   Kiwoom frames              entry      one element of `data`, put into a frame
            exchange        a dialogue: what was received with trnm REAL      body   REST: left out, and logged
    *.jsonl.gz              frames that a collector captured, of the feed that they name, with their times

Guarantees:
    * Frames leave as on the wire (compact JSON), each once, in the order of the files, when a client has subscribed the
      frame's instrument, or SETTLE_S after its last subscription, so that unknown TRs and instruments come too.
    * Captured frames leave byte for byte, but for control messages, which are left out, when the clients have subscribed all they
      want; with a speed they leave as far apart as they were received, divided by it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from brokers.simulator.captured import SUFFIX, CapturedFrame, read_captured
from brokers.simulator.gateway.client import ClientConnection

SETTLE_S = 1.5
POLL_S = 0.02
PAYLOAD_ONLY = "_payload_only.txt"


class ReplayFileError(Exception):
    """A file that holds no frames; the message names it."""


class RecordedFrame(NamedTuple):
    """One frame of a feed ("kis"), its symbol (empty without one), and when it was received (0: not known)."""

    feed: str
    symbol: str
    payload: bytes
    recv_ns: int = 0


class ReplaySession(Protocol):
    """The session of a vendor, as a replay needs it."""

    connection: ClientConnection
    last_subscription_ns: int

    def instrument_keys(self) -> set[str]:
        """The instrument keys subscribed, as the client wrote them."""


class Recording:
    """The frames of some files, in order, overseas ones for the feed of that name; captured ones are read as they are sent."""

    def __init__(self, files: Iterable[Path], warn: Callable[[str], None], overseas_feed: str = "kis") -> None:
        """`warn` gets what is skipped. ReplayFileError."""
        self._warn, self._overseas_feed = warn, overseas_feed
        self._parts: list[tuple[Path, list[RecordedFrame]]] = []  # a captured file with its first frame
        for file in files:
            self._parts.append((file, self._read_first(file) if file.name.endswith(SUFFIX) else self._read_all(file)))
        frames = [frame for _, part in self._parts for frame in part]
        self.feeds = {frame.feed for frame in frames}
        self.first_ns = min((frame.recv_ns for frame in frames if frame.recv_ns), default=0)

    def frames(self, feed: str) -> Iterator[RecordedFrame]:
        """The frames of one feed."""
        for file, part in self._parts:
            if not file.name.endswith(SUFFIX):
                yield from (frame for frame in part if frame.feed == feed)
            elif part[0].feed == feed:
                yield from self._read_captured(file, self._warn)

    def _read_captured(self, file: Path, warn: Callable[[str], None]) -> Iterator[RecordedFrame]:
        left_out = 0
        for captured in read_captured(file, warn):
            symbol = _find_symbol(captured)
            if symbol is None:
                left_out += 1
                continue
            feed = self._overseas_feed if captured.feed == "us" else captured.feed
            yield RecordedFrame(feed, symbol, captured.payload, captured.recv_ns)
        if left_out:
            warn(f"{file}: {left_out} control messages, left out")

    def _read_first(self, file: Path) -> list[RecordedFrame]:
        try:
            first = next(self._read_captured(file, lambda text: None), None)
        except OSError as error:
            raise ReplayFileError(f"{file}: cannot be read: {error}") from None
        if first is None:
            raise ReplayFileError(f"{file}: has no captured frame")
        return [first]

    def _read_all(self, file: Path) -> list[RecordedFrame]:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ReplayFileError(f"{file}: cannot be read as UTF-8 text: {error}") from None
        if file.suffix == ".txt":
            return _read_kis(file, text, self._warn, self._overseas_feed)
        if file.suffix == ".json":
            return _read_kiwoom(file, text, self._warn)
        raise ReplayFileError(f"{file}: is neither .txt (KIS), .json (Kiwoom) nor {SUFFIX} (captured)")


def _find_symbol(captured: CapturedFrame) -> str | None:
    """The symbol of a captured frame, empty without one; None for a control message: the server has its own."""
    text = captured.payload.decode(errors="replace")
    if captured.feed != "kiwoom":
        return None if text.startswith("{") else text.split("|")[-1].split("^")[0]
    try:
        frame = json.loads(text)
        return _first_item(frame) if frame["trnm"] == "REAL" else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def _read_kis(file: Path, text: str, warn: Callable[[str], None], overseas_feed: str) -> list[RecordedFrame]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if file.name.endswith(PAYLOAD_ONLY):
            line = f"0|{file.name.removesuffix(PAYLOAD_ONLY)}|001|{line}"
        if line.startswith("{"):
            if '"PINGPONG"' not in line:
                warn(f"{file}:{number}: a control message, left out")
                continue
            found.append(RecordedFrame("kis", "", line.encode()))
        elif line:
            found.append(
                RecordedFrame(
                    overseas_feed if "|HDFS" in line else "kis", line.split("|")[-1].split("^")[0], line.encode()
                )
            )
    return found


def _read_kiwoom(file: Path, text: str, warn: Callable[[str], None]) -> list[RecordedFrame]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ReplayFileError(f"{file}: is no JSON: {error}") from None
    frames: list[Any] = []
    if "frame" in content:
        frames = [content["frame"]]
    elif "frames" in content:
        frames = [one["frame"] for one in content["frames"]]
    elif "entry" in content:
        frames = [{"data": [content["entry"]], "trnm": "REAL"}]
    elif "exchange" in content:
        frames = [one["frame"] for one in content["exchange"] if one.get("dir") == "<" and "frame" in one]
    real = [frame for frame in frames if frame.get("trnm") == "REAL"]
    if len(real) < len(frames):
        warn(f"{file}: {len(frames) - len(real)} control messages, left out")
    if not frames:
        warn(f"{file}: no WebSocket frames, left out")
    return [RecordedFrame("kiwoom", _first_item(frame), msgspec.json.encode(frame)) for frame in real]


def _first_item(frame: dict[str, Any]) -> str:
    entries = frame.get("data") or [{}]
    return str(entries[0].get("item") or "")


class Pace:
    """When captured frames are due, of all feeds: as far after the first as they were received, divided by a speed (0: at once)."""

    def __init__(self, speed: float, first_ns: int) -> None:
        self._speed, self._first_ns = speed, first_ns
        self._begin_s: float | None = None

    def delay_s(self, recv_ns: int) -> float:
        """How long to wait for a frame received then."""
        if not self._speed or not recv_ns:
            return 0.0
        if self._begin_s is None:
            self._begin_s = time.monotonic()
        due_s = self._begin_s + (recv_ns - self._first_ns) / 1e9 / self._speed
        return max(0.0, due_s - time.monotonic())


class Replay:
    """Sends one feed's recorded frames to the sessions of its vendor."""

    def __init__(self, feed: str, recording: Recording, pace: Pace, sessions: set[Any]) -> None:
        self.feed = feed
        self._recording, self._pace = recording, pace
        self._sessions: set[ReplaySession] = sessions

    async def run(self) -> tuple[str, int]:
        """Send all frames, waiting as long as it takes: the feed, and how many were sent."""
        sent = 0
        for frame in self._recording.frames(self.feed):
            while not await self._send(frame):
                pass  # that client has disconnected: take the next one
            sent += 1
        return self.feed, sent

    async def _send(self, frame: RecordedFrame) -> bool:
        connection = await self._find_receiver(frame.symbol, await_all=frame.recv_ns > 0)
        if delay_s := self._pace.delay_s(frame.recv_ns):
            await asyncio.sleep(delay_s)
        try:
            await connection.send(frame.payload)
        except ConnectionError:
            await asyncio.sleep(POLL_S)
            return False
        return True

    async def _find_receiver(self, symbol: str, await_all: bool) -> ClientConnection:
        """The client of a symbol; `await_all`: not before all have subscribed what they want."""
        while True:
            ready = [session for session in self._sessions if session.last_subscription_ns]
            last_ns = max((session.last_subscription_ns for session in ready), default=0)
            is_settled = bool(last_ns) and time.monotonic_ns() - last_ns > SETTLE_S * 1e9
            for session in ready if is_settled or not await_all else ():
                if symbol in session.instrument_keys():
                    return session.connection
            if is_settled:
                return min(ready, key=lambda session: session.connection.number).connection
            await asyncio.sleep(POLL_S)
