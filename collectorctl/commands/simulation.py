"""Commands that need no broker: simulate, demo, replay.

Guarantees:
    * None of them connects to a real broker.
"""

from __future__ import annotations

import shlex
import sys
from datetime import date, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.core import ParameterSource

from collectorctl.commands.options import as_json_option, market_option
from collectorctl.terminal import echo, usage_error
from conf.home import Home
from conf.loader import SETTINGS_FILE
from conf.market import MARKETS, Market
from conf.process import EXIT_ALREADY_RUNNING
from conf.text.escape import escape_controls

if TYPE_CHECKING:
    from collectorctl.reader.stored import Span
    from conf.instrument import Instrument
    from conf.settings import Zmq as ZmqSettings

MIN_SPEED, MAX_SPEED = 0.1, 1000
NO_PYZMQ = "pyzmq is not installed: .venv/bin/pip install -e '.[net]' in the clone"


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def simulate(ctx: click.Context, options: tuple[str, ...]) -> None:
    """Serve KIS and Kiwoom from one seeded market, or recorded frames; commands on stdin cause faults.

    With --home NEW a directory that is no home becomes one: its addresses are those of the simulator, its keys are invented, and
    it has the same ports the next time. A home that exists is not changed; one without addresses of this host needs those that
    are printed. --port BASE fixes the ports; one that is taken is exit status 75. `collectorctl simulate --help` lists all options.

    Example: collectorctl simulate --home ~/try --port 9440
    """
    from brokers.simulator.__main__ import main as simulator

    root: Path = ctx.obj
    root_source = ctx.find_root().get_parameter_source("root")
    named = ["--home", str(root)] if root_source is ParameterSource.COMMANDLINE else []
    with simulator.make_context("simulate", [*named, *options], parent=ctx.parent) as served:
        is_named = served.get_parameter_source("home") is ParameterSource.COMMANDLINE
        point_home_at_simulator(served.params, is_named)
        simulator.invoke(served)


def point_home_at_simulator(given: dict[str, Any], is_named: bool) -> None:
    """Make the home if it was named and there is none; in `given`, the ports become those that the home names."""
    from brokers.simulator.addresses import SERVED_FEEDS, PortError, build_addresses, choose_ports, find_free_ports
    from collectorctl.simulated_home import create_simulated_home, find_simulated_ports

    home: Path = given["home"]
    ports = choose_ports(given["port"], {feed: given[f"{feed}_port"] for feed in SERVED_FEEDS})
    if (home / SETTINGS_FILE).exists():
        known = find_simulated_ports(Home(home).settings)
        ports = {feed: port or known.get(feed, 0) for feed, port in ports.items()}
        if others := [feed for feed in known if ports[feed] != known[feed]]:
            names = ", ".join(f"{feed}: {known[feed]}" for feed in others)
            echo(f"{home / SETTINGS_FILE}: names other ports than these ({names}): change them there", err=True)
    elif is_named:
        try:
            ports = find_free_ports(ports)
        except PortError as error:
            echo(f"collectorctl: {error}", err=True)
            sys.exit(EXIT_ALREADY_RUNNING)
        for path, made in create_simulated_home(home, build_addresses(ports)):
            echo(f"{'created' if made else 'exists '}  {path}", err=True)
        echo(f"Next, in another terminal: collectorctl --home {shlex.quote(str(home))} start", err=True)
        echo("Outside the sessions nothing trades, unless with --always-open.", err=True)
    given |= {f"{feed}_port": port for feed, port in ports.items()}


@click.command()
@click.option("--date", "day_text", required=True, help="The day: 2026-11-20, 20261120, yesterday.")
@market_option
@click.option(
    "--symbols", default="", help="Some instruments, as in the settings: 005930,000660_NX [default: all of [universe]]."
)
@click.option(
    "--from",
    "begin",
    default="00:00",
    show_default=True,
    help="From this time of receipt, HH:MM or HH:MM:SS, the exchange's.",
)
@click.option("--to", "end", default="", help="To this time [default: the end of the day].")
@click.option("--speed", default="1", show_default=True, help="How many times as fast, 0.1 to 1000, or max.")
@click.option(
    "--clients",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Play while so many have registered something. A home that collects has two.",
)
@click.option("--each-feed", is_flag=True, help="To KIS's clients what KIS delivered, to Kiwoom's what Kiwoom did.")
@click.option("--kis-port", type=click.IntRange(1, 65535), help="[default: relay.kis_port]")
@click.option("--kiwoom-port", type=click.IntRange(1, 65535), help="[default: relay.kiwoom_port]")
@click.option("--zmq", "is_zmq", is_flag=True, help="Over ZeroMQ, as the program zmq publishes (docs/zeromq.md).")
@click.option("--zmq-port", type=click.IntRange(1, 65535), help="[default: zmq.port]")
@click.option("--resend-port", type=click.IntRange(1, 65535), help="[default: zmq.resend_port]")
@click.pass_obj
def replay(
    root: Path,
    day_text: str,
    market: str,
    symbols: str,
    begin: str,
    end: str,
    speed: str,
    clients: int,
    each_feed: bool,
    kis_port: int | None,
    kiwoom_port: int | None,
    is_zmq: bool,
    zmq_port: int | None,
    resend_port: int | None,
) -> None:
    """Play a stored day as KIS and Kiwoom would send it, a US day as KIS would, to clients that registered it (docs/relay.md).

    It begins when a client has registered all that it wants, waits while nobody has any, and ends when all is sent. What was not
    received that day is not played, and counted. Exit 1: nothing is stored, or a file is unreadable. 75: a port is taken.

    Example: collectorctl replay --date 2026-11-20 --symbols 005930 --from 09:00 --to 09:30 --speed 10
    """
    from loguru import logger

    from collectorctl.reader.stored import Span
    from collectorctl.recover.horizon import parse_day
    from collectorctl.relay.gateway import PortTaken
    from collectorctl.relay.replay import ReplayError, run_replay
    from conf.instrument import parse_instrument
    from writer.publish.verified_file import PartitionWriteError

    home, played = Home(root), MARKETS[market]
    try:
        day = parse_day(day_text, home.load_clock().now_ns(), played)
        end_ns = parse_instant_of(day, end, played) if end else played.day_bounds_ns(day)[1]
        span = Span(day, parse_instant_of(day, begin, played), end_ns)
        named = [parse_instrument(one.strip()) for one in symbols.split(",")] if symbols else []
        instruments = named or home.settings.instruments(market)
    except ValueError as error:
        raise usage_error(str(error)) from None
    factor = parse_speed(speed)
    if span.begin_ns >= span.end_ns:
        raise usage_error("--to is not after --from")
    if foreign := [str(one) for one in instruments if one.market is not played]:
        raise usage_error(f"{', '.join(foreign)}: not of the market {market}: name it with --market")
    if is_zmq and each_feed:
        raise usage_error("--each-feed is for the vendors' forms, not for --zmq")
    logger.remove()
    logger.add(lambda line: echo(line.rstrip("\n"), err=True), format="{message}")
    try:
        if is_zmq:
            published = home.settings.zmq
            ports = {"port": zmq_port or published.port, "resend_port": resend_port or published.resend_port}
            _replay_over_zmq(
                home, instruments, span, factor, msgspec.structs.replace(published, **ports), played, clients
            )
            return
        table = home.settings.relay
        ports = {"kis_port": kis_port or table.kis_port, "kiwoom_port": kiwoom_port or table.kiwoom_port}
        settings = msgspec.structs.replace(table, **ports)
        run_replay(home, instruments, span, factor, settings, echo, played, clients, each_feed)
    except (ReplayError, PartitionWriteError) as error:
        raise click.ClickException(escape_controls(str(error))) from None
    except PortTaken as error:
        echo(f"collectorctl: {error}", err=True)
        sys.exit(EXIT_ALREADY_RUNNING)


def _replay_over_zmq(
    home: Home,
    instruments: list[Instrument],
    span: Span,
    factor: float,
    settings: ZmqSettings,
    market: Market,
    clients: int,
) -> None:
    """ClickException; SystemExit if a port is taken."""
    from collectorctl.reader.replay import Replay

    try:
        from collectorctl.zmq.publisher import PortTaken
        from collectorctl.zmq.replay import run_replay
    except ImportError:
        raise click.ClickException(escape_controls(NO_PYZMQ)) from None
    begin, end = (market.to_local(at_ns).time() for at_ns in (span.begin_ns, span.end_ns))
    is_to_end = span.end_ns == market.day_bounds_ns(span.day)[1]
    replay = Replay(
        home,
        span.day,
        [str(one) for one in instruments],
        begin=begin,
        end=None if is_to_end else end,
        speed=factor or "max",
        market=market.name,
    )
    if replay.is_empty:
        raise click.ClickException(escape_controls(f"{span.day}: no books and ticks are stored of that day"))
    try:
        run_replay(replay, settings, echo, span.begin_ns, clients)
    except PortTaken as error:
        echo(f"collectorctl: {error}", err=True)
        sys.exit(EXIT_ALREADY_RUNNING)


def parse_speed(text: str) -> float:
    """How many times as fast; 0 for "max". UsageError."""
    try:
        factor = 0.0 if text == "max" else float(text)
    except ValueError:
        factor = -1.0
    if text != "max" and not MIN_SPEED <= factor <= MAX_SPEED:
        raise usage_error(f"--speed {text}: write {MIN_SPEED} to {MAX_SPEED}, or max")
    return factor


def parse_instant_of(day: date, text: str, market: Market) -> int:
    """A time of the exchange's day, ns. ValueError."""
    try:
        return market.to_instant_ns(day, time.fromisoformat(text))
    except ValueError:
        raise ValueError(f"{text!r} is no time of day: write HH:MM or HH:MM:SS") from None


@click.command()
@click.option("--seconds", default=60.0, show_default=True, help="How long the market's day lasts, real seconds.")
@click.option(
    "--home", "where", type=click.Path(path_type=Path), help="Use and keep this home [default: a temporary one]."
)
@click.option("--seed", default=1, show_default=True, help="The market's seed.")
@click.option(
    "--scenario", default="morning", show_default=True, help="Which faults occur; `--scenario list` lists them."
)
@as_json_option
def demo(seconds: float, where: Path | None, seed: int, scenario: str, as_json: bool) -> None:
    """Rehearse a short day without keys or network, recover what it missed, then compare the files with the simulator's truth.

    By default a collector is killed for ten minutes of market time; the day's certificates must go from INCOMPLETE to PROVEN.

    Example: collectorctl demo --seconds 60 --scenario kis-dies-at-open
    """
    from collectorctl.demo import DEMO_SCENARIOS, run_demo

    if scenario == "list":
        for name, entry in DEMO_SCENARIOS.items():
            echo(f"{name:<18}{entry.description}")
        return
    if scenario not in DEMO_SCENARIOS:
        raise usage_error(f"--scenario {scenario}: there is no such one: {', '.join(DEMO_SCENARIOS)}")
    sys.exit(run_demo(where, seconds, seed, scenario, as_json))
