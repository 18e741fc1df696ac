"""The shape of the code, read from its syntax trees: who imports whom, what stays pure, where vendor words end.

{conf, ringbuf}  <-  {brokers, writer}  <-  collectorctl
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "conf": {"conf"},
    "ringbuf": {"ringbuf"},
    "brokers": {"brokers", "conf", "ringbuf"},
    "writer": {"writer", "conf", "ringbuf"},
    "collectorctl": {"collectorctl", "brokers", "writer", "conf", "ringbuf"},
}
VENDORS = ("kis", "kiwoom", "us")

PURE = (
    "brokers/*/decode.py",
    "brokers/allocation/allocate.py",
    "brokers/allocation/failover.py",
    "brokers/decoded.py",
    "brokers/feed/halts.py",
    "brokers/feed/liveness.py",
    "brokers/kis/frame.py",
    "brokers/subscription.py",
    "brokers/transport/frame_parser.py",
    "collectorctl/demo/oracle.py",
    "collectorctl/demo/pairing.py",
    "collectorctl/demo/reconcile.py",
    "collectorctl/demo/result.py",
    "collectorctl/demo/scenarios.py",
    "collectorctl/disk/retention.py",
    "collectorctl/explain/pairing.py",
    "collectorctl/explain/visibility.py",
    "collectorctl/export/depth_events.py",
    "collectorctl/export/gaps.py",
    "collectorctl/export/sequence.py",
    "collectorctl/gapfill/queue.py",
    "collectorctl/gapfill/verify.py",
    "collectorctl/notify/outbox.py",
    "collectorctl/reader/bars.py",
    "collectorctl/reader/feed_view.py",
    "collectorctl/reader/tick_merge.py",
    "collectorctl/recover/certificate/certify.py",
    "collectorctl/recover/matching/alignment.py",
    "collectorctl/recover/matching/day_coverage.py",
    "collectorctl/recover/matching/gap_filling.py",
    "collectorctl/recover/matching/placement.py",
    "collectorctl/recover/matching/trade_count.py",
    "collectorctl/recover/schedule/schedule.py",
    "collectorctl/report/charts.py",
    "collectorctl/report/judgement.py",
    "collectorctl/report/markup.py",
    "collectorctl/report/page.py",
    "collectorctl/report/reasons.py",
    "collectorctl/report/sections.py",
    "collectorctl/report/series.py",
    "collectorctl/supervision/watchdog/policy.py",
    "collectorctl/symbols/selection.py",
    "collectorctl/symbols/table.py",
    "collectorctl/zmq/envelope.py",
    "collectorctl/zmq/history.py",
    "collectorctl/zmq/sequence.py",
    "conf/calendar.py",
    "conf/instrument.py",
    "conf/market.py",
    "conf/text/escape.py",
    "conf/universe/listing.py",
    "conf/validation.py",
    "ringbuf/fields.py",
    "ringbuf/layout.py",
    "ringbuf/records.py",
    "writer/feeds/degradation.py",
    "writer/feeds/visibility.py",
    "writer/ingest/backfill_filter.py",
    "writer/ingest/arbitration_result.py",
    "writer/ingest/book_arbiter.py",
    "writer/ingest/trading_day.py",
    "writer/journal/entries.py",
    "writer/journal/former_entries.py",
    "writer/publish/feed_stats.py",
    "writer/publish/overlap.py",
    "writer/publish/schedule.py",
    "writer/schema.py",
    "writer/volume/coverage.py",
    "writer/volume/gap_tracker.py",
    "writer/volume/gaps.py",
)
"""Modules that are functions of their arguments; a pattern that matches nothing is a mistake."""

IMPURE = {
    *("asyncio", "fcntl", "logging", "loguru", "mmap", "os", "random", "requests", "select", "selectors", "signal"),
    *("shutil", "socket", "ssl", "subprocess", "threading", "time", "websocket"),
}

MOST_LINES = 350

RETIRED = {
    *(
        "tidings",
        "pulse",
        "heart",
        "beat",
        "beats",
        "beating",
        "patience",
        "standin",
        "almanac",
        "rites",
        "siege",
        "blow",
        "blows",
    ),
    *(
        "liar",
        "prompter",
        "tide",
        "outlook",
        "dog",
        "fat",
        "fattened",
        "spoil",
        "spoiled",
        "strange",
        "told",
        "tells",
        "said",
        "says",
    ),
    *("hear", "heard", "hears", "speak", "spoke", "most", "least", "laid", "carried", "eldest", "alike", "rehearsal"),
}
"""Figurative words and verbs of speech that identifiers had; docs/glossary.md has the words in use."""

WRITER_INTERFACE = {
    "writer.catalog",  # what is stored
    *(
        "writer.schema",
        "writer.durable_io",
        "writer.publish.verified_file",
        "writer.publish.records",
        "writer.publish.feed_stats_file",
    ),  # writing Parquet
    *(
        "writer.ingest.arbitration_result",
        "writer.ingest.book_arbiter",
        "writer.ingest.backfill_filter",
        "writer.ingest.trading_day",
        "writer.publish.overlap",
    ),  # the writer's rules (pure)
    "writer.volume.coverage",
    *(
        "writer.volume.gap_tracker",
        "writer.volume.gaps",
        "writer.feeds.feed_report",
        "writer.feeds.day_events",
        "writer.feeds.day_report",
    ),  # reports of the writer
}
"""The modules of the writer that collectorctl may import; journal, partitions and the service are closed to it."""

VENDOR_WORD = re.compile(
    r"H0(ST|NX|UN)[A-Z]{3}\d|HDFS[A-Z]+\d|FHK[A-Z]+\d+|[TVHC]TT[A-Z]\d{4}[A-Z]"  # KIS: TR ids
    r"|MKSC_SHRN_ISCD|(STCK|ACML|CNTG|BSOP|ANTC|NTBY|SELN|SHNU)_[A-Z0-9_]+|(ASKP|BIDP)(_RSQN)?\d+|PINGPONG"  # its fields
    r"|tr_(id|key|type|cd)|custtype|approval_key|appsecret|secretkey|rt_cd|msg_cd"
    r"|0[A-Jdgmsuw]|(ka|kt|au|ko)\d{5}|trnm|grp_no|return_(code|msg)|api-id|cont-yn|next-key"  # Kiwoom
)
AT_THE_BORDER = re.compile(r"brokers/(kis|kiwoom|us)/(decode|session|rest|history|symbols)\.py|brokers/simulator/.+")


def modules() -> list[str]:
    """Every module of the packages, as a path such as "conf/home.py"."""
    return sorted(str(path.relative_to(ROOT)) for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


@cache
def tree(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"), module)


def imports(module: str) -> Iterator[str]:
    """Dotted names of all that a module imports, at its top, in its functions and for type checking."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} line {node.lineno}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def docstrings(module: str) -> set[int]:
    """Identities of the nodes that are docstrings: strings that stand alone as a statement."""
    return {
        id(n.value) for n in ast.walk(tree(module)) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)
    }


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    """conf and ringbuf know nobody, brokers and writer never meet, collectorctl is on top."""
    wrong = [
        f"{module} imports {name}"
        for module in modules()
        if module.startswith(f"{package}/")
        for name in imports(module)
        if name.split(".")[0] in set(MAY_IMPORT) - MAY_IMPORT[package]
    ]

    assert wrong == []


def test_collectorctl_reads_what_is_stored_through_the_catalog() -> None:
    """The form of journal and partitions is known to the writer alone."""
    wrong = [
        f"{module} imports {name}"
        for module in modules()
        if module.startswith("collectorctl/")
        for name in imports(module)
        if is_within(name, "writer") and not any(is_within(name, allowed) for allowed in WRITER_INTERFACE)
    ]

    assert wrong == []


def test_the_simulator_and_the_collectors_share_nothing() -> None:
    """Two readings of the vendors' documents: a mistake shared by both would prove itself right."""
    wrong = [
        f"{module} imports {name}"
        for module in modules()
        if module.startswith("brokers/")
        for name in imports(module)
        if is_within(name, "brokers")
        if module.startswith("brokers/simulator/") != is_within(name, "brokers.simulator")
    ]

    assert wrong == []


def test_a_vendors_folder_knows_no_other_vendor_and_nobody_knows_a_vendor() -> None:
    """Adding a broker changes no other; the registry finds them by name."""
    wrong = [
        f"{module} imports {name}"
        for module in modules()
        for name in imports(module)
        for vendor in VENDORS
        if is_within(name, f"brokers.{vendor}") and not module.startswith((f"brokers/{vendor}/", "brokers/us/"))
    ]

    assert wrong == []


@pytest.mark.parametrize("pattern", PURE)
def test_pure_modules_touch_no_world(pattern: str) -> None:
    """No socket, no clock, no logger, no chance, no file: the same arguments give the same result."""
    found = [str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)]
    wrong = [f"{module} imports {name}" for module in found for name in imports(module) if name.split(".")[0] in IMPURE]
    called = [
        f"{module} line {node.lineno} calls {node.func.id}"
        for module in found
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("open", "print", "input")
    ]

    assert found != []
    assert wrong + called == []


PRINTERS = {
    *("print", "click.echo", "click.secho", "click.UsageError", "click.ClickException", "click.BadParameter"),
    *("sys.stdout.write", "sys.stderr.write", "sys.stdout.buffer.write", "sys.stderr.buffer.write"),
    *("Console", "TextColumn", "Text", "Text.from_markup", "Text.from_ansi"),
}
"""What writes to a terminal, or makes the text that rich or click writes."""

OTHER_WRITES = {
    ("conf/holidays.py", "sys.stdout.buffer.write"),  # JSON for the parent process
}


def test_what_is_printed_has_its_control_characters_escaped() -> None:
    """Each call of a printer, anywhere, gets what escape_controls returned; commands print through collectorctl/terminal.py."""
    calls = {
        (module, ast.unparse(node.func), bool(node.args) and ast.unparse(node.args[0]).startswith("escape_controls("))
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in PRINTERS
    }
    by_another_name = [
        f"{module} imports {name}"
        for module in modules()
        for name in imports(module)
        if name in {"click.echo", "click.secho", "click.UsageError", "rich.print", "sys.stdout", "sys.stderr"}
    ]

    assert ("collectorctl/terminal.py", "click.echo", True) in calls
    assert {(module, name) for module, name, escaped in calls if not escaped} - OTHER_WRITES == set()
    assert by_another_name == []


def test_vendor_words_stay_at_the_border() -> None:
    """MKSC_SHRN_ISCD, H0STCNT0, 0D and their like are in the modules of a vendor's wire and in the simulator."""
    wrong = []
    for module in modules():
        if AT_THE_BORDER.fullmatch(module):
            continue
        explained = docstrings(module)
        for node in ast.walk(tree(module)):
            words = []
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in explained:
                text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
                words = [text, *(word for word in re.findall(r"[\w-]+", text) if len(word) > 3)]
            elif isinstance(node, ast.Name | ast.Attribute | ast.arg):
                words = [getattr(node, "id", None) or getattr(node, "attr", None) or node.arg]
            wrong += [f"{module} line {node.lineno}: {word}" for word in words if VENDOR_WORD.fullmatch(word)]

    assert wrong == []


def test_the_vendor_words_are_known_to_the_test() -> None:
    """The expression finds the words where they belong; else the test above could not fail."""
    for vendor in VENDORS:
        text = (ROOT / "brokers" / vendor / "decode.py").read_text(encoding="utf-8")
        assert any(VENDOR_WORD.fullmatch(word) for word in re.findall(r"[\w-]+", text)), vendor


def defined_names(module: str) -> Iterator[str]:
    """Identifiers that a module defines: functions, classes, parameters, variables, attributes, imported names."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.alias):
            yield node.asname or node.name


def test_retired_words_do_not_come_back_as_identifiers() -> None:
    """Each is one part of a name in snake_case or CamelCase."""
    wrong = {
        f"{module}: {name}"
        for module in modules()
        for name in defined_names(module)
        for part in re.findall(r"[a-z]+|[A-Z][a-z]*", name)
        if part.lower() in RETIRED
    }

    assert sorted(wrong) == []


def lines_of_code(module: str) -> int:
    """Lines that are neither blank, comment nor docstring."""
    explained = {
        line
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = (ROOT / module).read_text(encoding="utf-8").splitlines()
    return sum(
        1
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#") and number not in explained
    )


def test_no_module_is_long() -> None:
    """A file of more than 350 lines of code is two files."""
    assert [f"{m}: {lines_of_code(m)}" for m in modules() if lines_of_code(m) > MOST_LINES] == []


MOST_MODULES = 12


def test_no_folder_holds_more_than_a_dozen_modules() -> None:
    """A folder that outgrows a screen gets sub-folders; `__init__` is no module of its own."""
    held = Counter(str(Path(module).parent) for module in modules() if not module.endswith("__init__.py"))

    assert [f"{folder}: {count}" for folder, count in held.items() if count > MOST_MODULES] == []


def imported_modules(module: str) -> set[str]:
    """Paths of the modules of this repository that a module imports, `TYPE_CHECKING` imports included."""
    known = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in modules()}
    return {
        known[found]
        for name in imports(module)
        if (found := next((part for part in (name, name.rpartition(".")[0]) if part in known), ""))
    } - {module}


def test_no_module_imports_itself_by_way_of_others() -> None:
    """A circle makes two modules one that is spread over two files."""
    try:
        order = list(TopologicalSorter({module: imported_modules(module) for module in modules()}).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))

    assert sorted(order) == modules()


def test_a_collector_does_not_load_what_only_the_writer_needs() -> None:
    """pyarrow and pandas alone take more than the 60 MB that a collector may have."""
    script = (
        "import sys, brokers.__main__\n"
        "import brokers.kis.session, brokers.kis.decode, brokers.kiwoom.session, brokers.kiwoom.decode\n"
        "import brokers.us.session, brokers.us.decode\n"
        "print(*sorted({'pyarrow', 'pandas', 'aiohttp', 'rich', 'supervisor', 'psutil'} & set(sys.modules)))"
    )

    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )

    assert (ran.stdout, ran.stderr) == ("\n", "")


def test_the_watchdog_does_not_load_what_only_the_writer_needs() -> None:
    """It reads what status reads, and runs for ever beside the others."""
    script = (
        "import sys, collectorctl.supervision.watchdog.__main__\n"
        "print(*sorted({'numpy', 'pyarrow', 'pandas', 'aiohttp'} & set(sys.modules)))"
    )

    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )

    assert (ran.stdout, ran.stderr) == ("\n", "")
