"""Keys of the relay's clients, in the form of each vendor's authentication server.

Guarantees:
    * Without a token every app key, approval key and access token is accepted, also one that the vendor issued: the relay then
      listens on loopback alone.
    * With a token the app key must equal it. Approval keys and access tokens are derived from it, so that one that was issued
      before a restart is good after it; the token itself is accepted in their place.
    * Nothing is remembered of a client, and any number of clients may have one key.
"""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

from brokers.simulator.kis.auth import TOKEN_LIFE_S, KeyStore, KisToken
from brokers.simulator.kiwoom.auth import KiwoomToken, TokenStore
from conf.clock import KST

HOLDER = "relay"
"""Whose every key is."""


class Access:
    """The token of a relay ("": none), and what is derived from it."""

    def __init__(self, token: str) -> None:
        self._token = token

    def derive(self, purpose: str) -> bytes:
        """32 bytes that only who knows the token can make."""
        return hmac.digest(self._token.encode(), purpose.encode(), "sha256")

    def is_token(self, given: str) -> bool:
        """Whether it is the token, or none is needed."""
        return not self._token or hmac.compare_digest(given.encode(), self._token.encode())

    def is_issued(self, given: str, issued: str) -> bool:
        """Whether it is what was issued, or the token, or none is needed."""
        return self.is_token(given) or hmac.compare_digest(given.encode(), issued.encode())


class RelayKeyStore(KeyStore):
    """App keys, access tokens and approval keys of KIS's form."""

    def __init__(self, access: Access) -> None:
        super().__init__(Random())
        self._access = access
        self._approval = str(UUID(bytes=access.derive("approval")[:16], version=4))
        self._token_text = access.derive("kis token").hex()

    def check_secret(self, app_key: str, secret: str) -> bool:
        """Whether the app key is accepted; any secret is."""
        return self._access.is_token(str(app_key))

    def issue(self, app_key: str, now_s: float) -> KisToken:
        """The access token, as often as it is asked for."""
        return KisToken(self._token_text, now_s, datetime.now(KST) + timedelta(seconds=TOKEN_LIFE_S))

    def revoke(self, app_key: str, text: str) -> bool:
        """Nothing: other clients have the same one."""
        return True

    def issue_approval(self, app_key: str, now_s: float) -> str:
        """The approval key, as often as it is asked for."""
        return self._approval

    def find_approval_holder(self, approval: str, now_s: float) -> str | None:
        """HOLDER for an approval key that is accepted."""
        return HOLDER if self._access.is_issued(approval, self._approval) else None


class RelayTokenStore(TokenStore):
    """App keys and access tokens of Kiwoom's form."""

    def __init__(self, access: Access) -> None:
        super().__init__(Random(), TOKEN_LIFE_S)
        self._access = access
        self._token_text = access.derive("kiwoom token").hex()

    def check_secret(self, app_key: str, secret: str) -> bool:
        """Whether the app key is accepted; any secret is."""
        return self._access.is_token(app_key)

    def issue(self, app_key: str, now_s: float) -> KiwoomToken:
        """The access token, as often as it is asked for."""
        life_s = float(TOKEN_LIFE_S)
        return KiwoomToken(self._token_text, app_key, now_s + life_s, datetime.now(KST) + timedelta(seconds=life_s))

    def find_holder(self, text: str, now_s: float) -> str | None:
        """HOLDER for a token that is accepted."""
        return HOLDER if self._access.is_issued(text, self._token_text) else None

    def revoke(self, text: str) -> bool:
        """Nothing: other clients have the same one."""
        return True
