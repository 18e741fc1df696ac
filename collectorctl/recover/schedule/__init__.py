"""Scheduled recovery: when it is due, the runner, the state of the last run."""
