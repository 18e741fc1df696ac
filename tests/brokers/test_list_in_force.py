"""Another list in force: a collector subscribes to what is new and unsubscribes what went, on the connection that it has."""

from __future__ import annotations

import json

import msgspec
import pytest
from support.process_tree import wait_until

from brokers.allocation.failover import FailoverPolicy, FeedState
from conf.clock import SECOND_NS
from conf.files.replacement import replace_file
from conf.universe.listing import UniverseList

FIRST, SECOND = ["005930", "000660", "373220"], ["005930", "035420"]


def put(process, number: int, codes: list[str]) -> None:
    """Put a list in force as `reload` does."""
    found = UniverseList(number=number, entries=codes, table_day=None, kr=codes, us=[])
    replace_file(process.home.universe_path(), msgspec.json.encode(found))


def asked(vendor) -> list[tuple[str, str]]:
    """What the client asked for, in order: "+" or "-", and the code."""
    found = []
    for message in vendor.messages():
        if vendor.kind == "kis" and "body" in message:
            found.append(("+" if message["header"]["tr_type"] == "1" else "-", message["body"]["input"]["tr_key"]))
        elif message.get("trnm") in ("REG", "REMOVE"):
            sign = "+" if message["trnm"] == "REG" else "-"
            found += [(sign, item) for entry in message["data"] for item in entry["item"] if item]
    return found


@pytest.mark.parametrize("kind", ["kis", "kiwoom"])
def test_another_list_is_taken_up_on_the_same_connection_and_what_is_kept_is_not_touched(run, kind: str) -> None:
    """Nothing is asked about the kept symbol a second time, and its data goes on."""
    vendor, process = run(kind, universe=", ".join(f'"{code}"' for code in FIRST))
    process.until_state("streaming")
    before = len(asked(vendor))
    assert process.vitals().counters["list_number"] == 0

    put(process, 7, SECOND)
    wait_until("the list is taken up", lambda: process.vitals().counters["list_number"] == 7)
    vitals = process.until_state("streaming")

    changes = asked(vendor)[before:]
    assert set(changes) == {("-", "000660"), ("-", "373220"), ("+", "035420")}
    assert (vitals.counters["acknowledged"], vitals.counters["connects"], len(vendor.opened)) == (4, 1, 1)
    vendor.send(book(kind, "035420"))
    vendor.send(book(kind, "000660"))  # on its way when it was released: no reject
    assert sorted(set(process.records("orderbook", 2)["symbol"].tolist())) == [b"000660", b"035420"]
    assert process.vitals().counters["quarantined"] == 0


def test_a_list_that_cannot_be_taken_up_leaves_everything_as_it_is(run) -> None:
    """Here the file of the secrets was opened to others; the log has the reason, and no number confirms the list."""
    vendor, process = run("kis", universe='"005930"')
    process.until_state("streaming")
    secrets = process.home.root / ".env"
    secrets.chmod(0o644)

    put(process, 3, SECOND)
    wait_until("the reason", lambda: "the list in force is not taken up" in process.log())

    vendor.send(book("kis", "005930"))
    process.records("orderbook", 1)
    assert (process.vitals().counters["list_number"], process.vitals().state) == (0, "streaming")
    assert len(asked(vendor)) == 2


def test_a_take_over_lasts_while_another_list_comes() -> None:
    """What is known of the keys that stay is kept; a new key begins from nothing."""
    policy = FailoverPolicy(20.0, 60.0, [1, 2])
    up = FeedState(0, 3, 0)
    for second in range(0, 30):
        now = second * SECOND_NS
        policy.update(now, None, up._replace(heartbeat_ns=now), True)
    assert policy.active == {1, 2}

    policy.replace_keys([2, 3])

    assert policy.active == {2}
    assert policy.update(31 * SECOND_NS, None, up, True) == {2}
    assert policy.update(52 * SECOND_NS, None, up, True) == {2, 3}


def book(kind: str, code: str) -> str:
    """A book of a symbol on the wire."""
    if kind == "kis":
        fields = ["0"] * 63
        fields[0:3] = [code, "100000", "0"]
        fields[3:23] = ["72000"] * 20
        fields[23:45] = ["10"] * 20 + ["100", "100"]
        return f"0|H0STASP0|001|{'^'.join(fields)}"
    values = {"21": "100000", **{str(fid): "-72000" for fid in range(41, 61)}}
    values |= {str(fid): "5" for fid in range(61, 81)} | {"121": "50", "125": "50"}
    return json.dumps({"data": [{"type": "0D", "name": "x", "item": code, "values": values}], "trnm": "REAL"})
