"""KIS overseas session: the KIS session protocol with keys of its own; docs/wire/kis.md 2.

Guarantees:
    * Only settings, secrets and the spelling of a subscription differ from kis/session.py.
"""

from __future__ import annotations

from functools import partial

from brokers.kis.rest import ApprovalKey
from brokers.kis.session import KisSession
from brokers.subscription import SubscriptionTable
from brokers.us import decode
from conf.home import Home
from conf.loader import load_secrets
from conf.settings import Settings
from ringbuf.records import FeedId


class Us:
    """KIS, US exchanges."""

    name = "us"
    feed_id = FeedId.US
    heartbeat_s = 150.0  # as KIS domestic: the same server
    silence_means_refusal = True
    subscriptions_by_code = staticmethod(decode.subscriptions_by_code)
    decode = staticmethod(decode.decode)

    def websocket_url(self, settings: Settings) -> str:
        """The WebSocket's URL."""
        return settings.us.ws_url

    def create_credential(self, home: Home, number: int) -> ApprovalKey:
        """The approval key of one of the home's appkeys for this feed."""
        return ApprovalKey(home.settings.us.rest_url, load_secrets(home.root, "us", number=number), home.load_clock())

    def create_session(self, settings: Settings, credential: str, subscription_table: SubscriptionTable) -> KisSession:
        """A dialogue that subscribes what the ledger lists, under free or paid keys."""
        table, answer_within_s = settings.us, settings.feed.acknowledge_within_s
        wire_code = partial(decode.wire_code, paid=table.paid)
        return KisSession(
            credential,
            table.customer_type,
            table.subscribe_spacing_ms,
            answer_within_s,
            subscription_table,
            wire_code,
        )


BROKER = Us()
