"""Relay: the live stream of a home as the vendors' own WebSockets, where it is switched on.

keys.py       who is let in
feed.py       one vendor's form of the stream, and its clients
service.py    the process: rings in, both vendors' servers out
__main__.py   its entry point
"""
