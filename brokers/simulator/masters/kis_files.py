"""KIS symbol masters: zipped files of fixed-width rows, served without a key.

    GET /common/master/kospi_code.mst.zip   kosdaq_code.mst.zip   konex_code.mst.zip

Guarantees:
    * Rows are CP949, their names 40 bytes wide, the fields behind them as wide as the vendor's own tables have them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from io import BytesIO

from aiohttp import web

from brokers.simulator.exchange.consolidated import AnyListing
from brokers.simulator.kis.auth import ANY_SLASHES
from brokers.simulator.masters.entries import ETF, ETN, FUND, SPAC, STOCK, MasterEntry, list_masters

GROUPS = {STOCK: "ST", SPAC: "ST", ETF: "EF", ETN: "EN", FUND: "BC"}
MARKETS = {"kospi_code": "KOSPI", "kosdaq_code": "KOSDAQ", "konex_code": "KONEX"}


class MasterRoutes:
    """The files, made of the market's listings when they are asked for."""

    def __init__(self, listings: Callable[[], Iterable[AnyListing]]) -> None:
        self._listings = listings

    def build_routes(self) -> list[web.RouteDef]:
        """One route for all files."""
        return [web.get(f"/{ANY_SLASHES}common/master/{{name}}.mst.zip", self.handle)]

    async def handle(self, request: web.Request) -> web.Response:
        """One file."""
        name = request.match_info["name"]
        if name not in MARKETS:
            raise web.HTTPNotFound
        entries = [entry for entry in list_masters(self._listings()) if entry.market == MARKETS[name]]
        return web.Response(body=encode_master(name, entries), content_type="application/zip")


def encode_master(name: str, entries: Iterable[MasterEntry]) -> bytes:
    """The zipped file of a market."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.mst", b"".join(_encode_row(name, entry) + b"\n" for entry in entries))
    return file.getvalue()


def _encode_row(name: str, entry: MasterEntry) -> bytes:
    standard = f"KR7{entry.symbol[:6]}003"[:12]
    head = f"{entry.symbol:<9}{standard:<12}".encode("ascii") + entry.name.encode("cp949").ljust(40)
    return head + "".join([*_LEAD[name](entry), *_encode_common(entry), *_encode_end(name, entry)]).encode("ascii")


def _yes(flag: bool) -> str:
    return "NY"[flag]


def _lead_of_kospi(entry: MasterEntry) -> list[str]:
    sector = "5" if entry.product == STOCK and entry.close * entry.shares > 10**12 else "0"
    etp = {ETF: "2", ETN: "3", FUND: "5"}.get(entry.product, " ")
    indices = ["N", "N", " ", sector, "N", "N", " ", etp, "N", *"NNNNN"]
    return [GROUPS[entry.product], "2", *(["0000"] * 3), *indices, _yes(entry.product == SPAC), *"NN0NNNNNNNY"]


def _lead_of_kosdaq(entry: MasterEntry) -> list[str]:
    flags = ["N", "N", " ", " ", *"NNNNN", _yes(entry.product == SPAC), *"NN0NNNNNNN", "N"]
    return [GROUPS[entry.product], "2", *(["0000"] * 3), *flags]


def _lead_of_konex(entry: MasterEntry) -> list[str]:
    return [GROUPS[entry.product]]


_LEAD: dict[str, Callable[[MasterEntry], list[str]]] = {
    "kospi_code": _lead_of_kospi,
    "kosdaq_code": _lead_of_kosdaq,
    "konex_code": _lead_of_konex,
}


def _encode_common(entry: MasterEntry) -> list[str]:
    """What every file has, from the base price to KRX300."""
    units, halts = [f"{1:05}", f"{1:05}"], [_yes(entry.halted), "N", _yes(entry.managed)]
    alarms, allowed = ["00", "NNN", "00", "00", "00"], ["100", "N", "000"]
    shares = ["000000000000", f"{5000:012}", entry.listed, f"{entry.shares // 1000:015}", f"{0:021}"]
    return [f"{entry.close:09}", *units, *halts, *alarms, *allowed, *shares, "12", f"{0:>7}", "0", "N", "N", "N"]


def _encode_end(name: str, entry: MasterEntry) -> list[str]:
    """Results, market capitalisation, and what the broker allows; by file."""
    results = [f"{0:09}", f"{0:09}", f"{0:09}", f"{0:05}", f"{0:06}.00", "20251231"]
    capitalisation = f"{entry.close * entry.shares // 100_000_000:09}"
    kospi = [_yes(entry.product == STOCK)] if name == "kospi_code" else []
    group = [] if name == "konex_code" else ["   "]
    return [*kospi, *results, capitalisation, *group, "NNN"]
