"""Notifications to systemd, where it holds the tree in a unit of Type=notify (sd_notify(3)).

Guarantees:
    * Without NOTIFY_SOCKET in the environment nothing is sent.
    * Sending never waits and never raises.
"""

from __future__ import annotations

import os
import socket

from loguru import logger

READY, ALIVE, STOPPING = "READY=1", "WATCHDOG=1", "STOPPING=1"


def notify(*assignments: str) -> None:
    """Send these assignments."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"  # the abstract namespace
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(assignments).encode(), address)
    except OSError as error:
        logger.warning("systemd was not notified of {}: {}", ", ".join(assignments), error)
