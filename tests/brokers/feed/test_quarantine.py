"""Frames put aside: whole lines, bounded, and never the death of the process."""

from __future__ import annotations

import base64
import json
import resource
import signal

from brokers.feed.quarantine import Quarantine

RECV_NS = 1_795_136_400 * 10**9  # 2026-11-20 10:00 in Seoul


def test_a_frame_can_be_had_back(tmp_path):
    """Text as text, other bytes as base64; the date is Korea's."""
    quarantine = Quarantine(tmp_path, "kis", 1 << 20)

    assert quarantine.append("가|나".encode(), "reason 1", RECV_NS, 5) == ""
    assert quarantine.append(b"\xff\x00", "reason 2", RECV_NS + 1, 6) == ""

    first, second = map(json.loads, (tmp_path / "date=2026-11-20" / "kis.jsonl").read_text().splitlines())
    assert first == {"recv_ns": RECV_NS, "mono_ns": 5, "broker": "kis", "reason": "reason 1", "text": "가|나"}
    assert base64.b64decode(second["base64"]) == b"\xff\x00"


def test_a_file_grows_to_its_limit_and_no_further(tmp_path):
    """What would go beyond is not kept, and that is said."""
    quarantine = Quarantine(tmp_path, "kis", 300)

    kept = [quarantine.append(b"x" * 50, "r", RECV_NS, 5) for _ in range(5)]

    file = tmp_path / "date=2026-11-20" / "kis.jsonl"
    assert file.stat().st_size <= 300
    assert kept.count("") == len(file.read_text().splitlines()) == 2
    assert "quarantine.max_bytes is 300" in kept[-1]


def test_a_disk_that_takes_no_more_costs_the_frame_only(tmp_path):
    """A write that fails half-way leaves no half line."""
    quarantine = Quarantine(tmp_path, "kis", 1 << 20)
    quarantine.append(b"before", "r", RECV_NS, 5)
    file = tmp_path / "date=2026-11-20" / "kis.jsonl"
    before = file.read_bytes()
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, usual[1]))
    try:
        said = quarantine.append(b"x" * 500, "r", RECV_NS, 5)
        again = quarantine.append(b"x" * 500, "r", RECV_NS, 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, ignored)

    assert "cannot be written" in said
    assert "cannot be written" in again
    assert file.read_bytes() == before
    assert quarantine.append(b"after", "r", RECV_NS, 5) == ""


def test_a_directory_that_cannot_be_made_is_said(tmp_path):
    """A file where the directory should be."""
    (tmp_path / "q").write_text("in the way")

    assert "cannot be written" in Quarantine(tmp_path / "q", "kis", 1 << 20).append(b"x", "r", RECV_NS, 5)
