"""Command for the capture of raw frames.

Guarantees:
    * No process is started, stopped or restarted.
"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from collectorctl.commands.options import as_json_option
from collectorctl.terminal import echo, echo_json, usage_error
from conf.home import Home


@click.command()
@click.argument("action", type=click.Choice(["show", "on", "off"]), default="show")
@click.argument("feeds", nargs=-1)
@as_json_option
@click.pass_obj
def capture(root: Path, action: str, feeds: tuple[str, ...], as_json: bool) -> None:
    """Switch the capture of raw frames on or off, without a restart, or show what was captured.

    FEEDS: kis, kiwoom, us; without one, all that are enabled. The files in data/capture/FEED have each frame as received, with its
    receive time, and no key, secret or token; `collectorctl simulate --frames FILE...` plays them.

    Example: collectorctl capture on kis
    """
    from collectorctl.capture import list_captured, read_capture, switch_capture
    from collectorctl.supervision.status import enabled_feeds
    from collectorctl.supervision.status_table import format_capture

    home = Home(root)
    enabled = enabled_feeds(home.settings)
    if unknown := set(feeds) - set(enabled):
        raise usage_error(f"{', '.join(sorted(unknown))}: no such feed is enabled: {', '.join(enabled)}")
    chosen = list(feeds) or enabled
    if action != "show":
        home.create_directories()
        for feed in chosen:
            switch_capture(home, feed, action == "on")
    found = read_capture(home, chosen)
    if as_json:
        files = {feed: [str(path) for path in list_captured(home, feed)] for feed in chosen}
        echo_json([{**msgspec.to_builtins(one), "paths": files[one.feed]} for one in found])
        return
    for one in found:
        echo(format_capture(one))
        echo(f"        {home.capture_directory(one.feed)}")
    if not found:
        echo("nothing is captured and nothing was")
