"""Servers that put terminal sequences, forged log lines and our own keys into every text they send, under the real process tree.

What they sent may be read in logs, events, vitals, status and the rest, but it can do nothing there, and no key is in it.
"""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import socket
import subprocess
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from support.hostile_server import HostileServer, accept_upgrade, build_frame, build_http_response
from support.process_tree import BIN, run_collectorctl, temporary_home, wait_until

from collectorctl.supervision.status import configured_programs
from conf.home import Home
from ringbuf.vitals import read_snapshot

pytestmark = pytest.mark.timeout(600)

FORGED = "2026-11-20 10:00:00.000 INFO    kis all is well"
SEQUENCES = (
    f"\x1b[2J\x1b]0;title\x07\x9b31m\r\n{FORGED}\r\n\x00[red]x[/red]",
    "\u202egnorw\u2066\u2028\u2029\x7f\x85\x90q\x9c[bold]\t장\x1b[1A\x1b[2K\b",
)
"""Screen, title, 8-bit C1, a forged line, markup, NUL; right to left, separators, DEL, NEL, a string, line up and erased."""

CREDENTIALS = {"kis": "0A1b2C3d-4E5f-6a7B-8c9D", "kiwoom": "WQJCwyqInphKnR3bSRtB9NE1lv"}
SECRETS = {
    "KIS_APP_KEY": "PSq7Zr1MwXc94TtKbLhV0dEyGuN2sJfRiOa8",
    "KIS_APP_SECRET": "kR3/vT+9pLm2XwQzB7=hNcYs0/JdGfU6iEoA+tZx1MbCq8VrKW=",
    "KIWOOM_APP_KEY": "w5Lf-8Hq2Zt_RmXc7Bv0NyGjK4-dSaPe9UoIi1TrWzQ",
    "KIWOOM_APP_SECRET": "c9Vx-3Mn7Kp_EwJq1Zh5LtRb0-YsGdFu8OaIiXe2Cv",
}
ESCAPES = {
    "plain": lambda text: text,
    "json": lambda text: "".join(f"\\u{ord(character):04x}" for character in text),
    "url": lambda text: "".join(f"%{ord(character):02X}" for character in text),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "lines": lambda text: f"{text[:7]}\r\n{text[7:]}",
}

SETTINGS = """
universe.kr = ["005930"]
clock = {{ start = "2026-11-20T10:00:00+09:00" }}
ring = {{ orderbook_capacity = 4096, tick_capacity = 4096 }}
feed = {{ backoff_first_s = 0.1, backoff_max_s = 0.3 }}
gapfill.enabled = false
kis = {{ ws_url = "ws://{kis}/", rest_url = "http://{kis}", subscribe_spacing_ms = 20, cut_wait_s = 0.0 }}
kiwoom = {{ ws_url = "ws://{kiwoom}/", rest_url = "http://{kiwoom}", subscribe_spacing_ms = 20, cut_wait_s = 0.0 }}
"""


def controls(text: str) -> list[str]:
    """Lines with a character that a terminal acts upon."""
    bidirectional = "\u061c\u200e\u200f" + "".join(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))
    return [
        line
        for line in text.split("\n")
        if any(unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") or c in bidirectional for c in line)
    ]


def hostile_messages(kind: str, text: str) -> list[bytes]:
    """Every message whose text is taken up somewhere, on a connection that goes on; JSON escapes nothing that it need not."""
    value = [{"type": "0s", "name": text, "item": "", "values": {"215": text, "214": text, "20": text}}]
    halts = {
        "9001": "005930",
        "9068": "1",
        "1225": text,
        "9069": text,
        "1221": text,
        "1490": text,
        "1224": text,
        "1223": text,
    }
    stranger = {"type": "0B", "name": text, "item": text, "values": {"20": text}}
    found: list[dict] = {
        "kis": [
            {"header": {"tr_id": text, "tr_key": text}, "body": {"rt_cd": "1", "msg_cd": text, "msg1": text}},
            {"header": {"tr_id": "H0STCNT0", "tr_key": "005930"}, "body": {"rt_cd": "1", "msg_cd": "OPSP0007", "msg1": text}},
            {"header": {"tr_id": "H0STCNT0", "tr_key": "005930"}, "body": {"rt_cd": "1", "msg_cd": "OPSP0008", "msg1": text}},
        ],
        "kiwoom": [
            {"trnm": text},
            {"trnm": "SYSTEM", "code": text, "message": text},
            {"trnm": "REG", "return_code": 1, "return_msg": text},
            {"trnm": "REAL", "data": value},
            {"trnm": "REAL", "data": [{"type": "1h", "name": text, "item": "005930", "values": halts}]},
            {"trnm": "REAL", "data": [stranger, {**stranger, "type": text}]},
        ],
    }[kind]  # fmt: skip
    raw = text.encode()
    return [
        *(json.dumps(message, ensure_ascii=False).encode() for message in found),
        *(b"0|H0STCNT0|001|%b" % raw, b"0|%b|001|x" % raw, b"%b|H0STCNT0|001|x" % raw, raw, b"{%b" % raw, raw + b"\xff"),
    ]  # fmt: skip


def refuse_login(reason: str) -> Callable[[socket.socket, bytes], None]:
    """A handshake, then LOGIN is refused: the token is to be renewed."""

    def attack(peer: socket.socket, head: bytes) -> None:
        accept_upgrade(peer, head)
        peer.recv(4096)
        answer = {"trnm": "LOGIN", "return_code": 3, "return_msg": f"[8005:{reason}]"}
        peer.sendall(build_frame(json.dumps(answer)))
        peer.recv(4096)

    return attack


def refuse_handshake(reason: str) -> Callable[[socket.socket, bytes], None]:
    """An answer that is no upgrade, with a reason."""
    return lambda peer, head: peer.sendall(f"HTTP/1.1 4{reason[:40]} {reason}\r\nX: {reason}\r\n\r\n".encode())


def refuse_rest(kind: str, code: str, reason: str) -> bytes:
    """A refused key or token, in the vendor's form."""
    kis = {"error_code": code, "error_description": reason, "rt_cd": "1", "msg_cd": code, "msg1": reason}
    body = kis if kind == "kis" else {"return_code": 3, "return_msg": f"[{code}:{reason}]"}
    return build_http_response("403 Forbidden", json.dumps(body, ensure_ascii=False).encode())


class Tree:
    """A home whose brokers are hostile, and what its commands printed."""

    def __init__(self, root: Path, servers: dict[str, HostileServer]) -> None:
        self.root = root
        self.servers = servers
        self.outputs: dict[str, str] = {}

    def log(self, name: str) -> str:
        """The log of a process."""
        return (self.root / "log" / f"{name}.log").read_bytes().decode()

    def count(self, name: str, counter: str) -> int:
        """One of its counters."""
        return read_snapshot(Home(self.root).vitals_path(name)).counters[counter]

    def until_connected(self, name: str, connection: int) -> None:
        """Until a new connection has its answers."""
        wait_until(
            f"connection {connection} of {name}",
            lambda: (
                len(self.servers[name].opened_s) >= connection
                and self.count(name, "connected")
                and self.count(name, "acknowledged") + self.count(name, "refused") == 2
            ),
            30,
        )

    def send_messages(self, name: str, text: str) -> None:
        """`text` in every message."""
        frames = self.count(name, "frames")
        messages = hostile_messages(name, text)
        for message in messages:
            assert self.servers[name].send(build_frame(message))
        wait_until("all were read", lambda: self.count(name, "frames") >= frames + len(messages), 20)

    def send_reasons(self, name: str, text: str) -> None:
        """`text` as the reason of a close, of a handshake that is none, and of refusals."""
        server, connection = self.servers[name], len(self.servers[name].opened_s)
        server.refusal = text
        server.attacks = [refuse_handshake(text), *([refuse_login(text)] if name == "kiwoom" else [])]
        reason = text.encode()[:123].decode(errors="ignore").encode()
        assert server.send(build_frame((1008).to_bytes(2) + reason, 0x88))
        self.until_connected(name, connection + 1)
        assert server.attacks == []
        server.refusal = ""
        server.drop()
        self.until_connected(name, connection + 2)

    def run(self, *arguments: str) -> None:
        """Run a command on a terminal, as a person does, and keep what it printed there."""
        controller, terminal = pty.openpty()
        with subprocess.Popen(
            [BIN / "collectorctl", "--home", self.root, *arguments],
            stdout=terminal,
            stderr=terminal,
            env=os.environ | {"COLUMNS": "300", "TERM": "xterm-256color"},
        ) as process:
            os.close(terminal)
            pieces = []
            while True:
                try:
                    pieces.append(os.read(controller, 1 << 16))
                except OSError:  # the other end is closed
                    break
            process.wait(60)
        os.close(controller)
        self.outputs[" ".join(arguments)] = b"".join(pieces).decode()


COMMANDS = (
    *(("status",), ("status", "--json"), ("status", "--counters"), ("check",), ("plan",), ("plan", "--json")),
    *(("logs", "kis", "-n", "100000"), ("logs", "kiwoom", "-n", "100000"), ("logs", "old"), ("logs", "\x1b[2J")),
    *(("tail", "event", "-n", "10000"), ("tail", "event", "-n", "10000", "--json"), ("tail", "tick")),
    *(("explain", "005930", "10:00:30", "--window", "3600"), ("explain", "005930", "10:00:30", "--window", "3600", "--json")),
    *(("explain", "\x1b[2J", "10:00"), ("restart", "\x1b[2J"), ("reprocess", "--date", "2026-11-20", "--dry-run")),
    *(("recover", "--date", "2026-11-20"), ("recover", "--date", "2026-11-20", "--dry-run", "--json")),
    *(("verify", "--date", "2026-11-20"), ("recover", "--date", "\x1b[2J"), ("\x1b[2J",)),
)  # fmt: skip


@pytest.fixture(scope="module")
def tree() -> Iterator[Tree]:
    """A tree that was sent everything by every path, whose commands were run, and that was stopped."""
    servers = {name: HostileServer(name, credential=CREDENTIALS[name]) for name in ("kis", "kiwoom")}
    addresses = {name: f"127.0.0.1:{server.port}" for name, server in servers.items()}
    with temporary_home(SETTINGS.format(**addresses)) as root:
        (root / ".env").write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))
        found = Tree(root, servers)
        run_collectorctl(root, "start")
        for name, server in servers.items():
            secrets = [CREDENTIALS[name], *(secret for key, secret in SECRETS.items() if key.startswith(name.upper()))]
            for text in (*SEQUENCES, *(" ".join(map(escape, secrets)) for escape in ESCAPES.values())):
                found.send_messages(name, text)
            forms = {form: escape(CREDENTIALS[name]) for form, escape in ESCAPES.items()}
            mixed = [
                " ".join(forms[form] for form in line.split()) for line in ("plain lines base64", "url", "hex HEX")
            ]
            for text in (*SEQUENCES, forms["json"], *mixed):
                found.send_reasons(name, text)
            # it ends with a refusal, which the state keeps for status to show
            server.rest_answer = refuse_rest(name, "9999", f"at the end {SEQUENCES[0]} {SEQUENCES[1]}")
            refusal = {
                "kis": {"header": {"tr_id": "H0STCNT0"}, "body": {"rt_cd": "1", "msg_cd": "OPSP0011", "msg1": "x"}},
                "kiwoom": {"trnm": "SYSTEM", "code": "R10002", "message": "x"},
            }[name]
            if name == "kiwoom":
                server.attacks = [refuse_login("x")]
            assert server.send(build_frame(json.dumps(refusal)))
            wait_until(f"{name} is refused", lambda name=name: "at the end" in found.log(name), 30)
        wait_until(
            "they are journalled", lambda: "phase" in run_collectorctl(root, "tail", "event", "-n", "9999").stdout
        )
        (root / "log" / "old.log").write_bytes("\n".join(SEQUENCES).encode() + b"\x9b2J\xff\n")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda command: found.run(*command), COMMANDS))
        found.run("stop")
        yield found
        for server in servers.values():
            server.close()


def test_no_command_prints_what_a_terminal_acts_upon(tree: Tree) -> None:
    """On a real terminal: the only sequences are the colours of our own words; markup and names of colours are plain text."""
    for command, output in tree.outputs.items():
        text = re.sub(
            r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]", "", output.replace("\r\n", "\n")
        )  # colours; the cursor of a progress bar
        text = re.sub(r"\r?\x1b\[(1A|2K)", "", text) if command.startswith("recover") else text

        assert controls(text) == [], command
        assert command == "logs old" or not re.search(rf"^{FORGED}", text, re.M), command
        assert "Traceback" not in text, command
    shown = tree.outputs["status"]
    assert "at the end" in shown and "\\u001b[2J" in shown and "[red]x[/red]" in shown
    assert tree.outputs["logs old"].splitlines()[0].startswith("\\u001b[2J\\u001b]0;title\\u0007\\u009b31m\\r")
    assert "\\u202egnorw" in tree.outputs["tail event -n 10000"]


def test_json_of_a_command_means_what_was_stored(tree: Tree) -> None:
    """Escaped as JSON escapes."""
    for command, output in tree.outputs.items():
        if command == "status --json" or (command.startswith("explain 005930") and "--json" in command):
            assert msgspec.json.decode(output.replace("\r\n", "\n"))
    lines = tree.outputs["tail event -n 10000 --json"].splitlines()
    assert len(lines) > 50 and all(msgspec.json.decode(line)["kind"] for line in lines)


def test_no_line_of_a_log_is_forged(tree: Tree) -> None:
    """Every line begins an entry of the process itself, or is the indented line of a traceback."""
    for name in ("kis", "kiwoom", "writer", "watchdog"):
        text = tree.log(name)

        assert controls(text) == []
        assert not [line for line in text.splitlines() if not re.match(rf"\d{{4}}-.* {name} |    ", line)]
        assert not re.search(rf"^{FORGED}", text, re.M)
    for file in (tree.root / "log").glob("*.out"):
        assert controls(file.read_bytes().decode()) == [], file


def test_events_and_vitals_hold_printable_text(tree: Tree) -> None:
    """In Parquet and on the pages, cut where they had no more room and valid all the same; what was sent can still be read."""
    files = list((tree.root / "data" / "kr" / "event").rglob("*.parquet"))
    messages = [message for file in files for message in pq.read_table(file)["message"].to_pylist() if message]

    assert [message for message in messages if controls(message)] == []
    assert any("all is well" in message for message in messages) and any("gnorw" in message for message in messages)
    home = Home(tree.root)
    for name in configured_programs(home.settings):
        if home.vitals_path(name).exists():
            assert controls(read_snapshot(home.vitals_path(name)).detail) == []


def test_a_frame_is_kept_as_it_came_and_cannot_act_where_it_is_shown(tree: Tree) -> None:
    """The quarantine escapes as JSON does: `cat` is safe, and `reprocess` reads the same text."""
    for name in ("kis", "kiwoom"):
        file = tree.root / "data" / "quarantine" / "date=2026-11-20" / f"{name}.jsonl"
        text = file.read_text()
        kept = [json.loads(line) for line in text.splitlines()]

        assert controls(text) == []
        assert {*SEQUENCES} <= {entry.get("text") for entry in kept}
        assert not [entry for entry in kept if controls(entry["reason"])]


def test_no_key_secret_or_token_is_kept_however_it_was_echoed(tree: Tree) -> None:
    """In no file of the home but .env and run/token, and in no output: neither plain nor escaped, encoded or split.

    Eight characters of a secret are a piece of it; every file is read as it stands, with escapes decoded, and without blanks.
    """
    secrets = [*SECRETS.values(), *CREDENTIALS.values()]
    needles = {
        spelling[at : at + size].lower()
        for secret in secrets
        for spelling, size in (
            (secret, 8),
            (secret.encode().hex(), 20),
            (base64.b64encode(secret.encode()).decode(), 14),
        )
        for at in range(len(spelling) - size + 1)
    }
    files = [Path(at) / name for at, _, names in os.walk(tree.root, followlinks=True) for name in names]
    kept = {".parquet", ".jsonl", ".log", ".out", ".ring", ".vitals", ".arrows"}
    texts = {str(file): file.read_bytes().decode("latin-1") for file in files if file.suffix in kept} | tree.outputs

    for name, text in texts.items():
        for decoded in decodings(text):
            found = {decoded[at : at + size] for size in (8, 14, 20) for at in range(len(decoded) - size + 1)} & needles
            at = min((decoded.index(one) for one in found), default=0)
            assert found == set(), (name, decoded[max(0, at - 80) : at + 120])
    assert {".jsonl", ".log", ".parquet", ".vitals"} <= {Path(name).suffix for name in texts}
    assert any("***" in text for text in texts.values())


def decodings(text: str) -> Iterator[str]:
    """`text` in small letters, with escapes decoded once and twice, with and without blanks."""
    for _ in range(3):
        yield text.lower()
        yield "".join(text.split()).lower()
        text = re.sub(
            r"\\u([0-9a-fA-F]{4})|%([0-9a-fA-F]{2})|\\([/\"\\\\nrt])",
            lambda m: chr(int(m[1] or m[2], 16)) if m[1] or m[2] else {"n": "\n", "r": "\r", "t": "\t"}.get(m[3], m[3]),
            text,
        )
