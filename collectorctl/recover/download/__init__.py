"""REST download: paging, page store, rate limit, minute bars, daily totals."""
