"""Entry point of the simulator: `python -m brokers.simulator`, one port per broker, commands on stdin.

    stdin   kis drop | kiwoom limit 3 | market rest | market move | market pace 10 | market block 005930 5000 | status | resend
    stdout  one JSON line for each, and for each command of a scenario
    stdout  {"kis": {"ws_url": ..., "rest_url": ...}, "kiwoom": {...}, "us": {...}}   first, when all ports listen

Guarantees:
    * The servers listen on 127.0.0.1 only.
    * A port that cannot be had ends the process with exit status 75 and one line.
    * SIGTERM and SIGINT end the process with the ground truth on disk; the end of stdin does not end it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from pathlib import Path

import click

from brokers.simulator import faults, replay
from brokers.simulator.addresses import SERVED_FEEDS, PortError, choose_ports
from brokers.simulator.exchange import backfill
from brokers.simulator.gateway.feed import FeedOptions
from brokers.simulator.kis import encode as kis_encode
from brokers.simulator.kis import websocket as kis_websocket
from brokers.simulator.kiwoom import rest
from brokers.simulator.kiwoom import websocket as kiwoom_websocket
from brokers.simulator.scenarios import SCENARIOS
from brokers.simulator.server import SimulatorConfig, SimulatorServer
from conf.home import Home
from conf.instrument import Instrument, parse_instrument
from conf.process import EXIT_ALREADY_RUNNING
from conf.settings import SettingsError
from conf.text.escape import escape_controls

PR_SET_PDEATHSIG = 1
PORT = click.IntRange(0, 65535)


def feed_options(name: str, latency_ms: float, jitter_ms: float, flush_ms: float, books_per_s: float):
    """The options every feed has, with its own defaults."""

    def add(command):
        for option in (
            click.option(f"--{name}-port", default=0, type=PORT, show_default=True, help="0: as --port says"),
            click.option(f"--{name}-latency-ms", default=latency_ms, show_default=True),
            click.option(f"--{name}-jitter-ms", default=jitter_ms, show_default=True),
            click.option(
                f"--{name}-loss",
                default=0.001,
                type=click.FloatRange(0, 1),
                show_default=True,
                help="share of records never sent",
            ),
            click.option(f"--{name}-flush-ms", default=flush_ms, show_default=True, help="0: at once"),
            click.option(
                f"--{name}-books-per-s", default=books_per_s, show_default=True, help="maximum books per symbol; 0: all"
            ),
        ):
            command = option(command)
        return command

    return add


def build_feed_options(name: str, given: dict[str, float]) -> FeedOptions:
    """One feed's options out of all."""
    return FeedOptions(
        given[f"{name}_latency_ms"] / 1000,
        given[f"{name}_jitter_ms"] / 1000,
        given[f"{name}_loss"],
        given[f"{name}_flush_ms"] / 1000,
        given[f"{name}_books_per_s"],
    )


@click.command()
@click.option(
    "--home",
    default=".",
    envvar="COLLECTOR_HOME",
    type=click.Path(path_type=Path, file_okay=False),
    help="whose universe and clock are played; `collectorctl simulate` makes it if there is none",
)
@click.option(
    "--port",
    default=0,
    type=click.IntRange(0, 65535 - len(SERVED_FEEDS) + 1),
    show_default=True,
    help="of kis; kiwoom and us have the next two; 0: any free ports",
)
@click.option("--seed", default=1, show_default=True)
@click.option("--symbols", default="", help="comma-separated; default: the home's universe")
@click.option(
    "--truth", type=click.Path(path_type=Path, file_okay=False), help="where to write the truth; default: nowhere"
)
@click.option(
    "--books-per-s",
    default=10.0,
    type=click.FloatRange(0, min_open=True),
    show_default=True,
    help="events per real second and symbol",
)
@click.option("--always-open", is_flag=True, help="trade as in the regular session whatever the clock says")
@click.option("--seconds", default=0.0, show_default=True, help="stop by itself; 0: never")
@click.option("--die-with-parent", is_flag=True, help="SIGTERM when the parent process ends")
@click.option(
    "--frames", "frame_files", multiple=True, type=click.Path(path_type=Path), help="replay; takes several files"
)
@click.option(
    "--frames-speed",
    default=0.0,
    type=click.FloatRange(0),
    show_default=True,
    help="captured frames as far apart as received, divided by this; 0: as fast as clients take them",
)
@click.argument("more_frames", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--fault", "fault_specs", multiple=True, help="e.g. kis:drop@12 or kiwoom:silence 5@30 (seconds after start)"
)
@click.option("--scenario", type=click.Choice(sorted(SCENARIOS)), help="play a script of faults by the time of day")
@click.option("--history", default="", help="trades of today so far: 500, or 005930=300000,000660=20; default: none")
@click.option(
    "--earlier-days", default=1, type=click.IntRange(0, 40), show_default=True, help="trading days before today"
)
@click.option("--earlier-trades", default="300", show_default=True, help="trades on each of them; as --history")
@click.option("--blocks", default=0, type=click.IntRange(0), help="volume off the book, so often on each of those days")
@click.option("--kis-calls-per-s", default=18.0, show_default=True, help="REST calls an appkey")
@click.option("--kiwoom-burst", default=5.0, show_default=True, help="REST calls at once, an app key and TR")
@click.option("--kiwoom-calls-per-s", default=4.5, show_default=True, help="REST calls that come back each second")
@click.option("--kiwoom-horizon-days", default=20, show_default=True, help="how far back ka10079 goes")
@click.option("--kiwoom-key-life-s", default=0.0, show_default=True, help="how long a page key is good; 0: for ever")
@click.option("--kiwoom-keys", type=click.Choice(["cursor", "offset"]), default="cursor", show_default=True)
@click.option("--kiwoom-prints-unpaged", is_flag=True, help="ka10084 goes back by its time only, without page keys")
@click.option("--kiwoom-krx-only", is_flag=True, help="answer for KRX whatever venue the code names")
@click.option("--kis-width-profile", type=click.Choice(list(kis_encode.PROFILES)), default="47/63", show_default=True)
@click.option("--kis-registrations", default=41, show_default=True)
@click.option("--kis-ping-idle-s", default=10.0, show_default=True)
@click.option("--kis-ping-grace-s", default=90.0, show_default=True)
@click.option("--kis-slot-release-s", default=0.5, show_default=True, help="after an abnormal end of the session")
@click.option("--kis-cut-on-empty-pong", is_flag=True)
@click.option("--kiwoom-registrations", default=200, show_default=True, help="items a connection, all groups")
@click.option("--kiwoom-group-registrations", default=200, show_default=True)
@click.option("--kiwoom-ping-every-s", default=10.0, show_default=True)
@click.option("--kiwoom-pings-missed", default=3, show_default=True)
@click.option("--kiwoom-login-within-s", default=10.0, show_default=True)
@click.option("--kiwoom-token-life-s", default=86_400.0, show_default=True)
@click.option("--kiwoom-merge", default=0.08, show_default=True, help="probability that two equal trades become one")
@feed_options("us", 60.0, 10.0, 0.0, 0.0)
@feed_options("kiwoom", 40.0, 15.0, 100.0, 4.0)
@feed_options("kis", 15.0, 10.0, 0.0, 0.0)
def main(home: Path, more_frames: tuple[Path, ...], die_with_parent: bool, **given) -> None:
    """Serve KIS (domestic and overseas) and Kiwoom from one seeded market, or from recorded frames (--frames FILE...)."""
    if die_with_parent:
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            raise SystemExit(0)
    try:
        installed = Home(home)
        symbols = [name.strip() for name in given["symbols"].split(",") if name.strip()]
        config = SimulatorConfig(
            home=installed,
            seed=given["seed"],
            instruments=[parse_instrument(name) for name in symbols] or _load_universe(installed),
            truth_dir=given["truth"],
            books_per_s=given["books_per_s"],
            always_open=given["always_open"],
            recording=_load_recording(
                (*given["frame_files"], *more_frames), "us" if installed.settings.us.enabled else "kis"
            ),
            frames_speed=given["frames_speed"],
            faults=[faults.parse_timed(spec) for spec in given["fault_specs"]],
            commands=SCENARIOS[given["scenario"]].commands if given["scenario"] else (),
            ports=choose_ports(given["port"], {feed: given[f"{feed}_port"] for feed in SERVED_FEEDS}),
            kis_widths=kis_encode.PROFILES[given["kis_width_profile"]],
            kis_options=build_feed_options("kis", given),
            kis_rules=kis_websocket.KisRules(
                given["kis_registrations"],
                given["kis_ping_idle_s"],
                given["kis_ping_grace_s"],
                given["kis_slot_release_s"],
                given["kis_cut_on_empty_pong"],
            ),
            kiwoom_merge=given["kiwoom_merge"],
            kiwoom_options=build_feed_options("kiwoom", given),
            kiwoom_rules=kiwoom_websocket.KiwoomRules(
                given["kiwoom_registrations"],
                given["kiwoom_group_registrations"],
                given["kiwoom_ping_every_s"],
                given["kiwoom_pings_missed"],
                given["kiwoom_login_within_s"],
            ),
            kiwoom_token_life_s=given["kiwoom_token_life_s"],
            kis_calls_per_s=given["kis_calls_per_s"],
            us_options=build_feed_options("us", given),
            kiwoom_rest_rules=rest.KiwoomRestRules(
                given["kiwoom_burst"],
                given["kiwoom_calls_per_s"],
                given["kiwoom_horizon_days"],
                given["kiwoom_key_life_s"],
                given["kiwoom_keys"] == "offset",
                not given["kiwoom_prints_unpaged"],
                given["kiwoom_krx_only"],
            ),
            history=backfill.parse_counts(given["history"]),
            earlier_days=given["earlier_days"],
            earlier_trades=backfill.parse_counts(given["earlier_trades"]),
            blocks=given["blocks"],
        )
    except SettingsError as error:
        click.echo(escape_controls(str(error)), err=True)
        raise SystemExit(78) from None
    except (ValueError, replay.ReplayFileError) as error:
        raise click.UsageError(escape_controls(str(error))) from None
    try:
        asyncio.run(SimulatorServer(config).run(given["seconds"]))
    except backfill.BackfillError as error:
        raise click.UsageError(escape_controls(str(error))) from None
    except PortError as error:
        click.echo(escape_controls(str(error)), err=True)
        raise SystemExit(EXIT_ALREADY_RUNNING) from None


def _load_universe(home: Home) -> list[Instrument]:
    """What a home collects, US instruments if it collects any."""
    markets = ("kr", "us") if home.settings.us.enabled else ("kr",)
    return [instrument for market in markets for instrument in home.settings.instruments(market)]


def _load_recording(files: tuple[Path, ...], overseas_feed: str) -> replay.Recording | None:
    return (
        replay.Recording(files, lambda text: click.echo(escape_controls(text), err=True), overseas_feed)
        if files
        else None
    )


if __name__ == "__main__":
    main()
