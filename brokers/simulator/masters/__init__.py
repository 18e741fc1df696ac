"""Symbols as the vendors' masters list them, and KIS's files of them."""
