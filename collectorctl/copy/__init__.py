"""Copies of certified days at another place."""
