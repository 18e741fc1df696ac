"""Benchmarks: each is a module of its own; `python -m benchmarks` runs those that need no process tree."""
