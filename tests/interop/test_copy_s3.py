"""Copies of certified days in a store that speaks S3, on loopback: killed, resumed, verified from nothing but the copy."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from support.certified_day import make_certified_days, run
from support.copied_day import TICKS, copy, run_killed_copy
from support.process_tree import BIN
from support.stored_day import DAY

MISSING = "s3fs or moto[server] is missing: the extra [s3], and moto[server] beside it"
pytest.importorskip("s3fs", reason=MISSING)
pytest.importorskip("flask_cors", reason=MISSING)
moto = pytest.importorskip("moto.server", reason=MISSING)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored day, every instrument PROVEN."""
    return make_certified_days(tmp_path_factory.mktemp("home"), [DAY])


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of one's own."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "invented",
        "AWS_SECRET_ACCESS_KEY": "invented",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    bucket = f"archive-{uuid4().hex[:8]}"
    fsspec.filesystem("s3").mkdir(bucket)
    yield f"s3://{bucket}/days"
    server.stop()
    fsspec.filesystem("s3").clear_instance_cache()


def test_a_copy_in_s3_that_was_killed_is_resumed_and_found_whole_and_a_changed_byte_is_found(
    certified: Path, url: str
) -> None:
    ended = run_killed_copy(certified, url)
    fsspec.filesystem("s3").invalidate_cache()
    left = [path.rpartition("/")[2] for path in fsspec.filesystem("s3").find(f"{url}/manifest")]
    incomplete = copy(certified, url, "--check")
    resumed, again, checked = copy(certified, url), copy(certified, url), copy(certified, url, "--check")

    assert (ended, left) == (-signal.SIGKILL, [f"{DAY}.incomplete.json"])
    assert (incomplete[0], "incomplete" in incomplete[1]["note"]) == (1, True)
    sent = len(resumed[1]["result"]["files"]) - 2
    assert (resumed[0], resumed[1]["outcome"], resumed[1]["note"].endswith(f"{sent} sent")) == (0, "copied", True)
    assert (again[1]["outcome"], again[1]["note"].endswith("0 sent")) == ("unchanged", True)
    assert (checked[0], checked[1]["outcome"]) == (0, "as copied")

    store = fsspec.filesystem("s3")
    content = bytearray(store.cat_file(f"{url}/{TICKS}"))
    content[100] ^= 1
    store.pipe_file(f"{url}/{TICKS}", bytes(content))
    status, found = copy(certified, url, "--check")
    assert (status, f"{TICKS}: missing or changed" in found["note"]) == (1, True)


def test_a_host_that_has_only_the_copy_in_s3_verifies_the_day(certified: Path, url: str, tmp_path: Path) -> None:
    """By sha256sum and by the certificates, after the home is gone, with the same bytes as at home."""
    home = Path(shutil.copytree(certified, tmp_path / "home"))
    assert copy(home, url)[0] == 0
    at_home = run(home, "verify", "--date", DAY, "--json")
    shutil.rmtree(home)

    fsspec.filesystem("s3").get(f"{url}/", f"{tmp_path}/host/", recursive=True)
    by_hash = subprocess.run(
        ["sha256sum", "--strict", "--quiet", "-c", f"manifest/kr/{DAY}.sha256"],
        cwd=tmp_path / "host", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    verified = subprocess.run(
        [BIN / "collectorctl", "--home", str(tmp_path / "host"), "verify", "--date", DAY, "--json"],
        env=environment, capture_output=True, check=False, timeout=60,
    )  # fmt: skip

    assert (by_hash.returncode, by_hash.stdout) == (0, "")
    assert (verified.returncode, verified.stdout) == (0, at_home.stdout_bytes), verified.stderr
