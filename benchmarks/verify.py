"""Memory and time of verifying a heavy day: `python -m benchmarks.verify --rows 5000000 --instruments 50`.

A home whose one day has so many ticks, and as many books, in hourly files as the writer lays them, every instrument PROVEN; the
command as a user runs it. Printed: seconds, and the most memory the process ever had (resident, shared libraries included).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from collectorctl.recover.certificate import store
from collectorctl.recover.download.page_store import recovery_folder
from collectorctl.recover.job import compute_certificate
from collectorctl.recover.store import evidence
from collectorctl.recover.store.evidence import Evidence
from conf.clock import HOUR_NS, MINUTE_NS, kst_midnight_ns
from conf.home import Home
from conf.instrument import Instrument
from writer.schema import PARQUET

DAY = "2026-11-20"
FIRST_HOUR, HOURS, ROW_GROUP_ROWS = 9, 6, 65_536
SHARES, PRICE = 5, 70_000
COMMAND = """
import atexit, re, sys
from pathlib import Path
from collectorctl.cli import main
atexit.register(lambda: print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr))
main()
"""


def write_hour(home: Home, stream: str, hour: int, symbols: list[str], each: int) -> None:
    """`each` rows of every symbol, evenly over the hour, sorted as the writer sorts them."""
    count, schema = len(symbols) * each, PARQUET[f"kr.{stream}"]
    begin_ns = kst_midnight_ns(date.fromisoformat(DAY)) + hour * HOUR_NS
    number = np.tile(np.arange(each), len(symbols))
    times = begin_ns + number * (HOUR_NS // each)
    volume = SHARES * ((hour - FIRST_HOUR) * each + number + 1)
    known = {
        "symbol": pa.array(np.repeat(symbols, each)),
        "venue": pa.array(["KRX"] * count),
        "exch_time": pa.array(times),
        "recv_time": pa.array(times),
        "price": pa.array(np.full(count, PRICE)),
        "size": pa.array(np.full(count, SHARES)),
        "side": pa.array(np.ones(count, np.int8)),
        "cum_volume": pa.array(volume),
        "cum_value": pa.array(volume * PRICE),
        "source": pa.array(["live"] * count),
        "broker": pa.array(["kis"] * count),
        "flags": pa.array(np.zeros(count, np.int64)),
    }
    columns = [
        known[field.name].cast(field.type) if field.name in known else pa.nulls(count, field.type) for field in schema
    ]
    path = home.data / f"kr/{stream}/date={DAY}/hour={hour:02}/part-0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(
        pa.Table.from_arrays(columns, schema=schema), path, row_group_size=ROW_GROUP_ROWS, write_page_checksum=True
    )


def certify_all(home: Home, symbols: list[str], each: int) -> None:
    """Certificates that the files bear out. `each`: rows of an instrument in an hour."""
    begin_ns = kst_midnight_ns(date.fromisoformat(DAY)) + FIRST_HOUR * HOUR_NS
    minutes = np.arange(each) * (HOUR_NS // each) // MINUTE_NS
    volumes = np.tile(np.bincount(minutes, minlength=60) * SHARES, HOURS)
    totals = np.cumsum(volumes)
    bars = [
        [begin_ns + minute * MINUTE_NS, *[PRICE] * 4, volume, total]
        for minute, (volume, total) in enumerate(zip(volumes.tolist(), totals.tolist(), strict=True))
    ]
    found = []
    for symbol in symbols:
        instrument, total = Instrument(symbol, "KRX"), int(totals[-1])
        known = Evidence(volume=total, value_m=total * PRICE // 10**6, bars=bars, session_over=True)
        evidence.save(recovery_folder(home.data, DAY, instrument), known)
        found.append(compute_certificate(home, date.fromisoformat(DAY), instrument))
    store.save(home.data, date.fromisoformat(DAY), found, f"{DAY}T20:10:00+0900")


def main() -> None:
    """Print one line for each number of instruments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000, help="ticks of the day, and books")
    parser.add_argument("--instruments", type=int, nargs="+", default=[50])
    arguments = parser.parse_args()
    print(f"{'ticks':>10}{'instruments':>13}{'MB on disk':>12}{'seconds':>10}{'most MB':>9}")
    for number in arguments.instruments:
        root = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
        symbols = [f"{100_000 + 10 * one}" for one in range(number)]
        each = arguments.rows // number // HOURS
        try:
            (root / "collector.toml").write_text(f'[clock]\nstart = "{DAY}T21:00:00+09:00"\nspeed = 1.0\n')
            home = Home(root)
            for stream in ("tick", "orderbook"):
                for hour in range(FIRST_HOUR, FIRST_HOUR + HOURS):
                    write_hour(home, stream, hour, symbols, each)
            certify_all(home, symbols, each)
            size_mb = sum(path.stat().st_size for path in root.rglob("*.parquet")) / 1e6
            begin = time.monotonic()
            command = [sys.executable, "-c", COMMAND, "--home", str(root), "verify", "--date", DAY]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            took = time.monotonic() - begin
            if done.returncode:
                raise SystemExit(f"verify ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        finally:
            shutil.rmtree(root)
        peak_mb = int(done.stderr.split()[-1]) / 1024
        print(f"{each * HOURS * number:>10,}{number:>13}{size_mb:>12.0f}{took:>10.1f}{peak_mb:>9.0f}", flush=True)


if __name__ == "__main__":
    main()
