"""Demo environment: a home with a simulated clock, and the simulator process its brokers connect to.

    create a home ─> simulator (a process of its own) ─addresses─> collector.toml

Guarantees:
    * No key is needed, and no network beyond 127.0.0.1.
    * The simulator ends with the demo.
"""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Sequence
from datetime import date, datetime
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import msgspec

from collectorctl.init import create_home
from collectorctl.simulated_home import SECRET_NAMES, insert_addresses
from conf.clock import KST, SECOND_NS, to_kst

SYMBOLS = ["005930", "000660", "373220", "207940", "005380", "035420", "000270", "068270", "105560", "051910"]
SYMBOLS += ["006400", "055550", "012330", "028260", "066570", "003550", "032830", "009150", "0074K0", "015760"]

DAY = date(2026, 11, 20)
"""A Friday."""
MARKET_OPEN, MARKET_CLOSE = "08:30:00", "12:00:00"
"""The market's day, whatever its real length: it begins with the opening auction, and 09:00, 10:00 and 11:00 pass."""


class MarketDay(NamedTuple):
    """The day of a demo, in Korean time; `regular`, `auctions`: KRX's, opening and closing. `us`: collected beside it."""

    day: date
    opens: str
    closes: str
    regular: str
    auctions: tuple[str, str]
    us: tuple[str, ...] = ()
    us_settings: str = ""

    def parse(self, text: str) -> int:
        """An instant of the day, "HH:MM:SS" Korean time, ns since 1970 UTC."""
        return round(datetime.fromisoformat(f"{self.day}T{text}").replace(tzinfo=KST).timestamp()) * SECOND_NS


FRIDAY = MarketDay(DAY, MARKET_OPEN, MARKET_CLOSE, "09:00-11:50", ("08:30-09:00", f"11:50-{MARKET_CLOSE[:5]}"))
CLOCK_CHANGE = MarketDay(
    date(2026, 11, 1),
    "13:30:00",
    "16:30:00",
    "14:00-16:20",
    ("13:30-14:00", "16:20-16:30"),
    ("NAS.AAPL", "NYS.BRK/B", "AMS.SPY"),
    """[calendar]
# a Sunday: New York sets its clocks back at two o'clock, in the middle of this session
open = ["2026-11-01"]
us_open = ["2026-11-01"]
[sessions.US]
pre_market = ""
regular = "00:30-02:30"
after_market = ""
[us]
enabled = true
subscribe_spacing_ms = 20
""",
)
"""Three hours, from half past midnight to half past two in New York: one o'clock comes twice, at 14:00 and 15:00 in Korea."""

CALLS_PER_S = 20.0
REST_RATE_OPTIONS = ("--kiwoom-burst", "20", "--kiwoom-calls-per-s", "40")
"""Calls of a recovery, and what the simulator bears. The real Kiwoom bears four or five a second; a demo need not wait."""


class EnvironmentSetupError(Exception):
    """The demo cannot start; the message has the reason."""


def create_demo_home(
    root: Path,
    seconds: float,
    universe: Sequence[str] = SYMBOLS,
    real_time: bool = False,
    market_day: MarketDay = FRIDAY,
) -> None:
    """Make `root` a home whose market's day lasts `seconds` real seconds; the brokers' addresses are still missing.

    `real_time`: of the day only the last `seconds` come, without auctions.
    """
    create_home(root)
    close_ns = market_day.parse(market_day.closes)
    open_ns = close_ns - round(seconds) * SECOND_NS if real_time else market_day.parse(market_day.opens)
    speed = 1.0 if real_time else (close_ns - open_ns) / SECOND_NS / seconds
    regular, auctions = ("09:00-12:00", ("", "")) if real_time else (market_day.regular, market_day.auctions)
    (root / "collector.toml").write_text(
        f"""# made by `collectorctl demo`
[universe]
kr = {msgspec.json.encode(universe).decode()}
us = {msgspec.json.encode(market_day.us).decode()}
[clock]
start = "{to_kst(open_ns):%Y-%m-%dT%H:%M:%S}+09:00"
speed = {speed:.3f}
[sessions.KRX]
# a short day, so that it can end and be proven
opening_auction = "{auctions[0]}"
regular = "{regular}"
closing_auction = "{auctions[1]}"
closing_price = ""
after_market = ""
[sessions.NXT]
regular = "09:00-11:50"
after_market = ""
[sessions.UN]
regular = "09:00-11:50"
closing_auction = "11:50-{MARKET_CLOSE[:5]}"
after_market = ""
[writer]
# an hour lasts {3600 / speed:.0f} real seconds here
grace_s = 6.0
[health]
# and the time over which a feed is judged is {5 * speed / 60:.0f} minutes of the market
window_s = 5.0
[ring]
# some minutes of this market; the defaults are made for a real one's open
orderbook_capacity = 32768
tick_capacity = 32768
[kis]
subscribe_spacing_ms = 20
[feed]
backoff_max_s = 2.0
[gapfill]
# minutes of this market have no more trades than seconds of a real one: all would be filled, and nothing left to recover
enabled = false
[recover]
calls_per_s_first = {CALLS_PER_S}
max_calls_per_s = {CALLS_PER_S}
# the rehearsal recovers when it has stopped
automatic = false
{market_day.us_settings}"""
    )
    secrets = root / ".env"
    secrets.touch(mode=0o600)
    secrets.write_text("".join(f"{name}=demo-{name.lower()}\n" for name in SECRET_NAMES))


class SimulatorProcess:
    """The simulator as a process, steered by lines."""

    def __init__(self, root: Path, truth: Path, *options: str) -> None:
        """Start it in the home `root` and wait until it serves. EnvironmentSetupError when it does not."""
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "brokers.simulator",
                "--home",
                str(root),
                "--truth",
                str(truth),
                "--die-with-parent",
                *options,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(root / "simulator.err").open("wb"),
            cwd=root,
        )
        self._pending = b""
        try:
            self.addresses = self.read_response(120)
        except EnvironmentSetupError as error:
            output = (root / "simulator.err").read_text(errors="replace").strip()[-800:]
            self.close()
            raise EnvironmentSetupError(f"the simulator does not start: {output or error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_response(self, timeout_s: float) -> dict[str, Any]:
        """The next response. EnvironmentSetupError after `timeout_s` seconds, or when the process has exited."""
        pipe = cast(BufferedReader, self.process.stdout)  # opened with PIPE
        while b"\n" not in self._pending:
            poll = select.poll()  # select() refuses a descriptor above 1023, which a process with many of them has
            poll.register(pipe, select.POLLIN)
            if not poll.poll(timeout_s * 1000):
                raise EnvironmentSetupError(f"the simulator did not answer for {timeout_s} s")
            chunk = pipe.read1()
            if not chunk:
                raise EnvironmentSetupError("the simulator has exited")
            self._pending += chunk
        first, _, self._pending = self._pending.partition(b"\n")
        return msgspec.json.decode(first)

    def send_command(self, command: str) -> dict[str, Any]:
        """Steer it: one command, its answer."""
        self.process.stdin.write(command.encode() + b"\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        return self.read_response(10)

    def close(self) -> None:
        """End it and wait until its truth is on disk."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def set_addresses(root: Path, addresses: dict[str, dict[str, str]]) -> None:
    """Write the simulator's addresses into the home's settings."""
    settings = root / "collector.toml"
    settings.write_text(insert_addresses(settings.read_text(), addresses))
