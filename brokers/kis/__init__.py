"""KIS (Korea Investment & Securities): the domestic feed."""
