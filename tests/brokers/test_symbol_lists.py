"""The vendors' lists of symbols: every field as the form has it, and a list with anything unreadable refused with its place."""

from __future__ import annotations

import zipfile
from datetime import date
from io import BytesIO

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.process_tree import SAMPLES

from brokers.kis.symbols import FILES, HEAD_BYTES, NAME_BYTES
from brokers.kis.symbols import parse_master as parse_kis
from brokers.kiwoom.symbols import parse_list as parse_kiwoom
from brokers.symbols import SymbolListError, SymbolRow

KIWOOM_ROW = {
    "code": "005930",
    "name": "삼성전자",
    "listCount": "0000005846278608",
    "auditInfo": "정상",
    "regDay": "19750611",
    "lastPrice": "00219500",
    "state": "증거금20%|담보대출|신용가능",
    "marketCode": "0",
    "marketName": "거래소",
    "upName": "전기전자",
    "upSizeName": "대형주",
    "companyClassName": "",
    "orderWarning": "0",
    "nxtEnable": "Y",
}


def zipped(market: str, rows: bytes) -> bytes:
    """A master file as it is downloaded."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(FILES[market][0], rows)
    return file.getvalue()


def kis_row(market: str = "KOSPI", **fields: str) -> bytes:
    """A row written field by field after the vendor's table; the fields named here replace its own."""
    widths = {"group": 2, "lead": FILES[market][1].base_price - 2, "base": 9, "units": 10, "halts": 3}
    values = {"group": "ST", "lead": "N" * widths["lead"], "base": "000219500", "units": "0000100001"}
    values |= {"halts": "NNN", "alarms": "00NNN000000", "allowed": "040Y090", "volume": "000019626666"}
    values |= {"par": "000000000100", "listed": "19750611", "shares": "000000005846278"}
    values |= {"rest": "0" * 999} | fields
    text = "".join(values.values())
    layout = FILES[market][1]
    end = layout.width - layout.market_cap
    filled = text[: layout.market_cap].ljust(layout.market_cap, "0") + "012832581".ljust(end)
    return f"{'005930':<9}KR7005930003".encode() + "삼성전자".encode("cp949").ljust(NAME_BYTES) + filled.encode()


def read_kiwoom(*rows: object, market: str = "KOSPI") -> list[SymbolRow]:
    return parse_kiwoom(msgspec.json.encode({"list": rows, "return_code": 0, "return_msg": ""}), market)


@pytest.mark.parametrize("market", FILES)
def test_every_field_of_a_kis_row_is_read_where_the_vendors_table_has_it(market: str) -> None:
    """Offsets differ by file; blanks of a flag mean no."""
    first, second = parse_kis(
        zipped(market, kis_row(market) + b"\n" + kis_row(market, group="EF", halts="YNY", listed="00000000") + b"\n"),
        market,
    )

    assert first[:7] == ("005930", "삼성전자", market, "STOCK", 219_500, None, 5_846_278_000)
    assert first[7:12] == (1_283_258_100_000_000, date(1975, 6, 11), False, False, False)
    assert (second.kind, second.halted, second.liquidation, second.managed) == ("ETF", True, False, True)
    assert second.listed_date is None


def test_recorded_rows_of_the_kis_files_are_read() -> None:
    """Shares and market capitalisation agree with the base price: no field is read one column off."""
    if not SAMPLES.exists():
        pytest.skip("specs/samples is not beside the checkout")
    rows = []
    for market in ("KOSPI", "KOSDAQ"):
        text = (SAMPLES / "2026-11" / f"kis_master_{market.lower()}_sample_2026.txt").read_text(encoding="utf-8")
        rows += parse_kis(zipped(market, text.encode("cp949")), market)

    assert [row.symbol for row in rows] == ["005930", "005380", "105560", "068270", "042700", "F70900001", "108860"]
    assert [row.kind for row in rows] == [*["STOCK"] * 5, "FUND", "STOCK"]
    assert rows[0].listed_date == date(1975, 6, 11) and rows[0].kospi200 and not rows[5].kospi200
    for row in rows:
        assert row.base_price and row.listed_shares and row.market_cap
        assert row.market_cap == pytest.approx(row.base_price * row.listed_shares, rel=0.02)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"005930   KR7005930003" + kis_row()[HEAD_BYTES + NAME_BYTES :], "bytes"),
        (kis_row()[:-50], "bytes"),
        (kis_row() + b" " * 60, "bytes"),
        (kis_row(base="00021950x"), "base price"),
        (kis_row(halts="?NN"), "halted"),
        (kis_row(listed="19751311"), "listed"),
        (kis_row(group="s1"), "group"),
        (b"\xff" * 9 + kis_row()[9:], "CP949"),
    ],
)
def test_a_kis_row_of_another_form_refuses_the_file_with_its_line(row: bytes, reason: str) -> None:
    """Nothing is guessed, and no row is left out: its symbol would look delisted."""
    with pytest.raises(SymbolListError, match=rf"kospi_code\.mst line 2: .*{reason}"):
        parse_kis(zipped("KOSPI", kis_row() + b"\n" + row + b"\n"), "KOSPI")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 900), st.binary(max_size=40))
def test_a_damaged_file_is_refused_or_read_whole(at: int, garbage: bytes) -> None:
    """Whatever bytes come: SymbolListError, or as many rows as there are lines."""
    whole = zipped("KOSPI", b"".join(kis_row() + b"\n" for _ in range(3)))
    damaged = whole[:at] + garbage + whole[at + len(garbage) :]

    try:
        assert len(parse_kis(damaged, "KOSPI")) == 3
    except SymbolListError:
        assert damaged != whole


def test_a_file_without_rows_or_without_the_master_is_refused() -> None:
    """An error page, an empty file, another file's archive."""
    for content in (b"", b"<html>404</html>", zipped("KOSPI", b""), zipped("KOSDAQ", kis_row("KOSDAQ"))):
        with pytest.raises(SymbolListError, match="kospi_code"):
            parse_kis(content, "KOSPI")


def test_every_field_of_a_kiwoom_row_is_read() -> None:
    """Kinds by marketCode, which is no market; an ETN gets its Q, a mark between bars is a state."""
    etn = KIWOOM_ROW | {"code": "500061", "marketCode": "70", "nxtEnable": "", "regDay": "00000000"}
    halted = KIWOOM_ROW | {"code": "0004Y0", "marketCode": "10", "companyClassName": "스팩"}
    halted |= {"state": "증거금100%|거래정지|관리종목", "orderWarning": "2"}
    unknown = KIWOOM_ROW | {"code": "999999", "marketCode": "77"}

    rows = read_kiwoom(KIWOOM_ROW, etn, halted, unknown)

    assert rows[0] == SymbolRow(
        *("005930", "삼성전자", "KOSPI", "STOCK", None, 219_500, 5_846_278_608),
        *(219_500 * 5_846_278_608, date(1975, 6, 11), False, False, False, True),
    )
    assert (rows[1].symbol, rows[1].kind, rows[1].nxt_eligible, rows[1].listed_date) == ("Q500061", "ETN", False, None)
    assert (rows[2].kind, rows[2].halted, rows[2].managed, rows[2].liquidation) == ("SPAC", True, True, True)
    assert rows[3].kind is None


@pytest.mark.parametrize(
    "fields",
    [
        *({"code": "../x"}, {"code": 5930}, {"name": ""}, {"lastPrice": "1,000"}, {"listCount": None}),
        *({"regDay": "1975-6-1"}, {"nxtEnable": "maybe"}, {"state": 1}),
    ],
)
def test_a_kiwoom_row_of_another_form_refuses_the_page_with_its_row(fields: dict[str, object]) -> None:
    """As of KIS: the place is named."""
    with pytest.raises(SymbolListError, match="ka10099 of KOSPI row 2: "):
        read_kiwoom(KIWOOM_ROW, KIWOOM_ROW | fields)


def test_names_from_outside_carry_no_control_characters() -> None:
    """They are printed and stored."""
    (row,) = read_kiwoom(KIWOOM_ROW | {"name": "가\x1b[2J나\u202e"})

    assert row.name.isprintable()
