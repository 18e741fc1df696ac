"""Verdict on the trading day: what was lost, what is being repaired, and whether a person is needed."""

from collectorctl.verdict.acknowledgement import acknowledge
from collectorctl.verdict.collect import collect_evidence
from collectorctl.verdict.rules import DiskRoom, Evidence, Finding, Level, Verdict, judge

__all__ = ["DiskRoom", "Evidence", "Finding", "Level", "Verdict", "acknowledge", "collect_evidence", "judge"]
