"""Shared memory between processes: records, rings, vitals."""
