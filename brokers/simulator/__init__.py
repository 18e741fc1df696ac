"""Simulator: a seeded exchange, and servers of the vendors in front of it as their documents describe them."""
