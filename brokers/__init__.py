"""Broker feeds: connect, subscribe, decode, publish; one folder per vendor."""
