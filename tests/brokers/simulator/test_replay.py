"""Recorded frames go out as they were: every sample file, byte for byte, once, in order."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from support.vendor_clients import SAMPLES, KisClient, KiwoomClient, start_simulator


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """All sample files."""
    if not SAMPLES.is_dir():
        pytest.skip(f"no recorded frames beside this checkout: {SAMPLES}")
    return sorted([*(SAMPLES / "kis").glob("*.txt"), *(SAMPLES / "kiwoom").glob("*.json")])


def kis_expected(files: list[Path]) -> list[bytes]:
    """This test's own reading of the KIS files: data lines and PINGPONG."""
    expected = []
    for file in files:
        if file.suffix == ".txt":
            for line in file.read_text(encoding="utf-8").splitlines():
                if "_payload_only" in file.name:
                    line = f"0|{file.name.split('_')[0]}|001|{line}"
                if line[0] != "{" or "PINGPONG" in line:
                    expected.append(line.encode())
    return expected


def kiwoom_expected(files: list[Path]) -> list[Any]:
    """This test's own reading of the Kiwoom files: REAL frames."""
    expected = []
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8")) if file.suffix == ".json" else {}
        if "entry" in content:
            expected.append({"data": [content["entry"]], "trnm": "REAL"})
        candidates = [content.get("frame", {})]
        candidates += [one["frame"] for one in content.get("frames", [])]
        candidates += [one["frame"] for one in content.get("exchange", []) if one["dir"] == "<" and "frame" in one]
        expected += [frame for frame in candidates if frame.get("trnm") == "REAL"]
    return expected


def test_every_sample_is_sent_as_on_the_wire(home: Path, files: list[Path]) -> None:
    """Each once and in the order of the files, unknown TRs and instruments too; `resend` sends them again."""
    with start_simulator(home, "--frames", *map(str, files)) as running:
        kis, kiwoom = KisClient(running.ready), KiwoomClient(running.ready)
        kis.subscribe("H0STCNT0", "005930")
        kis.subscribe("H0STASP0", "005930")
        kiwoom.request("REG", ["005930", "373220", "000020"], ["0B", "0D"])
        readers = [threading.Thread(target=client.read_for, args=(30,)) for client in (kis, kiwoom)]
        for reader in readers:
            reader.start()
        done: dict[str, int] = {}
        while set(done) != {"kis", "kiwoom"}:
            done |= running.read_response()["frames_sent"]
        assert running.send_command("resend") == {"ok": True, "resend": True}
        again: dict[str, int] = {}
        while set(again) != {"kis", "kiwoom"}:
            again |= running.read_response()["frames_sent"]
        running.stop()
        for reader in readers:
            reader.join()
        warned = "".join(running.errors)

    kis_got = [frame for frame in kis.frames if b"msg_cd" not in frame]
    kiwoom_got = [frame for frame in kiwoom.frames if b'"REAL"' in frame]
    assert kis_expected(files) * 2 == kis_got
    assert kiwoom_expected(files) * 2 == [json.loads(frame) for frame in kiwoom_got]
    assert all(b'": ' not in frame and b", " not in frame for frame in kiwoom_got)
    assert done == again == {"kis": len(kis_got) // 2, "kiwoom": len(kiwoom_got) // 2}
    assert "control.txt:1: a control message, left out" in warned
    assert "rest_token_ok.json: no WebSocket frames, left out" in warned


def test_frames_wait_for_their_registration(home: Path, tmp_path: Path) -> None:
    """A frame of a registered code leaves at once; one of a foreign code after a settling time, order kept."""
    file = tmp_path / "mine.txt"
    file.write_text("0|H0STCNT0|001|005930^1\n0|H0STCNT0|001|999999^2\n0|H0STCNT0|001|005930^3\n")
    with start_simulator(home, "--frames", str(file)) as running:
        client = KisClient(running.ready)
        client.subscribe("H0STASP0", "005930")
        client.read_for(0.8)
        early = [frame for frame in client.frames if frame[:1] == b"0"]
        client.await_frame(lambda frame: frame.endswith(b"^3"))
        client.close()

    assert early == [b"0|H0STCNT0|001|005930^1"]
    assert [frame[-1:] for frame in client.frames if frame[:1] == b"0"] == [b"1", b"2", b"3"]


@pytest.mark.parametrize(("name", "text"), [("x.json", "no json"), ("x.csv", "1"), ("x.txt", None)])
def test_files_without_frames_are_refused(home: Path, tmp_path: Path, name: str, text: str | None) -> None:
    """Exit 2, and the file is named."""
    file = tmp_path / name
    if text is not None:
        file.write_text(text)

    with pytest.raises(AssertionError, match=name), start_simulator(home, "--frames", str(file)):
        pass
