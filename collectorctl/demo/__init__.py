"""Demo: an end-to-end run without keys or network, compared with the ground truth.

scenarios.py         timed actions on the process tree (pure)
environment.py       a home with a short day, a simulator process
scenario_runner.py   executes the actions
run.py               start, run, stop, recover, compare
recovery.py          recovery step: certificates before and after
oracle.py            stored rows compared with what was sent (pure)
pairing.py           books of stored rows by the truth's book id (pure)
result.py            violations and allowances (pure)
assertions.py        scenario-specific assertions (pure)
reconcile.py         recovered day compared with the trades (pure)
report.py            tables
us/                  the US feed beside it: oracle, minute bars and certificates
"""

from collectorctl.demo.run import run_demo
from collectorctl.demo.scenarios import DEMO_SCENARIOS

__all__ = ["DEMO_SCENARIOS", "run_demo"]
