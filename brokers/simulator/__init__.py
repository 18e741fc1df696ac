"""A simulated exchange with brokers in front of it: the market is seeded, the vendors are as documented."""
