"""Which machines rings work on."""

from __future__ import annotations

import pytest

from ringbuf.machine import Machine, check_machine, find_fault, read_machine


def test_small_and_large_boxes_are_taken_whatever_their_pages() -> None:
    """x86-64, a Raspberry Pi with pages of 16 KiB, an ARM server with 64 KiB; and the machine this runs on."""
    for machine in (
        Machine("x86_64", 64, "little", 4096),
        Machine("aarch64", 64, "little", 4096),
        Machine("aarch64", 64, "little", 16384),
        Machine("aarch64", 64, "little", 65536),
    ):
        assert find_fault(machine) == ""
    assert find_fault(read_machine()) == ""
    check_machine()


@pytest.mark.parametrize(
    ("machine", "fault"),
    [
        (Machine("aarch64", 32, "little", 4096), "no 64-bit words"),  # a 32-bit system on a 64-bit Raspberry Pi
        (Machine("armv7l", 32, "little", 4096), "no 64-bit words"),
        (Machine("s390x", 64, "big", 4096), "byte order"),
        (Machine("sparc64", 64, "little", 8192), "is not known"),
    ],
)
def test_a_machine_that_cannot_share_words_is_refused_with_the_reason(machine: Machine, fault: str) -> None:
    """Half a number would be read one day in a thousand: better not to start."""
    assert fault in find_fault(machine)
