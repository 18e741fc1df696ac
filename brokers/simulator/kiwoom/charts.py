"""Kiwoom chart TRs: ka10079 by trades, ka10080 by minutes, ka10081 by days (pure).

Guarantees:
    * Every row is computed from the trade history, with the names, units and signs of docs/wire/kiwoom.md 5.1 to 5.3: prices
      of ticks and days unsigned, those of minutes signed by the side of the previous close.
"""

from __future__ import annotations

from brokers.simulator.exchange.trade_history import TradeGroups, format_hhmmss
from brokers.simulator.kiwoom.encode import MILLION, encode_sign, format_price, format_share, format_signed
from brokers.simulator.kiwoom.paging import CODE_PATTERN, DATE_PATTERN, EMPTY_PAGE, Field, ListRequest, Page, Tr

PATH = "/api/dostk/chart"
ROWS = 900
DAY_ROWS = 600


def build_tick_chart(request: ListRequest) -> Page:
    """ka10079: groups of `tic_scope` trades, no date to be passed, the last days only (docs/wire/kiwoom.md 5.1)."""
    history = request.listing.history
    end = len(history) if request.start is None else request.start
    oldest = history.find_horizon(request.horizon_days)
    groups = history.build_groups(end, ROWS, oldest, history.split_by_count(int(request.fields["tic_scope"])))
    if groups is None:
        return EMPTY_PAGE
    rows = []
    columns = (groups.open, groups.high, groups.low, groups.last, groups.size, groups.rows["exch_s"])
    for first, high, low, last, size, exch_s, day in _iterate_newest_first(groups, *columns):
        change = last - day.previous_close
        rows.append(
            {
                "cur_prc": str(last),
                "trde_qty": str(size),
                "cntr_tm": day.date + format_hhmmss(exch_s),
                "open_pric": str(first),
                "high_pric": str(high),
                "low_pric": str(low),
                "pred_pre": str(abs(change)),
                "pred_pre_sig": encode_sign(last, day),
            }
        )
    first_row = int(groups.first[0])
    return Page(rows, end, first_row if first_row > oldest else None)


def build_minute_chart(request: ListRequest) -> Page:
    """ka10080: bars stamped with their start; `base_dt` is the newest day (docs/wire/kiwoom.md 5.2)."""
    history, minutes = request.listing.history, int(request.fields["tic_scope"])
    end = request.start
    if end is None:
        days = history.count_days_until(request.fields["base_dt"] or "99999999")
        end = history.find_day_rows(days - 1)[1] if days else 0
    groups = history.build_groups(end, ROWS, 0, history.split_by_minute(minutes))
    if groups is None:
        return EMPTY_PAGE
    rows = []
    bar_s = 60 * minutes
    columns = (groups.open, groups.high, groups.low, groups.last, groups.volume)
    sums = (groups.rows["cum_volume"], groups.rows["exch_s"] // bar_s * bar_s)
    for first, high, low, last, volume, cum_volume, begin_s, day in _iterate_newest_first(groups, *columns, *sums):
        rows.append(
            {
                "cur_prc": format_price(last, day),
                "trde_qty": str(volume),
                "cntr_tm": day.date + format_hhmmss(begin_s),
                "open_pric": format_price(first, day),
                "high_pric": format_price(high, day),
                "low_pric": format_price(low, day),
                "acc_trde_qty": str(cum_volume),
                "pred_pre": format_signed(last - day.previous_close),
                "pred_pre_sig": encode_sign(last, day),
            }
        )
    first_row = int(groups.first[0])
    return Page(rows, end, first_row or None)


def build_day_chart(request: ListRequest) -> Page:
    """ka10081: one row a day, today's growing; a place is a number of days (docs/wire/kiwoom.md 5.3)."""
    history = request.listing.history
    end = history.count_days_until(request.fields["base_dt"]) if request.start is None else request.start
    first = max(end - DAY_ROWS, 0)
    rows = []
    for _, day in reversed(history.list_traded_days()[first:end]):
        rows.append(
            {
                "cur_prc": str(day.last),
                "trde_qty": str(day.cum_volume),
                "trde_prica": str((day.cum_value + MILLION // 2) // MILLION),
                "dt": day.date,
                "open_pric": str(day.open),
                "high_pric": str(day.high),
                "low_pric": str(day.low),
                "pred_pre": format_signed(day.last - day.previous_close),
                "pred_pre_sig": encode_sign(day.last, day),
                "trde_tern_rt": f"+{format_share(day.cum_volume, day.listed_shares)}",
            }
        )
    return Page(rows, end, first or None)


def _iterate_newest_first(groups: TradeGroups, *columns):
    """The groups' rows as plain numbers, with the day of each."""
    return zip(*(column[::-1].tolist() for column in columns), reversed(groups.days), strict=True)


_BAR = ("cur_prc", "trde_qty", "cntr_tm", "open_pric", "high_pric", "low_pric")
_CHANGE = ("pred_pre", "pred_pre_sig")
_DAY = ("cur_prc", "trde_qty", "trde_prica", "dt", "open_pric", "high_pric", "low_pric", *_CHANGE, "trde_tern_rt")
_CODE, _ADJUSTED = Field(CODE_PATTERN), Field("[01]")

CHARTS = {
    "ka10079": Tr(
        PATH,
        "stk_tic_chart_qry",
        {"stk_cd": _CODE, "tic_scope": Field("1|3|5|10|30"), "upd_stkpc_tp": _ADJUSTED},
        (*_BAR, *_CHANGE),
        build_tick_chart,
        head_moves=True,
        head_fields=("stk_cd", "last_tic_cnt"),
    ),
    "ka10080": Tr(
        PATH,
        "stk_min_pole_chart_qry",
        {
            "stk_cd": _CODE,
            "tic_scope": Field("1|3|5|10|15|30|45|60"),
            "upd_stkpc_tp": _ADJUSTED,
            "base_dt": Field(DATE_PATTERN, optional=True),
        },
        (*_BAR, "acc_trde_qty", *_CHANGE),
        build_minute_chart,
        head_fields=("stk_cd",),
    ),
    "ka10081": Tr(
        PATH,
        "stk_dt_pole_chart_qry",
        {"stk_cd": _CODE, "base_dt": Field(DATE_PATTERN), "upd_stkpc_tp": _ADJUSTED},
        _DAY,
        build_day_chart,
        head_fields=("stk_cd",),
    ),
}
