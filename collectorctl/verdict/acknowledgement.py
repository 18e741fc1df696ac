"""Acknowledgement of losses: a person has seen them, and they no longer count in the verdict.

    collectorctl acknowledge ──> HOME/run/acknowledged.json ──> status

A loss that is found later counts again.
"""

from __future__ import annotations

import msgspec

from conf.files.replacement import read_replaced, replace_file
from conf.home import Home


class Acknowledgement(msgspec.Struct, frozen=True):
    """Everything that ended up to `until_ns` (the home's clock, ns since 1970 UTC) is acknowledged."""

    until_ns: int
    note: str = ""


NOTHING = Acknowledgement(0)


def acknowledge(home: Home, note: str) -> Acknowledgement:
    """Acknowledge everything up to now. OSError."""
    acknowledgement = Acknowledgement(home.load_clock().now_ns(), note)
    replace_file(home.acknowledgement_path(), msgspec.json.encode(acknowledgement))
    return acknowledgement


def load_acknowledgement(home: Home) -> Acknowledgement:
    """What is acknowledged."""
    return read_replaced(home.acknowledgement_path(), Acknowledgement) or NOTHING
