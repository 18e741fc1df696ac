"""The command line over a home: start, watch, rehearse, read."""
