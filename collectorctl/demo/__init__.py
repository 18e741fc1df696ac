"""A rehearsal without keys or network, judged against the truth.

script.py     what is done to the tree, and when (pure)
stage.py      a home with a short day, a simulator
prompter.py   does what the script says
rehearsal.py  start, run, stop, recover, compare
recovery.py   the ending: certificates before and after
oracle.py     what is on disk against what was sent (pure)
verdict.py    what of that breaks a promise (pure)
holds.py      what a scenario must leave behind besides (pure)
tiling.py     what is on disk after recovery against what was traded (pure)
report.py     the tables
"""

from collectorctl.demo.run import run_demo
from collectorctl.demo.scenarios import DEMO_SCENARIOS

__all__ = ["DEMO_SCENARIOS", "run_demo"]
