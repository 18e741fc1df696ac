"""ZeroMQ publisher: the live stream of a home on loopback for programs in any language, where it is switched on.

envelope.py    a message on the wire: topic and JSON
history.py     numbers of each topic, last values, and the newest messages for whoever missed them
publisher.py   its sockets, and the process: rings in
replay.py      `collectorctl replay --zmq`: a stored day in
__main__.py    its entry point
sequence.py    what a subscriber missed, by the numbers
subscriber.py  `collectorctl.subscribe`
"""
