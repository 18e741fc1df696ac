"""Replay of recorded frames in place of the simulated market.

    *.txt                   KIS, one frame a line; *_payload_only.txt: one record a line, the TR is in the file's name
                            overseas frames go to the US feed if there is one, else to KIS
    *.json  frame, frames   Kiwoom frames              entry      one element of `data`, put into a frame
            exchange        a dialogue: what was received with trnm REAL      body   REST: left out, and logged

Guarantees:
    * Frames leave as on the wire (compact JSON), each once, in the order of the files, when a client has subscribed the
      frame's instrument, or SETTLE_S after its last subscription, so that unknown TRs and instruments come too.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from brokers.simulator.gateway.client import ClientConnection

SETTLE_S = 1.5
POLL_S = 0.02
PAYLOAD_ONLY = "_payload_only.txt"


class ReplayFileError(Exception):
    """A file that holds no frames; the message names it."""


class RecordedFrame(NamedTuple):
    """One frame of a feed ("kis"), and its symbol; empty without one."""

    feed: str
    symbol: str
    payload: bytes


class ReplaySession(Protocol):
    """The session of a vendor, as a replay needs it."""

    connection: ClientConnection
    last_subscription_ns: int

    def instrument_keys(self) -> set[str]:
        """The instrument keys subscribed, as the client wrote them."""


def read_frames(files: Iterable[Path], warn: Callable[[str], None], overseas_feed: str = "kis") -> list[RecordedFrame]:
    """The frames of `files`, in order, overseas ones for that feed; `warn` gets what is skipped. ReplayFileError."""
    found: list[RecordedFrame] = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ReplayFileError(f"{file}: cannot be read as UTF-8 text: {error}") from None
        if file.suffix == ".txt":
            found += _read_kis(file, text, warn, overseas_feed)
        elif file.suffix == ".json":
            found += _read_kiwoom(file, text, warn)
        else:
            raise ReplayFileError(f"{file}: is neither .txt (KIS) nor .json (Kiwoom)")
    return found


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


class Replay:
    """Sends one feed's recorded frames to the sessions of its vendor."""

    def __init__(self, feed: str, recorded: list[RecordedFrame], sessions: set[Any]) -> None:
        self.feed = feed
        self.recorded = [frame for frame in recorded if frame.feed == feed]
        self._sessions: set[ReplaySession] = sessions

    async def run(self) -> tuple[str, int]:
        """Send all frames, waiting as long as it takes: the feed, and how many were sent."""
        for frame in self.recorded:
            while not await self._send(frame):
                pass  # that client has disconnected: take the next one
        return self.feed, len(self.recorded)

    async def _send(self, frame: RecordedFrame) -> bool:
        connection = await self._find_receiver(frame.symbol)
        try:
            await connection.send(frame.payload)
        except ConnectionError:
            await asyncio.sleep(POLL_S)
            return False
        return True

    async def _find_receiver(self, symbol: str) -> ClientConnection:
        while True:
            ready = [session for session in self._sessions if session.last_subscription_ns]
            for session in ready:
                if symbol in session.instrument_keys():
                    return session.connection
            last_ns = max((session.last_subscription_ns for session in ready), default=0)
            if last_ns and time.monotonic_ns() - last_ns > SETTLE_S * 1e9:
                return min(ready, key=lambda session: session.connection.number).connection
            await asyncio.sleep(POLL_S)
