"""Compaction of certified days: one file per dataset and day in place of the hours'."""
