"""Raw frames as received: no wait for the disk, no secret, no hole that the file does not name, readable after a kill."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from support.process_tree import SECRETS, wait_until
from support.small_disk import fill_disk, small_disk

from brokers.feed.capture import FILES, MAX_WAITING_BYTES, CaptureFiles, FrameCapture
from brokers.simulator.captured import CapturedFrame, read_captured
from conf.home import Home
from conf.text.secret_mask import remember_secrets
from ringbuf.vitals import Vitals

NO_LIMIT = 1 << 30
RECV_NS = 1_795_136_400 * 10**9  # 2026-11-20 10:00 in Seoul


def make_capture(root: Path, settings: str = "") -> tuple[FrameCapture, Home, Vitals]:
    """A capture that is switched on, without its thread: the test looks and writes for it (`poll`)."""
    (root / "collector.toml").write_text(f"[capture]\nmin_free_bytes = 0\n{settings}")
    home = Home(root)
    home.create_directories()
    vitals = Vitals.create(home.vitals_path("kis"), "kis")
    switch(home)
    capture = FrameCapture(home, "kis", vitals, home.load_clock())
    capture.poll()
    return capture, home, vitals


def switch(home: Home, on: bool = True, feed: str = "kis") -> None:
    """As `collectorctl capture` does it."""
    path = home.capture_switch_path(feed)
    path.parent.mkdir(exist_ok=True)
    path.touch() if on else path.unlink()


def read_all(home: Home, feed: str = "kis", warnings: list[str] | None = None) -> list[CapturedFrame]:
    """All frames of all files, in their order."""
    warned = [] if warnings is None else warnings
    files = sorted(home.capture_directory(feed).glob("*"))
    return [frame for file in files for frame in read_captured(file, warned.append)]


def test_what_is_received_while_it_is_on_is_in_the_files_byte_for_byte(tmp_path: Path) -> None:
    """Text, bytes that are none, controls; with their times; nothing before or after."""
    capture, home, vitals = make_capture(tmp_path)
    frames = ["0|T|001|가^나".encode(), b"\xff\x00\xfe", b'{"a":"\\u001b[2J"}', "\x1b\u202e".encode(), b""]
    now_ns = time.monotonic_ns()

    capture.offer([(frame, now_ns + at) for at, frame in enumerate(frames)], 1)
    switch(home, on=False)
    capture.poll()
    capture.offer([(b"later", now_ns)], 1)
    capture.poll()

    found = read_all(home)
    assert [frame.payload for frame in found] == frames
    assert {frame.feed for frame in found} == {"kis"}
    clock = home.load_clock()
    assert [frame.recv_ns - found[0].recv_ns for frame in found] == list(range(len(frames)))
    assert abs(found[0].recv_ns - clock.to_calendar_ns(now_ns)) < 1_000_000_000
    assert (vitals.get("capture_frames"), vitals.get("capture_dropped")) == (len(frames), 0)
    assert vitals.get("capture_bytes") == sum(path.stat().st_size for path in home.capture_directory("kis").iterdir())


def test_a_disk_that_never_answers_costs_frames_that_are_counted_and_never_a_wait(tmp_path: Path) -> None:
    """The thread does not come back: what exceeds the queue is dropped; when it comes back, the file says where."""
    capture, home, vitals = make_capture(tmp_path)
    frame = random.Random(1).randbytes(1 << 16)
    count = MAX_WAITING_BYTES // len(frame)

    begin = time.monotonic()
    for _ in range(count + 100):
        capture.offer([(frame, time.monotonic_ns())], 1)
    assert time.monotonic() - begin < 5
    assert vitals.get("capture_dropped") == 100

    capture.poll()
    capture.offer([(b"again", time.monotonic_ns())], 1)
    capture.poll()
    warnings: list[str] = []
    found = read_all(home, warnings=warnings)
    assert [frame.payload for frame in found][-1] == b"again"
    assert len(found) == count + 1 == vitals.get("capture_frames")
    assert ["100 frames are missing here" in text for text in warnings] == [True]


def test_a_full_disk_costs_frames_that_are_counted_and_room_resumes_it(tmp_path: Path) -> None:
    """Whole blocks only; the first block after it tells how many frames are missing."""
    with small_disk(tmp_path / "disk", 4) as disk:
        capture, home, vitals = make_capture(tmp_path, f'[paths]\ndata = "{disk}"\n')
        capture.offer([(b"before", time.monotonic_ns())], 1)
        capture.poll()
        ballast = fill_disk(disk)
        noise = random.Random(2)
        for _ in range(5):
            capture.offer([(noise.randbytes(9000), time.monotonic_ns()) for _ in range(3)], 1)
            capture.poll()
        assert vitals.get("capture_dropped") == 15
        ballast.unlink()
        capture.offer([(b"after", time.monotonic_ns())], 1)
        capture.poll()

        warnings: list[str] = []
        assert [frame.payload for frame in read_all(home, warnings=warnings)] == [b"before", b"after"]
        assert len(warnings) == 1 and "15 frames are missing here" in warnings[0]
        assert (vitals.get("capture_frames"), vitals.get("capture_dropped")) == (2, 15)


def test_the_journals_room_is_left_alone(tmp_path: Path) -> None:
    """Below capture.min_free_bytes nothing is written, and the reason names the setting."""
    assert "capture.min_free_bytes" in CaptureFiles(tmp_path / "a", NO_LIMIT, 1 << 60).append(b"x", RECV_NS)
    assert list((tmp_path / "a").iterdir()) == []


def test_files_are_bounded_together_and_the_oldest_go_first(tmp_path: Path) -> None:
    """At every instant; a file that somebody removed is not written into any more."""
    most = FILES * 1000
    files = CaptureFiles(tmp_path / "kis", most, 0)
    sizes = random.Random(3)
    for number in range(400):
        assert files.append(bytes(sizes.randrange(1, 1001)), RECV_NS + number) == ""
        assert sum(path.stat().st_size for path in (tmp_path / "kis").iterdir()) <= most
    names = sorted(path.name for path in (tmp_path / "kis").iterdir())
    assert len(names) > FILES // 2
    assert names[0] > "2026-11-20T10-00-00.000000100"

    for path in (tmp_path / "kis").iterdir():
        path.unlink()
    assert files.append(b"x", RECV_NS + 999) == ""
    assert [path.name for path in (tmp_path / "kis").iterdir()] == ["2026-11-20T10-00-00.000000999.jsonl.gz"]
    assert "capture.max_bytes" in files.append(bytes(1001), RECV_NS)


def test_no_key_secret_or_token_is_captured_however_it_was_echoed(tmp_path: Path) -> None:
    """Those of this process wherever they are; those of a session that a server hands out by their names."""
    capture, home, _ = make_capture(tmp_path)
    secret = "PSabcdEFGH1234567890zyxw"
    remember_secrets(secret)
    frames = [
        f"0|T|001|005930^{secret}^1",
        json.dumps({"header": {"tr_key": "0074K0"}, "body": {"output": {"iv": "96de248bda413d58", "key": "n" * 32}}}),
        '{"trnm":"LOGIN","access_token":"some\\"Other.Token","appkey": "AnotherKey","grant":"visible"}',
        f'{{"m":"{secret.encode().hex()}"}}',
    ]
    capture.offer([(text.encode(), 1) for text in frames], 1)
    capture.poll()

    found = b"\n".join(frame.payload for frame in read_all(home)).decode()
    for hidden in (secret, "96de248b", "nnnnnnnn", "Other", "AnotherKey", secret.encode().hex()[:20]):
        assert hidden not in found
    for kept in ("005930^***^1", '"tr_key": "0074K0"', '"grant":"visible"', '"iv": "***"'):
        assert kept in found


@pytest.mark.parametrize("kind", ["kis", "kiwoom"])
def test_a_killed_collector_leaves_a_capture_that_can_be_read(run, kind: str) -> None:
    """Switched on and off while it runs; a kill costs the last second; what we sent is not in it, no secret neither."""
    vendor, process = run(kind, "[capture]\nmin_free_bytes = 0\n")
    process.until_state("streaming")
    home = process.home
    vendor.send("before")
    switch(home, feed=kind)
    wait_until("a first block", lambda: vendor.send("first") or process.vitals().counters["capture_frames"])
    switch(home, on=False, feed=kind)
    wait_until("the switch is seen", lambda: "no longer captured" in process.log())
    off = process.vitals().counters["capture_frames"]
    vendor.send("while off")
    wait_until("it is received", lambda: process.vitals().counters["quarantined"] >= off + 1)
    switch(home, feed=kind)
    wait_until("it is on again", lambda: process.log().count("frames are captured") == 2)
    for number in range(50):
        vendor.send(f"number {number}")
    wait_until("all are in a block", lambda: process.vitals().counters["capture_frames"] >= off + 50)
    for secret in SECRETS.values():
        vendor.send(f"echo {secret}")
    os.kill(process.popen.pid, signal.SIGKILL)
    process.popen.wait()

    payloads = [frame.payload.decode() for frame in read_all(home, kind)]
    assert "before" not in payloads
    assert "while off" not in payloads
    assert [text for text in payloads if text.startswith("number")] == [f"number {number}" for number in range(50)]
    whole = "".join(payloads)
    assert "approval-" not in whole and "token-" not in whole
    assert not any(secret in whole for secret in SECRETS.values())


def test_a_block_that_was_cut_costs_itself_only(tmp_path: Path) -> None:
    """At whichever byte; the rest of the file is read, and what is missing is reported."""
    capture, home, _ = make_capture(tmp_path)
    for number in range(3):
        capture.offer([(b"%d" % number, 1)], 1)
        capture.poll()
    (file,) = home.capture_directory("kis").iterdir()
    whole = file.read_bytes()
    blocks = whole.split(b"\x1f\x8b")
    last = len(whole) - len(blocks[-1]) - 2

    for end in range(last + 1, len(whole)):
        file.write_bytes(whole[:end])
        warnings: list[str] = []
        assert [frame.payload for frame in read_captured(file, warnings.append)] == [b"0", b"1"]
        assert len(warnings) == 1 and str(file) in warnings[0]


def test_a_thread_that_fails_keeps_neither_feed_nor_capture_from_going_on(tmp_path: Path) -> None:
    """A file where the directory should be; then it is gone."""
    capture, home, vitals = make_capture(tmp_path)
    (home.data / "capture").write_text("in the way")
    capture.start()
    capture.offer([(b"lost", 1)], 1)
    wait_until("it is counted", lambda: vitals.get("capture_dropped") == 1)
    (home.data / "capture").unlink()
    capture.offer([(b"kept", 1)], 1)
    wait_until("it is kept", lambda: vitals.get("capture_frames") == 1)
    capture.close()

    assert [frame.payload for frame in read_all(home)] == [b"kept"]
