"""Commands before anything runs: init, check, notify, plan.

Guarantees:
    * None of them starts a process.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from collectorctl.check_messages import MESSAGES
from collectorctl.commands.options import as_json_option
from collectorctl.symbols.resolve import open_resolved
from collectorctl.terminal import echo, echo_json, wrapped_console
from conf.home import Home
from conf.loader import choose_home_language
from conf.market import KR
from conf.process import EXIT_BUG, EXIT_CONFIG
from conf.text.language import Count, Language, Texts
from conf.universe.listing import is_expression


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@click.pass_obj
def init(root: Path, directory: Path | None) -> None:
    """Create a home: collector.toml, supervisord.conf, .env.example. Nothing that exists is touched.

    Example: collectorctl init ~/collector
    """
    from collectorctl.init import create_home

    for path, made in create_home(directory or root):
        echo(f"{'created' if made else 'exists '}  {path}")
    echo("Next: edit collector.toml, copy .env.example to .env (mode 0600), then `collectorctl check`.")


@click.command()
@click.option("--test", "is_test", is_flag=True, help="Send a test message to each service, and one ping.")
@click.pass_obj
def notify(root: Path, is_test: bool) -> None:
    """The services that get notifications, and what waits for each; with --test, whether they take a message (else exit 1).

    Example: collectorctl notify --test
    """
    from collectorctl.notify.channel import DeliveryError, Message, open_channels
    from collectorctl.notify.messages import NOTIFY_MESSAGES
    from collectorctl.notify.outbox import Outbox
    from collectorctl.notify.service import load_ledger
    from collectorctl.verdict import Level
    from conf.text.language import choose_language

    home = Home(root)
    services, ping = open_channels(home)
    outbox = Outbox(load_ledger(home), Level.REPAIRING, 0.0)
    outbox.register(service.fingerprint for service in services)
    text = NOTIFY_MESSAGES["test"][choose_language(home.settings.ui.language)]
    failed = False
    for channel in [*services, *([ping] if ping else [])]:
        if not is_test:
            waiting = f"{len(outbox.pending(channel.fingerprint))} lines wait" if channel.fingerprint else ""
            echo(f"{channel.name:<28} {waiting}".rstrip())
            continue
        try:
            channel.send_now(Message("info", f"collectorctl {home.root.name}", text))
            echo(f"{channel.name:<28} delivered")
        except DeliveryError as error:
            failed = True
            echo(f"{channel.name:<28} failed: {error}")
    if not home.settings.notify.enabled:
        echo("notify.enabled is false: nothing is sent by itself")
    sys.exit(EXIT_BUG if failed else 0)


@click.command()
@click.option("--live", is_flag=True, help="Try keys, wire and machine with the brokers themselves.")
@as_json_option
@click.pass_obj
def check(root: Path, live: bool, as_json: bool) -> None:
    """Check settings, secrets, directories and subscriptions without starting anything; all faults at once (exit 78).

    With --live, in or outside the sessions: credentials, one short session per key with one instrument, fields of its records,
    clock, one REST call of each kind, disk, shared memory; each line is ok, odd or failed (then exit 1), with what to do. A feed
    that runs is judged by its vitals instead, because a key has one session. The report log/check-live.json may be attached to
    a bug report: it has no key, secret or token.

    Example: collectorctl check --live
    """
    from collectorctl.check import check_home

    language: Language = "en" if as_json else choose_home_language(root)
    faults, found = check_home(root, language)
    if live and not faults:
        _check_live(open_resolved(root), as_json)
    elif as_json:
        echo_json(found | {"faults": [fault.describe() for fault in faults]})
    elif not live:
        _print_check(found, language, is_ok=not faults)
    for fault in faults:
        echo(f"collectorctl: {fault.format(language)}", err=True)
    if len(faults) > 1:
        echo(Texts(language, MESSAGES)("faults", count=Count(len(faults))), err=True)
    if faults:
        sys.exit(EXIT_CONFIG)


def _print_check(found: dict[str, Any], language: Language, is_ok: bool) -> None:
    texts = Texts(language, MESSAGES)
    if found["universe"]:
        values = {"expressions": ", ".join(filter(is_expression, found["universe"]["entries"]))}
        echo(texts("universe", count=len(found["universe"]["kr"]), day=found["universe"]["table_day"], **values))
    for feed in found["lines"]:
        echo(texts("feed", **feed))
    echo(texts("machine", machine=found["machine"]))
    if found["ring_directory"]:
        echo(texts("rings", directory=found["ring_directory"]))
    for warning in found["warnings"]:
        echo(texts("warning", text=warning))
    for sentence in found["keys_in_use"]:
        echo(sentence)
    if is_ok:
        echo(texts("ok", fit=found["fit"]))


def _check_live(home: Home, as_json: bool) -> None:
    from collectorctl.live_check.probe import FAILED
    from collectorctl.live_check.run import check_live, format_probe, write_report

    home.create_directories()
    probes = []
    for probe in check_live(home):
        probes.append(probe)
        if not as_json:
            echo(format_probe(probe))
    report = write_report(home, probes)
    if as_json:
        echo_json({"probes": msgspec.to_builtins(probes), "report": str(report)})
    else:
        echo(f"report  {report}")
    if any(probe.outcome == FAILED for probe in probes):
        sys.exit(EXIT_BUG)


@click.command()
@click.option("--rates", is_flag=True, help="Print tick rates of the newest stored day for [shards] instead.")
@as_json_option
@click.pass_obj
def plan(root: Path, rates: bool, as_json: bool) -> None:
    """What will be subscribed where; what has no slot, and the consequence.

    No redundancy: one broker has the book. Ticks by recovery only: none live. Not collected: neither. Symbols whose past
    nobody has fetched yet are named with the command for it.

    Example: collectorctl plan
    """
    from collectorctl.allocation_report import build_allocation_report, print_allocation_report
    from collectorctl.backfill.candidates import find_candidates, format_offer

    if rates:
        _show_rates(open_resolved(root), as_json)
        return
    home = open_resolved(root)
    report = build_allocation_report(home)
    new = find_candidates(home, map(str, home.settings.instruments(KR.name)))
    if as_json:
        echo_json(msgspec.to_builtins(report) | {"without_past": new})
        return
    print_allocation_report(report, wrapped_console())
    if new:
        echo(f"in no certificate of the newest days, {len(new)}: their past is fetched by")
        echo(f"    {format_offer(new)}")


def _show_rates(home: Home, as_json: bool) -> None:
    from collectorctl.tick_rates import format_rate_setting, read_stored_rates

    date, rates = read_stored_rates(home)
    if as_json:
        echo_json({"date": date, "rate": rates})
    elif rates:
        echo(f"# ticks of {date}; for [shards] in collector.toml")
        echo(format_rate_setting(rates))
    else:
        echo("no ticks are stored yet", err=True)
        sys.exit(EXIT_BUG)
