"""Every broker in the registry keeps the protocols of broker.py; a new one fails here until all its parts exist."""

from __future__ import annotations

import ast
import tomllib
from configparser import RawConfigParser
from importlib import resources
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from support.process_tree import temporary_home

from brokers.decoded import DecodedBatch
from brokers.protocol import Broker, Credential, FeedSession
from brokers.registry import BROKERS, load_broker
from brokers.subscription import Subscription, SubscriptionTable
from brokers.transport.backoff import Backoff
from conf.home import Home
from conf.instrument import Instrument
from conf.market import MARKETS
from ringbuf.records import ORDERBOOK, STREAMS, TICK, UNDEFINED, FeedId, build_packer, empty_records

ROOT = Path(__file__).parents[2]
SYMBOLS = {"kr": ("005930", "0074K0", "Q500001"), "us": ("AAPL", "BRK/B", "F")}


def everything(name: str) -> list[Subscription]:
    """Both streams of some symbols on every venue of the broker's market."""
    market = MARKETS[BROKERS[name].market]
    return [
        Subscription(Instrument(symbol, venue), stream)
        for symbol in SYMBOLS[market.name]
        for venue in market.venues
        for stream in STREAMS
    ]


every_broker = pytest.mark.parametrize("name", BROKERS)


def keeps(made: object, protocol: type) -> None:
    """Every public method of the protocol is there, with the same parameters."""
    for name, wanted in vars(protocol).items():
        if name.startswith("_") or not callable(wanted):
            continue
        has = [p for p in signature(getattr(made, name)).parameters if p != "self"]
        assert has == [p for p in signature(wanted).parameters if p != "self"], f"{made!r}.{name}"


@every_broker
def test_a_broker_provides_what_the_loop_asks_for(name):
    """The three protocols, its own name, and a line of its own."""
    made = load_broker(name)
    with temporary_home(f"[{name}]\nenabled = true\n") as root:
        home = Home(root)
        session = made.create_session(home.settings, "credential", SubscriptionTable(everything(name)))

        keeps(made, Broker)
        keeps(made.create_credential(home, 1), Credential)
        keeps(session, FeedSession)
        assert made.websocket_url(home.settings).startswith(("ws://", "wss://"))
    assert made.name == name
    assert made.feed_id is FeedId[name.upper()]
    assert session.state in ("logging_in", "subscribing")
    assert all(isinstance(message, bytes) for message in session.pending_messages(1))


@every_broker
def test_every_registration_has_a_spelling_of_its_own(name):
    """So that a frame can be told whose it is."""
    known = load_broker(name).subscriptions_by_code(everything(name))

    assert sorted(map(str, everything(name))) == sorted(set(map(str, known.values())))


@every_broker
@pytest.mark.parametrize("payload", [b"", b"garbage", b"\xff\xfe", b"{}", b"[]", b"0|", b"null", b'{"trnm":"REAL"}'])
def test_decoding_never_raises(name, payload):
    """Whatever the bytes."""
    assert isinstance(load_broker(name).decode(payload, {}, 0, 0), DecodedBatch)


SIMULATED_IN = {"kis": "kis/websocket.py", "kiwoom": "kiwoom/websocket.py", "us": "kis/overseas.py"}


@every_broker
def test_a_broker_has_its_table_its_program_and_its_simulator(name):
    """Adding a broker is more than a folder."""
    defaults = tomllib.loads(resources.files("conf").joinpath("default.toml").read_text())
    programs = RawConfigParser()
    programs.read(ROOT / "conf" / "supervisord.conf")

    assert {"enabled", "ws_url", "rest_url", "max_subscriptions"} <= set(defaults[name])
    assert f"{name}_memory_mb" in defaults["watchdog"]
    assert f"program:{name}" in programs.sections()
    assert (ROOT / "brokers" / "simulator" / SIMULATED_IN[name]).exists()
    assert name in MARKETS[BROKERS[name].market].feeds
    assert {name} == set(MARKETS[BROKERS[name].market].feeds) or BROKERS[name].shard in defaults["shards"]
    assert BROKERS[name].limit_unit in ("subscriptions", "symbols")


def test_shards_belong_to_one_broker_each():
    """A symbol's ticks come from one line."""
    shards = [(entry.market, entry.shard) for entry in BROKERS.values()]

    assert len(shards) == len(set(shards))


@pytest.mark.parametrize("dtype", [ORDERBOOK, TICK])
def test_a_packed_row_reads_back_as_its_record(dtype):
    """The Struct has the dtype's layout: values come back field by field."""
    values: list = []
    expected = {}
    number = 1
    for name in dtype.names:
        field = dtype.fields[name][0]
        base, shape = field.subdtype or (field, ())
        if base.kind == "V":
            continue
        if base.kind == "S":
            own = [name.encode()[: base.itemsize]]
        else:
            own = list(range(number, number + int(np.prod(shape, dtype=int))))
            number += len(own)
        values += own
        expected[name] = own if shape else own[0]

    (row,) = np.frombuffer(build_packer(dtype).pack(*values), dtype)

    assert {name: row[name].tolist() for name in expected} == expected


PACKED = {"pack_book": ORDERBOOK, "pack_tick": TICK}


def packer_calls(source: str) -> list[ast.Call]:
    """The calls of a packer in a module's source."""
    return [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PACKED
    ]


def misnamed(call: ast.Call) -> list[str]:
    """Arguments of a packer that are not named as the field at their place is.

    A number is exactly that name (or UNDEFINED, or the 0 of `seq`); text and codes have it somewhere in their expression.
    """
    dtype = PACKED[call.func.id]
    fields, (absent,) = [name for name in dtype.names if name != "_pad"], empty_records(dtype, 1)
    assert (len(call.args), call.keywords) == (len(fields), [])
    wrong = []
    for field, argument in zip(fields, call.args, strict=True):
        base, shape = dtype[field].subdtype or (dtype[field], ())
        text = ast.unparse(argument)
        if base.str == "<i8":
            named = f"*{field}" if shape else field
            is_optional = not shape and absent[field] == UNDEFINED
            right = text.removeprefix("frame.") in (
                named,
                "UNDEFINED" if is_optional else "0" if field == "seq" else named,
            )
        else:
            right = {"line": "feedid."}.get(field, field) in text.lower() or (field, text) == ("extra", "b''")
        if not right:
            wrong.append(f"line {argument.lineno}: {text} at the place of {field}")
    return wrong


@every_broker
def test_values_are_packed_in_the_order_of_the_fields(name):
    """Two numbers that trade places are as good for the packer; their names are not."""
    calls = packer_calls((ROOT / "brokers" / name / "decode.py").read_text(encoding="utf-8"))

    assert {call.func.id for call in calls} == set(PACKED)
    assert [wrong for call in calls for wrong in misnamed(call)] == []


@every_broker
def test_two_values_that_trade_places_are_noticed(name):
    """Every pair of neighbours, unless both are UNDEFINED."""
    unnoticed = []
    for call in packer_calls((ROOT / "brokers" / name / "decode.py").read_text(encoding="utf-8")):
        given = call.args
        for at in range(len(given) - 1):
            call.args = [*given[:at], given[at + 1], given[at], *given[at + 2 :]]
            if ast.unparse(given[at]) != ast.unparse(given[at + 1]) and not misnamed(call):
                unnoticed.append(f"{ast.unparse(given[at])} and {ast.unparse(given[at + 1])}")

    assert unnoticed == []


def test_padding_without_a_name_is_refused():
    """Else bytes would be shifted silently."""
    with pytest.raises(TypeError, match="padding"):
        build_packer(np.dtype([("a", "u1"), ("b", "<i8")], align=True))


def test_pauses_double_up_to_a_ceiling_and_begin_small_again():
    """Spread by a fifth either way."""
    backoff = Backoff(1.0, 60.0)

    pauses = [backoff.next_s() for _ in range(40)]
    backoff.reset()

    for pause, plain in zip(pauses, [1, 2, 4, 8, 16, 32, *[60] * 34], strict=True):
        assert 0.8 * plain <= pause <= 1.2 * plain
    assert len(set(pauses)) > 30
    assert backoff.next_s() <= 1.2
