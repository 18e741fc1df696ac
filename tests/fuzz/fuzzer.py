"""Hostile bytes into everything that reads a server's bytes: both decoders and sessions, and the frame scanner.

    python benchmarks/fuzz.py [--inputs 1000000] [--seed 1] [--seconds 0] [--target kis] ...

    valid frames (made here; recorded ones too, where they lie beside the checkout)
        `─ mutate: by structure (fields, JSON values, lengths), by bytes ─> target ─> check
              ^                                                              |
              `── corpus <── input that reached a line not reached before <──'   (one input in TRACED is traced)

Checked for each input: nothing is raised (by a session: nothing but SessionError); every record of the frame is a row, a phase, or
rejected with a reason, every message is data or control; a rejected frame is rejected again when it is decoded again; every number
lies in its range; no input takes longer than SLOWEST_S. At the end: memory has not grown. A finding is printed with the bytes
that cause it; the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.decode import (
    build_kis_book_frame,
    build_kis_tick_frame,
    build_kiwoom_book_message,
    build_kiwoom_tick_message,
)
from brokers.decoded import DecodedBatch
from brokers.errors import ProtocolError, SessionError, TransportError
from brokers.registry import load_broker
from brokers.subscription import Subscription, SubscriptionTable
from brokers.transport.frame_parser import FrameParser
from conf.instrument import parse_instrument
from conf.loader import load_settings
from ringbuf.records import STREAMS, UNDEFINED

ROOT = Path(__file__).parents[2]
TRACE_EVERY = 25
MAX_INPUT_S = 0.5
MAX_GROWTH_MB = 30.0
MAX_CORPUS = 2000
MAX_INPUT_BYTES = 300_000
MAX_FRAME_BYTES = 1 << 16
RECV_NS = 1_795_136_400 * 10**9
INSTRUMENTS = ["005930", "000660_NX", "0074K0_AL", "Q500001"]
SUBSCRIPTIONS = [Subscription(parse_instrument(name), stream) for name in INSTRUMENTS for stream in STREAMS]
SAMPLES = ROOT.parent / "shared" / "specs" / "samples"

HOSTILE_TEXTS = [
    *("", " ", "0", "-0", "+5", "--5", "+-5", "1e999999", "-1e-999999", "NaN", "Infinity", "0x10", "1_000", "٣", "１２", "²"),
    *("0.00001", "1.5", ".5", "5.", "1.2.3", str(2**63 - 1), str(2**63), str(-(2**63)), str(2**64), "9" * 19, "9" * 40),
    *("9" * 4300, "9" * 4301, "1" * 100_000, "\0", "\0" * 15, "\ud800", "\U0001f600", "x" * 70_000, "null", "true", "\n", "^", "|"),
    *("005930", "000660_NX", "Q500001", "240000", "235960", "000000", "REAL", "PINGPONG", "LOGIN", "SYSTEM", "0B", "0D", "0s"),
]  # fmt: skip
HOSTILE_JSON: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    1e308,
    2**64,
    10**400,
    [],
    {},
    [[]],
    {"": ""},
    [None],
    *HOSTILE_TEXTS,
]
SPLICES = [
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"^",
    b"|",
    b'"',
    b"\\",
    b"\\ud800",
    b"{",
    b"[",
    b"[" * 2000,
    b'{"a":' * 2000,
]
SPLICES += [
    b"[" * 200_000,
    b'{"a":' * 60_000,
    b"^" * 100_000,
    b",",
    b":",
    b"1e999999",
    b"9" * 5000,
    b"\xef\xbb\xbf",
    b"\r\n",
]
Check = Callable[[bytes], str]


def build_control_frames() -> list[bytes]:
    """Messages of both dialogues."""
    header = {"tr_id": "H0STCNT0", "tr_key": "005930", "encrypt": "N"}
    texts: list[dict[str, Any]] = [
        {"header": {"tr_id": "PINGPONG", "datetime": "20261120100000"}},
        {"header": {"tr_id": "PINGPONG", "datetime": "x" * 100_000}},
        {"trnm": "PING"},
        {"trnm": "LOGIN", "return_code": 0, "return_msg": "", "sor_yn": "Y"},
        {"trnm": "SYSTEM", "code": "R10009", "message": "x"},
        {"trnm": "REG", "return_code": 105115, "return_msg": "[105115] no"},
    ]
    for code in ("OPSP0000", "OPSP0002", "OPSP0007", "OPSP0008", "OPSP0011", "OPSP8996", "XXXX"):
        texts.append({"header": header, "body": {"rt_cd": "1", "msg_cd": code, "msg1": "words", "output": {"iv": "x"}}})
    return [json.dumps(text).encode() for text in texts]


def load_seeds(target: str) -> list[bytes]:
    """Valid messages; of both vendors for the frame scanner."""
    book, tick = build_kiwoom_book_message(), build_kiwoom_tick_message()
    both = json.loads(book)
    both["data"] += json.loads(tick)["data"] + [{"type": "0s", "item": "", "values": {"215": "3", "214": "0"}}]
    found = [*build_control_frames(), b"", b"{}"]
    if target != "kiwoom":
        found += [
            build_kis_tick_frame(1),
            build_kis_tick_frame(5),
            build_kis_tick_frame(1) + b"^x^y",
            build_kis_book_frame(),
            build_kis_book_frame() + b"^1",
        ]
    if target != "kis":
        found += [
            book,
            tick,
            json.dumps(both, ensure_ascii=False).encode(),
            b'{"trnm":"REAL"}',
            b'{"trnm":"REAL","data":[]}',
        ]
    for file in sorted(SAMPLES.glob("kis/*.txt" if target == "kis" else "kiwoom/*.json")):
        whole = file.read_bytes()
        found += whole.splitlines() if target == "kis" else [whole]
    return [payload for payload in found if len(payload) < MAX_INPUT_BYTES]


class Mutator:
    """Makes an input out of one or two others."""

    def __init__(self, rng: random.Random, corpus: list[bytes]) -> None:
        self._rng = rng
        self._corpus = corpus

    def make(self) -> bytes:
        """The next input, at most INPUT_MOST bytes."""
        rng = self._rng
        payload = rng.choice(self._corpus)
        for _ in range(1 + int(rng.expovariate(1.2))):
            choice = rng.random()
            if choice < 0.5 and payload[:1] == b"{":
                payload = self._mutate_json(payload)
            elif choice < 0.6 and payload.count(b"|") >= 3:
                payload = self._mutate_fields(payload)
            elif choice < 0.97:
                payload = self._mutate_bytes(payload)
            else:
                other = rng.choice(self._corpus)
                payload = payload[: rng.randint(0, len(payload))] + other[rng.randint(0, len(other)) :]
            if len(payload) > MAX_INPUT_BYTES:
                payload = payload[:MAX_INPUT_BYTES]
        return payload

    def _mutate_bytes(self, payload: bytes) -> bytes:
        rng = self._rng
        at = rng.randint(0, len(payload))
        match rng.randrange(5):
            case 0:
                return payload[:at] + bytes([rng.randrange(256)]) + payload[at + 1 :]
            case 1:
                rare = rng.random() < 0.02
                return payload[:at] + (rng.choice(SPLICES) if rare else bytes([rng.randrange(256)])) + payload[at:]
            case 2:
                return payload[:at] + payload[at + rng.randint(1, 40) :]
            case 3:
                return payload[:at]
            case _:
                end = at + rng.randint(1, 60)
                return payload[:end] + payload[at:end] + payload[end:]

    def _draw_text(self) -> str:
        if self._rng.random() < 0.5:
            return str(self._rng.randrange(10 ** self._rng.randint(1, 20)))
        return self._rng.choice(HOSTILE_TEXTS) if self._rng.random() < 0.2 else self._rng.choice(HOSTILE_TEXTS[:27])

    def _mutate_fields(self, payload: bytes) -> bytes:
        """A frame of fields: a head field, a field, their number, the count."""
        rng = self._rng
        *head, body = payload.split(b"|", 3)
        fields = body.split(b"^")
        at = rng.randrange(len(fields))
        match rng.randrange(8):
            case 0 | 1 | 2:
                fields[at] = self._draw_text().encode("utf-8", "surrogatepass")
            case 3:
                del fields[at : at + rng.randint(1, 3)]
            case 4:
                fields[at:at] = [b"7"] * rng.choice([1, 2, 3, 47, 63])
            case 5:
                times = rng.choice([2, 3, 10, 999])
                if len(body) * times < MAX_INPUT_BYTES:
                    head[2], fields = b"%03d" % times, fields * times
            case 6:
                head[rng.randrange(3)] = self._draw_text().encode("utf-8", "surrogatepass")
            case _:
                head[1] = rng.choice(
                    [b"H0STCNT0", b"H0NXCNT0", b"H0UNCNT0", b"H0STASP0", b"H0NXASP0", b"H0UNASP0", b"H0"]
                )
        return b"|".join([*head, b"^".join(fields)])

    def _mutate_json(self, payload: bytes) -> bytes:
        """A JSON message: one value, key or entry somewhere in it."""
        rng = self._rng
        try:
            message = json.loads(payload)
        except (ValueError, RecursionError):
            return self._mutate_bytes(payload)
        node = message
        while isinstance(node, dict | list) and node:
            key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
            if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.85:
                node = node[key]
                continue
            match rng.randrange(6):
                case 0 | 1 | 2:
                    node[key] = self._draw_text() if rng.random() < 0.8 else rng.choice(HOSTILE_JSON[:14])
                case 3:
                    del node[key]
                case 4 if isinstance(node, dict):
                    node[self._draw_text()] = node[key]
                case 4:
                    node += [node[key]] * rng.choice([1, 2, 50])
                case _:
                    node[key] = [node[key]] if rng.random() < 0.5 else {"values": node[key]}
            break
        try:
            return json.dumps(message, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
        except (ValueError, RecursionError):
            return payload


def build_decoder_check(name: str) -> Check:
    """The decoder and session of a broker; what is wrong with how an input was taken, or nothing."""
    broker = load_broker(name)
    subscriptions_by_code = broker.subscriptions_by_code(SUBSCRIPTIONS)
    subscriptions = frozenset(SUBSCRIPTIONS)
    settings = load_settings(ROOT)
    sessions: list[Any] = []

    def check_session(payload: bytes) -> str:
        if not sessions or len(sessions) > 300:
            table = SubscriptionTable(SUBSCRIPTIONS)
            sessions[:] = [broker.create_session(settings, "credential", table)]
        session = sessions[0]
        sessions.append(None)
        now_ns = RECV_NS + len(sessions) * 10**9
        try:
            outcome = session.receive(payload, now_ns)
            session.check_timeouts(now_ns)
        except SessionError:
            sessions.clear()
            return ""
        pending = session.pending_messages(now_ns)
        if outcome.unexpected and not outcome.message:
            return "a strange message without words"
        if any(len(message) > 5_000 for message in pending):
            return "an answer of more than 5,000 bytes"
        return ""

    def check(payload: bytes) -> str:
        decoded: DecodedBatch = broker.decode(payload, subscriptions_by_code, RECV_NS, 5)
        if decoded.control is not None:
            if decoded.rejects or decoded.book_rows or decoded.tick_rows or decoded.market_events:
                return "both control and data"
            return check_session(payload)
        if problem := _check_rows(decoded, subscriptions):
            return problem
        count = len(decoded.book_rows) + len(decoded.tick_rows) + len(decoded.market_events) + len(decoded.rejects)
        if not count and not _is_empty_frame(payload):
            return "neither record nor control nor phase nor rejected"
        for raw, reason in decoded.rejects:
            if not reason:
                return "rejected without a reason"
            if len(raw) > 4 * len(payload) + 100:
                return "rejected more than came"
            again: DecodedBatch = broker.decode(raw, subscriptions_by_code, RECV_NS, 5)
            if again.book_rows or again.tick_rows or again.market_events or not (again.rejects or again.control):
                return f"rejected ({reason}), but taken when decoded again: {raw[:200]!r}"
            if len(decoded.rejects) > 20:
                break
        return ""

    return check


def _is_empty_frame(payload: bytes) -> bool:
    """A data frame that says of itself that it has no entries."""
    try:
        message = json.loads(payload.decode("utf-8", "replace"))
    except ValueError:
        return False
    return isinstance(message, dict) and not message.get("data")


def _check_rows(decoded: DecodedBatch, subscriptions: frozenset[Subscription]) -> str:
    if not subscriptions.issuperset(decoded.book_subscriptions) or not subscriptions.issuperset(
        decoded.tick_subscriptions
    ):
        return "a record of something not registered"
    for rows, row_subscriptions, array in (
        (decoded.book_rows, decoded.book_subscriptions, decoded.books),
        (decoded.tick_rows, decoded.tick_subscriptions, decoded.ticks),
    ):
        if len(rows) != len(row_subscriptions) or len(array) != len(rows):
            return "rows and registrations differ in number"
        if not len(array):
            continue
        for name in array.dtype.names:
            values = array[name]
            if values.dtype.kind != "i" or name in ("side", "value_change"):
                continue
            if ((values < 0) & (values != UNDEFINED)).any():
                return f"{name} is negative: {values.min()}"
            if name.endswith("_e4") and ((values % 10_000 != 0) & (values < 0) & (values != UNDEFINED)).any():
                return f"{name} is no price"
        if (array["exch_ns"] - RECV_NS > 4 * 3600 * 10**9).any():
            return "exchange time is yet to come"
        if [r.instrument.symbol.encode() for r in row_subscriptions] != array["symbol"].tolist():
            return "the symbol of a row is not its registration's"
    return ""


class FrameParserTarget:
    """The frame scanner: a stream in random chunks against the same stream at once."""

    def __init__(self, rng: random.Random, mutator: Mutator) -> None:
        self._rng = rng
        self._mutator = mutator

    def make(self) -> bytes:
        """A stream of frames, well formed but for one accident or another."""
        rng = self._rng
        stream = bytearray()
        for _ in range(rng.randint(1, 6)):
            payload = (
                rng.randbytes(rng.choice([0, 1, 5, 125, 126, 127, 300])) if rng.random() < 0.8 else self._mutator.make()
            )
            first = (
                rng.choice([0x81, 0x81, 0x81, 0x82, 0x01, 0x00, 0x80, 0x89, 0x8A])
                if rng.random() < 0.97
                else rng.randrange(256)
            )
            size = len(payload)
            if rng.random() < 0.02:
                size = rng.choice(
                    [0, 125, 126, 65535, 65536, MAX_FRAME_BYTES + 1, 100_000_000, 2**31, 2**63 - 1, 2**64 - 1]
                )
            if rng.random() < 0.02:
                head = bytes([first, 127]) + size.to_bytes(8)
            elif size < 126:
                head = bytes([first, size])
            elif size < 65536:
                head = bytes([first, 126]) + size.to_bytes(2)
            else:
                head = bytes([first, 127]) + size.to_bytes(8)
            stream += head + payload
        if rng.random() < 0.2:
            stream[rng.randrange(len(stream))] = rng.randrange(256)
        return bytes(stream)

    def check(self, stream: bytes) -> str:
        """What is wrong with how it was read, or nothing."""
        whole = FrameParser(MAX_FRAME_BYTES)
        expected = whole.feed(stream)
        chunked = FrameParser(MAX_FRAME_BYTES)
        found, at = [], 0
        while at < len(stream):
            size = self._rng.choice([1, 2, 3, 10, 100, 5000, 1 << 18])
            found += chunked.feed(stream[at : at + size])
            at += size
            if len(chunked._remainder) > MAX_FRAME_BYTES + 10 + size:
                return f"the scanner holds {len(chunked._remainder)} bytes"
        if found != expected or str(chunked.error) != str(whole.error):
            return f"other chunks, other messages: {chunked.error} and {whole.error}"
        if whole.error is not None and not isinstance(whole.error, ProtocolError | TransportError):
            return f"ended by {whole.error!r}"
        if whole.error is not None and whole.feed(b"\x81\x00"):
            return "messages after the end"
        return ""


class LineCoverage:
    """Which lines of the tested files were reached."""

    def __init__(self, files: Iterable[str]) -> None:
        self.lines: set[tuple[str, int]] = set()
        self._files = {str(ROOT / file) for file in files}
        self._new = False

    def _trace_call(self, frame: FrameType, event: str, _: Any) -> Any:
        return self._trace_line if frame.f_code.co_filename in self._files else None

    def _trace_line(self, frame: FrameType, event: str, _: Any) -> Any:
        place = (frame.f_code.co_filename, frame.f_lineno)
        if place not in self.lines:
            self.lines.add(place)
            self._new = True
        return self._trace_line

    def run_traced(self, check: Check, payload: bytes) -> tuple[bool, str]:
        """Run `check` traced: whether a line was reached for the first time, and what it said."""
        self._new = False
        sys.settrace(self._trace_call)
        try:
            problem = check(payload)
        finally:
            sys.settrace(None)
        return self._new, problem


def read_own_mb() -> float:
    """Resident memory of this process, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def fuzz(target: str, inputs: int, seed: int, seconds: float = 0) -> dict[str, Any]:
    """Run one target; figures and findings (at most ten)."""
    rng = random.Random(f"{target} {seed}")
    corpus = load_seeds(target)
    mutator = Mutator(rng, corpus)
    if target == "frames":
        frame_target = FrameParserTarget(rng, mutator)
        make, check, files = frame_target.make, frame_target.check, ["brokers/transport/frame_parser.py"]
    else:
        files = [f"brokers/{target}/decode.py", f"brokers/{target}/session.py"]
        make, check = mutator.make, build_decoder_check(target)
    coverage = LineCoverage(files)
    findings: list[dict[str, str]] = []
    slowest_s, done, begin = 0.0, 0, time.monotonic()
    early_mb = 0.0
    kinds: Counter[str] = Counter()
    while done < inputs and len(findings) < 10 and not (seconds and time.monotonic() - begin > seconds):
        payload = corpus[done] if target != "frames" and done < len(corpus) else make()
        done += 1
        traced = done % TRACE_EVERY == 1
        start = time.perf_counter()
        try:
            is_new, problem = coverage.run_traced(check, payload) if traced else (False, check(payload))
        except Exception as error:  # noqa: BLE001 that is what is looked for
            is_new, problem = False, f"{type(error).__name__}: {error}"
        took_s = time.perf_counter() - start
        if took_s > MAX_INPUT_S * (5 if traced else 1) and not problem:
            start = time.perf_counter()
            check(payload)  # once more: the machine may have been busy
            took_s = time.perf_counter() - start
            if took_s > MAX_INPUT_S:
                problem = f"took {took_s:.2f} s for {len(payload)} bytes"
        slowest_s = max(slowest_s, 0 if traced else took_s)
        if is_new and target != "frames" and len(corpus) < MAX_CORPUS and len(payload) < 20_000:
            corpus.append(payload)
        if problem:
            kind = problem[:60]
            kinds[kind] += 1
            if kinds[kind] == 1:
                findings.append({"what": problem[:400], "input": repr(payload[:600]), "bytes": str(len(payload))})
        if done == inputs // 5:
            early_mb = read_own_mb()
    grown_mb = read_own_mb() - early_mb if early_mb else 0.0
    if grown_mb > MAX_GROWTH_MB:
        findings.append({"what": f"memory grew by {grown_mb:.0f} MB", "input": "", "bytes": "0"})
    took = time.monotonic() - begin
    return {
        "target": target, "inputs": done, "seed": seed, "seconds": round(took, 1), "a_second": round(done / took),
        "corpus": len(corpus), "lines_reached": len(coverage.lines), "slowest_ms": round(slowest_s * 1000, 1),
        "grown_mb": round(grown_mb, 1), "findings": findings,
    }  # fmt: skip


TARGETS = ("kis", "kiwoom", "frames")


def main() -> int:
    """Run the targets and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="over all targets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0, help="stop each target after so long")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one")
    arguments = parser.parse_args()
    targets = arguments.target or list(TARGETS)
    found = 0
    for target in targets:
        report = fuzz(target, arguments.inputs // len(targets) + 1, arguments.seed, arguments.seconds)
        found += len(report["findings"])
        print(json.dumps(report, indent=1, ensure_ascii=False), flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
