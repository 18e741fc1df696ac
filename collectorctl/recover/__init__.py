"""`collectorctl recover` and `verify`: the ticks that are missing of a day, and a proof that none is."""
