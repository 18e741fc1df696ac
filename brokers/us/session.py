"""The US feed: KIS's dialogue (kis/session.py) with keys of its own and an appkey of its own. Spec kis 2.

Promises: nothing of the dialogue is written twice; what differs is the settings, the secrets, and how a registration is spelled.
Leaves to others: the dialogue, the approval key (kis/rest.py), records (decode.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from brokers.decoded import Decoded
from brokers.kis.rest import Approval
from brokers.kis.session import KisSession
from brokers.subscription import Ledger, Registration
from brokers.us import decode
from conf.home import Home
from conf.loader import load_secrets
from conf.settings import Settings
from ringbuf.records import Line


class Us:
    """KIS, US exchanges."""

    name = "us"
    line = Line.US
    heartbeat_s = 150.0  # as KIS domestic: the same server
    known = staticmethod(decode.known)

    def address(self, settings: Settings) -> str:
        """The WebSocket's URL."""
        return settings.us.ws_url

    def credential(self, home: Home, number: int) -> Approval:
        """The approval key of one of the home's appkeys for this feed."""
        return Approval(home.settings.us.rest_url, load_secrets(home.root, "us", number=number), home.clock())

    def session(self, settings: Settings, credential: str, ledger: Ledger) -> KisSession:
        """A dialogue that registers what the ledger lists, under free or paid keys."""
        table = settings.us
        spelled = partial(decode.spelled, paid=table.paid)
        return KisSession(credential, table.customer_type, table.register_spacing_ms, ledger, spelled)

    def decode(self, payload: bytes, known: Mapping[str, Registration], recv_ns: int, mono_ns: int = 0) -> Decoded:
        """See decode.py."""
        return decode.decode(payload, known, recv_ns, mono_ns)


BROKER = Us()
