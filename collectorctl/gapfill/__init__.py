"""Gap filler: short gaps are backfilled during the day, over KIS REST.

queue.py      which gap is fetched next (pure)
verify.py     which fetched rows fill a gap, to the share, the won and the trade (pure)
service.py    the loop: read gaps, fetch, verify, publish
__main__.py   the process
"""
