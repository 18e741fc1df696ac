"""A rehearsal without keys or network, judged against the truth.

stage.py      a home, a simulator, the process tree
oracle.py     what is on disk against what was sent (pure)
verdict.py    what of that breaks a promise (pure)
rehearsal.py  start, run, stop, compare
report.py     the table
"""

from collectorctl.demo.rehearsal import rehearse

__all__ = ["rehearse"]
