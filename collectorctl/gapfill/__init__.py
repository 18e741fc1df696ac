"""Short gaps are filled while the day goes on, from KIS's REST.

waiting.py    which gap is asked for next (pure)
proof.py      which fetched rows fill a gap, to the share, the won and the trade (pure)
filler.py     the loop: hear of gaps, ask, prove, hand over
__main__.py   the process
"""
