"""Machine check: what rings and vitals pages need of a processor.

    64 bits          a store of one aligned 8-byte word is seen whole or not at all
    little-endian    the byte order of the files
    page size        any: files are mapped from offset 0, and their layout knows no pages (arm64 has 4, 16 or 64 KiB)
    memory order     any: what is longer than a word carries a checksum (layout.py)

Guarantees:
    * A machine that cannot share words is refused when the first ring or page is opened, and by `collectorctl check`.
"""

from __future__ import annotations

import mmap
import platform
import sys
from functools import cache
from typing import NamedTuple

MACHINES = ("x86_64", "aarch64", "arm64", "riscv64", "ppc64le", "loongarch64")
"""Processors whose aligned 8-byte loads and stores are single; as platform.machine() names them."""


class MachineError(Exception):
    """A machine that rings do not work on; the message says why."""


class Machine(NamedTuple):
    """What a ring needs to know of a machine."""

    name: str
    word_bits: int
    byte_order: str
    page_bytes: int

    def __str__(self) -> str:
        """As `check` prints it."""
        return f"{self.name}, {self.word_bits} bits, {self.byte_order}-endian, pages of {self.page_bytes} bytes"


def find_fault(machine: Machine) -> str:
    """Why rings do not work on a machine; "" where they do."""
    if machine.word_bits != 64:
        return "its Python has no 64-bit words, so that a number may be read half written: install a 64-bit system"
    if machine.byte_order != "little":
        return "its byte order is not that of the files"
    if machine.name not in MACHINES:
        return f"it is none of {', '.join(MACHINES)}: whether its 8-byte stores are single is not known"
    return ""


@cache
def read_machine() -> Machine:
    """The machine this process runs on."""
    return Machine(platform.machine(), sys.maxsize.bit_length() + 1, sys.byteorder, mmap.PAGESIZE)


@cache
def check_machine() -> None:
    """MachineError on a machine that rings do not work on."""
    if fault := find_fault(read_machine()):
        raise MachineError(f"this machine ({read_machine()}) cannot share memory between processes: {fault}")
