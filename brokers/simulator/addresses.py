"""Addresses of the simulator, and the ports behind them.

    kis 9000   kiwoom 9001   us 9002   --build_addresses()--> the settings of a home

Guarantees:
    * A port that cannot be had is explained: which, who has it as far as the system shows it, what to do.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from contextlib import ExitStack, suppress

import psutil

HOST = "127.0.0.1"
SERVED_FEEDS = ("kis", "kiwoom", "us")


class PortError(Exception):
    """A port cannot be listened on; the message has port, holder and remedy."""


def choose_ports(base: int, named: Mapping[str, int]) -> dict[str, int]:
    """The port of each feed: as named, else counted from `base`; 0: any free one."""
    return {feed: named[feed] or (base + at if base else 0) for at, feed in enumerate(SERVED_FEEDS)}


def build_addresses(ports: Mapping[str, int]) -> dict[str, dict[str, str]]:
    """The addresses of each feed, by the names of a home's settings."""
    paths = {"kiwoom": "/api/dostk/websocket"}
    addresses = {
        feed: {"ws_url": f"ws://{HOST}:{port}{paths.get(feed, '')}", "rest_url": f"http://{HOST}:{port}"}
        for feed, port in ports.items()
    }
    if "kis" in addresses:
        addresses["kis"]["master_url"] = f"{addresses['kis']['rest_url']}/common/master"
    return addresses


def find_free_ports(ports: Mapping[str, int]) -> dict[str, int]:
    """The same ports, with a free one in place of each 0. PortError for one that cannot be had."""
    with ExitStack() as bound:
        found = {}
        for feed, port in ports.items():
            listener = bound.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((HOST, port))
            except OSError as error:
                raise explain_port(feed, port, error) from None
            found[feed] = listener.getsockname()[1]
        return found


def explain_port(feed: str, port: int, error: OSError) -> PortError:
    """What keeps the simulator from a port."""
    remedy = f"name another with --{feed}-port, or three in a row with --port"
    if error.errno == errno.EADDRINUSE:
        return PortError(f"{HOST}:{port}: the port for {feed} is taken by {_find_holder(port)}: end that, or {remedy}")
    return PortError(f"{HOST}:{port}: the port for {feed} cannot be used: {error.strerror}: {remedy}")


def _find_holder(port: int) -> str:
    """The process that has a port. One of another user has no pid here."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                simulator = ", a simulator" * any("simulat" in word for word in process.cmdline())
                return f"process {process.pid} ({process.name()}{simulator})"
    return "a process of another user"
