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
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from decode import kis_book, kis_tick, kiwoom_book, kiwoom_tick

from brokers.decoded import Decoded
from brokers.errors import FrameError, SessionError, WireError
from brokers.registry import broker
from brokers.subscription import Ledger, Registration
from brokers.transport.frame_parser import FrameScanner
from conf.instrument import parse
from conf.loader import load
from ringbuf.records import STREAMS, UNDEFINED

ROOT = Path(__file__).parents[2]
TRACED = 25
SLOWEST_S = 0.5
GROWTH_MOST_MB = 30.0
CORPUS_MOST = 2000
INPUT_MOST = 300_000
FRAME_MOST = 1 << 16
RECV_NS = 1_795_136_400 * 10**9
INSTRUMENTS = ["005930", "000660_NX", "0074K0_AL", "Q500001"]
KNOWN_FOR = [Registration(parse(name), stream) for name in INSTRUMENTS for stream in STREAMS]
SAMPLES = ROOT.parent / "shared" / "specs" / "samples"

WEIRD = [
    *("", " ", "0", "-0", "+5", "--5", "+-5", "1e999999", "-1e-999999", "NaN", "Infinity", "0x10", "1_000", "٣", "１２", "²"),
    *("0.00001", "1.5", ".5", "5.", "1.2.3", str(2**63 - 1), str(2**63), str(-(2**63)), str(2**64), "9" * 19, "9" * 40),
    *("9" * 4300, "9" * 4301, "1" * 100_000, "\0", "\0" * 15, "\ud800", "\U0001f600", "x" * 70_000, "null", "true", "\n", "^", "|"),
    *("005930", "000660_NX", "Q500001", "240000", "235960", "000000", "REAL", "PINGPONG", "LOGIN", "SYSTEM", "0B", "0D", "0s"),
]  # fmt: skip
WEIRD_JSON: list[Any] = [None, True, False, 0, -1, 1.5, 1e308, 2**64, 10**400, [], {}, [[]], {"": ""}, [None], *WEIRD]
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


def control_frames() -> list[bytes]:
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


def seeds(target: str) -> list[bytes]:
    """Valid messages; of both vendors for the frame scanner."""
    book, tick = kiwoom_book(), kiwoom_tick()
    both = json.loads(book)
    both["data"] += json.loads(tick)["data"] + [{"type": "0s", "item": "", "values": {"215": "3", "214": "0"}}]
    found = [*control_frames(), b"", b"{}"]
    if target != "kiwoom":
        found += [kis_tick(1), kis_tick(5), kis_tick(1) + b"^x^y", kis_book(), kis_book() + b"^1"]
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
    return [payload for payload in found if len(payload) < INPUT_MOST]


class Mutator:
    """Makes an input out of one or two others."""

    def __init__(self, dice: random.Random, corpus: list[bytes]) -> None:
        self._dice = dice
        self._corpus = corpus

    def make(self) -> bytes:
        """The next input, at most INPUT_MOST bytes."""
        dice = self._dice
        payload = dice.choice(self._corpus)
        for _ in range(1 + int(dice.expovariate(1.2))):
            way = dice.random()
            if way < 0.5 and payload[:1] == b"{":
                payload = self._json(payload)
            elif way < 0.6 and payload.count(b"|") >= 3:
                payload = self._fields(payload)
            elif way < 0.97:
                payload = self._bytes(payload)
            else:
                other = dice.choice(self._corpus)
                payload = payload[: dice.randint(0, len(payload))] + other[dice.randint(0, len(other)) :]
            if len(payload) > INPUT_MOST:
                payload = payload[:INPUT_MOST]
        return payload

    def _bytes(self, payload: bytes) -> bytes:
        dice = self._dice
        at = dice.randint(0, len(payload))
        match dice.randrange(5):
            case 0:
                return payload[:at] + bytes([dice.randrange(256)]) + payload[at + 1 :]
            case 1:
                rare = dice.random() < 0.02
                return payload[:at] + (dice.choice(SPLICES) if rare else bytes([dice.randrange(256)])) + payload[at:]
            case 2:
                return payload[:at] + payload[at + dice.randint(1, 40) :]
            case 3:
                return payload[:at]
            case _:
                end = at + dice.randint(1, 60)
                return payload[:end] + payload[at:end] + payload[end:]

    def _text(self) -> str:
        if self._dice.random() < 0.5:
            return str(self._dice.randrange(10 ** self._dice.randint(1, 20)))
        return self._dice.choice(WEIRD) if self._dice.random() < 0.2 else self._dice.choice(WEIRD[:27])

    def _fields(self, payload: bytes) -> bytes:
        """A frame of fields: a head field, a field, their number, the count."""
        dice = self._dice
        *head, body = payload.split(b"|", 3)
        fields = body.split(b"^")
        at = dice.randrange(len(fields))
        match dice.randrange(8):
            case 0 | 1 | 2:
                fields[at] = self._text().encode("utf-8", "surrogatepass")
            case 3:
                del fields[at : at + dice.randint(1, 3)]
            case 4:
                fields[at:at] = [b"7"] * dice.choice([1, 2, 3, 47, 63])
            case 5:
                times = dice.choice([2, 3, 10, 999])
                if len(body) * times < INPUT_MOST:
                    head[2], fields = b"%03d" % times, fields * times
            case 6:
                head[dice.randrange(3)] = self._text().encode("utf-8", "surrogatepass")
            case _:
                head[1] = dice.choice(
                    [b"H0STCNT0", b"H0NXCNT0", b"H0UNCNT0", b"H0STASP0", b"H0NXASP0", b"H0UNASP0", b"H0"]
                )
        return b"|".join([*head, b"^".join(fields)])

    def _json(self, payload: bytes) -> bytes:
        """A JSON message: one value, key or entry somewhere in it."""
        dice = self._dice
        try:
            message = json.loads(payload)
        except (ValueError, RecursionError):
            return self._bytes(payload)
        node = message
        while isinstance(node, dict | list) and node:
            key = dice.choice(list(node)) if isinstance(node, dict) else dice.randrange(len(node))
            if isinstance(node[key], dict | list) and node[key] and dice.random() < 0.85:
                node = node[key]
                continue
            match dice.randrange(6):
                case 0 | 1 | 2:
                    node[key] = self._text() if dice.random() < 0.8 else dice.choice(WEIRD_JSON[:14])
                case 3:
                    del node[key]
                case 4 if isinstance(node, dict):
                    node[self._text()] = node[key]
                case 4:
                    node += [node[key]] * dice.choice([1, 2, 50])
                case _:
                    node[key] = [node[key]] if dice.random() < 0.5 else {"values": node[key]}
            break
        try:
            return json.dumps(message, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
        except (ValueError, RecursionError):
            return payload


def decoder(name: str) -> Check:
    """The decoder and session of a broker; what is wrong with how an input was taken, or nothing."""
    vendor = broker(name)
    known = vendor.known(KNOWN_FOR)
    registered = frozenset(KNOWN_FOR)
    settings = load(ROOT)
    sessions: list[Any] = []

    def converse(payload: bytes) -> str:
        if not sessions or len(sessions) > 300:
            ledger = Ledger(KNOWN_FOR)
            sessions[:] = [vendor.session(settings, "credential", ledger)]
        session = sessions[0]
        sessions.append(None)
        now_ns = RECV_NS + len(sessions) * 10**9
        try:
            heard = session.receive(payload, now_ns)
            session.overdue(now_ns)
        except SessionError:
            sessions.clear()
            return ""
        out = session.outgoing(now_ns)
        if heard.strange and not heard.words:
            return "a strange message without words"
        if any(len(message) > 5_000 for message in out):
            return "an answer of more than 5,000 bytes"
        return ""

    def check(payload: bytes) -> str:
        decoded: Decoded = vendor.decode(payload, known, RECV_NS, 5)
        if decoded.control is not None:
            if decoded.rejected or decoded.book_rows or decoded.tick_rows or decoded.happened:
                return "both control and data"
            return converse(payload)
        if wrong := _rows(decoded, registered):
            return wrong
        count = len(decoded.book_rows) + len(decoded.tick_rows) + len(decoded.happened) + len(decoded.rejected)
        if not count and not _is_empty_frame(payload):
            return "neither record nor control nor phase nor rejected"
        for raw, reason in decoded.rejected:
            if not reason:
                return "rejected without a reason"
            if len(raw) > 4 * len(payload) + 100:
                return "rejected more than came"
            again: Decoded = vendor.decode(raw, known, RECV_NS, 5)
            if again.book_rows or again.tick_rows or again.happened or not (again.rejected or again.control):
                return f"rejected ({reason}), but taken when decoded again: {raw[:200]!r}"
            if len(decoded.rejected) > 20:
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


def _rows(decoded: Decoded, registered: frozenset[Registration]) -> str:
    if not registered.issuperset(decoded.book_of) or not registered.issuperset(decoded.tick_of):
        return "a record of something not registered"
    for rows, of, array in (
        (decoded.book_rows, decoded.book_of, decoded.books),
        (decoded.tick_rows, decoded.tick_of, decoded.ticks),
    ):
        if len(rows) != len(of) or len(array) != len(rows):
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
        if (abs(array["exch_ns"] - RECV_NS) > 12 * 3600 * 10**9).any():
            return "exchange time more than half a day from its receipt"
        if [r.instrument.symbol.encode() for r in of] != array["symbol"].tolist():
            return "the symbol of a row is not its registration's"
    return ""


class Scanner:
    """The frame scanner: a stream in random chunks against the same stream at once."""

    def __init__(self, dice: random.Random, mutator: Mutator) -> None:
        self._dice = dice
        self._mutator = mutator

    def make(self) -> bytes:
        """A stream of frames, well formed but for one accident or another."""
        dice = self._dice
        stream = bytearray()
        for _ in range(dice.randint(1, 6)):
            payload = (
                dice.randbytes(dice.choice([0, 1, 5, 125, 126, 127, 300]))
                if dice.random() < 0.8
                else self._mutator.make()
            )
            first = (
                dice.choice([0x81, 0x81, 0x81, 0x82, 0x01, 0x00, 0x80, 0x89, 0x8A])
                if dice.random() < 0.97
                else dice.randrange(256)
            )
            size = len(payload)
            if dice.random() < 0.02:
                size = dice.choice(
                    [0, 125, 126, 65535, 65536, FRAME_MOST + 1, 100_000_000, 2**31, 2**63 - 1, 2**64 - 1]
                )
            if dice.random() < 0.02:
                head = bytes([first, 127]) + size.to_bytes(8)
            elif size < 126:
                head = bytes([first, size])
            elif size < 65536:
                head = bytes([first, 126]) + size.to_bytes(2)
            else:
                head = bytes([first, 127]) + size.to_bytes(8)
            stream += head + payload
        if dice.random() < 0.2:
            stream[dice.randrange(len(stream))] = dice.randrange(256)
        return bytes(stream)

    def check(self, stream: bytes) -> str:
        """What is wrong with how it was read, or nothing."""
        whole = FrameScanner(FRAME_MOST)
        expected = whole.feed(stream)
        chunked = FrameScanner(FRAME_MOST)
        found, at = [], 0
        while at < len(stream):
            size = self._dice.choice([1, 2, 3, 10, 100, 5000, 1 << 18])
            found += chunked.feed(stream[at : at + size])
            at += size
            if len(chunked._rest) > FRAME_MOST + 10 + size:
                return f"the scanner holds {len(chunked._rest)} bytes"
        if found != expected or str(chunked.ended) != str(whole.ended):
            return f"other chunks, other messages: {chunked.ended} and {whole.ended}"
        if whole.ended is not None and not isinstance(whole.ended, FrameError | WireError):
            return f"ended by {whole.ended!r}"
        if whole.ended is not None and whole.feed(b"\x81\x00"):
            return "messages after the end"
        return ""


class Coverage:
    """Which lines of the tested files were reached."""

    def __init__(self, files: Iterable[str]) -> None:
        self.lines: set[tuple[str, int]] = set()
        self._files = {str(ROOT / file) for file in files}
        self._new = False

    def _global(self, frame: FrameType, event: str, _: Any) -> Any:
        return self._local if frame.f_code.co_filename in self._files else None

    def _local(self, frame: FrameType, event: str, _: Any) -> Any:
        place = (frame.f_code.co_filename, frame.f_lineno)
        if place not in self.lines:
            self.lines.add(place)
            self._new = True
        return self._local

    def reaches_more(self, check: Check, payload: bytes) -> tuple[bool, str]:
        """Run `check` traced: whether a line was reached for the first time, and what it said."""
        self._new = False
        sys.settrace(self._global)
        try:
            said = check(payload)
        finally:
            sys.settrace(None)
        return self._new, said


def own_mb() -> float:
    """Resident memory of this process, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def fuzz(target: str, inputs: int, seed: int, seconds: float = 0) -> dict[str, Any]:
    """Run one target; figures and findings (at most ten)."""
    dice = random.Random(f"{target} {seed}")
    corpus = seeds(target)
    mutator = Mutator(dice, corpus)
    if target == "frames":
        scanner = Scanner(dice, mutator)
        make, check, files = scanner.make, scanner.check, ["brokers/transport/frame_parser.py"]
    else:
        files = [f"brokers/{target}/decode.py", f"brokers/{target}/session.py"]
        make, check = mutator.make, decoder(target)
    coverage = Coverage(files)
    findings: list[dict[str, str]] = []
    slowest_s, done, begin = 0.0, 0, time.monotonic()
    early_mb = 0.0
    kinds: Counter[str] = Counter()
    while done < inputs and len(findings) < 10 and not (seconds and time.monotonic() - begin > seconds):
        payload = corpus[done] if target != "frames" and done < len(corpus) else make()
        done += 1
        traced = done % TRACED == 1
        start = time.perf_counter()
        try:
            fresh, said = coverage.reaches_more(check, payload) if traced else (False, check(payload))
        except Exception as error:  # noqa: BLE001 that is what is looked for
            fresh, said = False, f"{type(error).__name__}: {error}"
        took_s = time.perf_counter() - start
        if took_s > SLOWEST_S * (5 if traced else 1) and not said:
            start = time.perf_counter()
            check(payload)  # once more: the machine may have been busy
            took_s = time.perf_counter() - start
            if took_s > SLOWEST_S:
                said = f"took {took_s:.2f} s for {len(payload)} bytes"
        slowest_s = max(slowest_s, 0 if traced else took_s)
        if fresh and target != "frames" and len(corpus) < CORPUS_MOST and len(payload) < 20_000:
            corpus.append(payload)
        if said:
            kind = said[:60]
            kinds[kind] += 1
            if kinds[kind] == 1:
                findings.append({"what": said[:400], "input": repr(payload[:600]), "bytes": str(len(payload))})
        if done == inputs // 5:
            early_mb = own_mb()
    grown_mb = own_mb() - early_mb if early_mb else 0.0
    if grown_mb > GROWTH_MOST_MB:
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
    chosen = parser.parse_args()
    targets = chosen.target or list(TARGETS)
    found = 0
    for target in targets:
        told = fuzz(target, chosen.inputs // len(targets) + 1, chosen.seed, chosen.seconds)
        found += len(told["findings"])
        print(json.dumps(told, indent=1, ensure_ascii=False), flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
