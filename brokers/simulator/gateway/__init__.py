"""Server side of one client connection: accept, subscribe, send queue, per-feed faults, rate limits."""
