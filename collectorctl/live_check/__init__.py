"""Check of keys, wire and machine against the brokers themselves: `collectorctl check --live`."""
