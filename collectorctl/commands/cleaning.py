"""Command that frees room on the disk.

Guarantees:
    * Market data is never removed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from collectorctl.commands.options import as_json_option
from collectorctl.terminal import echo, echo_json
from conf.home import Home
from conf.process import EXIT_BUG


@click.command()
@click.option("--dry-run", is_flag=True, help="List what would go, with its bytes; remove nothing.")
@as_json_option
@click.pass_obj
def clean(root: Path, dry_run: bool, as_json: bool) -> None:
    """Remove old frames, fetched pages and rotated logs, as [retention] says; never market data.

    Every kind (quarantined and captured frames, pages of certified and of other days, rotated logs) is kept for ever by default.
    Journal and certificates stay as well. Scheduled recovery does the same once a day. Exit 1 if something is in use, or cannot
    be removed.

    Example: collectorctl clean --dry-run
    """
    from collectorctl.disk.clean import CleanReport, locate, plan
    from collectorctl.disk.clean import clean as remove

    home = Home(root)
    try:
        planned = plan(home)
        report = CleanReport(planned.removals, []) if dry_run else remove(home)
    except OSError as error:
        echo(f"collectorctl: {error}", err=True)
        sys.exit(EXIT_BUG)
    removals, skipped = report.removed, report.skipped
    if as_json:
        files = [{"kind": one.kind, "path": str(locate(home, one)), "bytes": one.bytes} for one in removals]
        kinds = msgspec.to_builtins(planned.kinds)
        echo_json({"dry_run": dry_run, "removed": files, "kinds": kinds, "skipped": skipped})
    else:
        for one in removals:
            echo(f"{one.kind:<12} {one.bytes:>14,}  {locate(home, one)}")
        for total in planned.kinds:
            over = f"{total.removable_files} of them over {total.days} days"
            kept = f"kept for ever (retention.{total.kind}_days = 0)"
            echo(f"{total.kind:<12} {total.files} files, {total.bytes:,} bytes; {over if total.days else kept}")
        verb = "would be removed" if dry_run else "removed"
        echo(f"{verb}: {len(removals)} files, {sum(one.bytes for one in removals):,} bytes")
        for reason in skipped:
            echo(f"not removed: {reason}", err=True)
    sys.exit(EXIT_BUG if skipped else 0)
