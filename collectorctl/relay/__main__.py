"""Entry point of the relay: `python -m collectorctl.relay`.

Guarantees:
    * Disabled, or on an address that others can reach without a token, the process idles and publishes the reason as its state;
      else as in conf/process.py.
"""

from __future__ import annotations

import sys
from ipaddress import ip_address

from brokers.feed.startup import run_disabled, run_failing
from collectorctl.relay.service import serve as serve_relay
from conf.home import Home
from conf.loader import SECRETS_FILE, SETTINGS_FILE, load_relay_token
from conf.process import ShutdownSignal, run_process
from ringbuf.vitals import ProcessState, Vitals

NAME = "relay"


def serve(home: Home, stop: ShutdownSignal) -> None:
    """Relay until asked to stop."""
    vitals = Vitals.create(home.vitals_path(NAME), NAME)
    try:
        table = home.settings.relay
        if not table.enabled:
            run_disabled(vitals, stop, f"relay.enabled is false in {SETTINGS_FILE}")
            return
        token = load_relay_token(home.root)
        if not token and not ip_address(table.address).is_loopback:
            detail = (
                f"relay.address {table.address} is not loopback: write a line RELAY_TOKEN=... into {SECRETS_FILE}, "
                "then restart relay"
            )
            run_failing(vitals, stop, detail)
        else:
            serve_relay(home, stop, vitals, token)
    finally:
        vitals.set_state(ProcessState.STOPPED)
        vitals.close()


if __name__ == "__main__":
    sys.exit(run_process(NAME, serve))
