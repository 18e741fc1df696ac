"""Relay: the live stream of a home as the vendors' own WebSockets, where it is switched on.

keys.py       who is let in
feed.py       one vendor's form of the stream, and its clients
gateway.py    both vendors' servers
service.py    the process: rings in
stored.py     a stored day instead of the rings
replay.py     `collectorctl replay`
__main__.py   its entry point
"""
