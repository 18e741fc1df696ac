"""The US feed's own: its keys on the wire, its appkey, its plan; the dialogue is KIS's (test_sessions.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from brokers.allocation.allocate import plan_connections
from brokers.allocation.credentials import key_counts
from brokers.subscription import Subscription, SubscriptionTable
from brokers.us.session import BROKER
from conf.home import Home
from conf.instrument import parse_instrument
from conf.settings import SettingsError


@pytest.fixture
def home(tmp_path: Path) -> Callable[..., Home]:
    """A home with these settings and secrets."""

    def made(text: str, **secrets: str) -> Home:
        (tmp_path / "collector.toml").write_text(text)
        (tmp_path / ".env").touch(mode=0o600)
        (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in secrets.items()))
        return Home(tmp_path)

    return made


@pytest.mark.parametrize(("paid", "key"), [("false", "DNASAAPL"), ("true", "RNASAAPL")])
def test_registrations_go_out_and_come_back_under_one_key(home: Callable[..., Home], paid: str, key: str):
    """Free or paid by the setting; the acknowledgement repeats the key."""
    settings = home(f"[us]\nenabled = true\npaid = {paid}\nsubscribe_spacing_ms = 0\n").settings
    registration = Subscription(parse_instrument("NAS.AAPL"), "tick")
    ledger = SubscriptionTable([registration])
    session = BROKER.create_session(settings, "approval", ledger)

    (message,) = session.pending_messages(1)
    asked = json.loads(message)["body"]["input"]
    answer = {"header": {"tr_id": "HDFSCNT0", "tr_key": key}, "body": {"rt_cd": "0", "msg_cd": "OPSP0000"}}
    heard = session.receive(json.dumps(answer).encode(), 2)

    assert {"tr_id": "HDFSCNT0", "tr_key": key} == asked
    assert not heard.unexpected
    assert ("streaming", 2) == (session.state, ledger.states[registration].acknowledged_ns)


def test_one_appkey_in_kis_and_us_is_refused(home: Callable[..., Home]):
    """One appkey holds one session: the second would be refused for ever. Only where both are switched on."""
    pairs = {"KIS_APP_KEY": "same", "KIS_APP_SECRET": "x", "US_APP_KEY": "same", "US_APP_SECRET": "x"}

    with pytest.raises(SettingsError, match="US_APP_KEY: is the same key as KIS_APP_KEY"):
        key_counts(home("[us]\nenabled = true\n", **pairs))
    assert "us" not in key_counts(home("", **pairs))


def test_us_instruments_take_their_own_slots_and_what_does_not_fit_is_named(home: Callable[..., Home]):
    """Books first, then ticks; Korea's plan is as it was."""
    text = '[universe]\nus = ["NAS.AAPL", "NYS.IBM", "BAQ.AAPL"]\n[us]\nenabled = true\nmax_subscriptions = {}\n'

    without, roomy, scarce, least = (
        plan_connections(home(t).settings, {}) for t in ("", *(text.format(n) for n in (6, 4, 2)))
    )

    assert [str(r) for r in roomy.connections["us"][0].subscriptions] == [
        *("NAS.AAPL orderbook", "NYS.IBM orderbook", "BAQ.AAPL orderbook"),
        *("NAS.AAPL tick", "NYS.IBM tick", "BAQ.AAPL tick"),
    ]
    assert "us" not in without.connections
    assert all(roomy.connections[name] == without.connections[name] for name in without.connections)
    assert [] == roomy.shortfalls
    assert ["NYS.IBM: minute bars by recovery only", "BAQ.AAPL: minute bars by recovery only"] == [
        str(short) for short in scarce.shortfalls
    ]
    assert "BAQ.AAPL: not collected" in [str(short) for short in least.shortfalls]
