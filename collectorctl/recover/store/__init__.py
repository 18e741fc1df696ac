"""Stored day of one instrument: reading, staging, rewriting partitions."""
