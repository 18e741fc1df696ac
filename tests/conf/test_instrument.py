"""Instruments: the forms there are, and no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.instrument import VENUE_BY_SUFFIX, Instrument, parse_instrument


@pytest.mark.parametrize(
    ("text", "symbol", "venue"),
    [
        ("005930", "005930", "KRX"),
        ("005930_NX", "005930", "NXT"),
        ("005930_AL", "005930", "UN"),
        ("0074K0", "0074K0", "KRX"),
        ("00104K_NX", "00104K", "NXT"),
        ("Q500001", "Q500001", "KRX"),
        ("Q500001_AL", "Q500001", "UN"),
    ],
)
def test_each_form_is_understood_and_given_back(text: str, symbol: str, venue: str) -> None:
    """parse and str are inverse."""
    found = parse_instrument(text)

    assert found == Instrument(symbol, venue)
    assert str(found) == text


@given(st.from_regex(r"\A(?:[0-9][0-9A-Z]{5}|Q[0-9A-Z]{6})\Z"), st.sampled_from(sorted(VENUE_BY_SUFFIX.values())))
def test_every_symbol_goes_round_on_every_venue(symbol: str, venue: str) -> None:
    """Any six characters that begin with a digit, any ETN."""
    assert parse_instrument(str(Instrument(symbol, venue))) == Instrument(symbol, venue)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5930",
        "0059300",
        "A05930",
        "005930_KS",
        "005930_nx",
        "00593k",
        "Q50001",
        "Q5000011",
        "005930\n",
        " 005930",
        "００５９３０",
        "AAPL",
    ],
)
def test_another_form_is_refused_with_the_forms_there_are(text: str) -> None:
    """ValueError: the text, and what to write."""
    with pytest.raises(ValueError, match="is not an instrument: write six characters such as 005930") as error:
        parse_instrument(text)

    assert repr(text) in str(error.value)
