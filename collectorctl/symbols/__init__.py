"""Symbols of the Korean market: the vendors' masters, one table a day, and what the universe is by it."""
