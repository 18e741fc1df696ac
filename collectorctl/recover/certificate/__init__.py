"""Completeness certificates of a day."""
