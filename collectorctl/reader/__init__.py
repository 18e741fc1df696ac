"""Readers of a home: live from the rings, and stored from the files."""
