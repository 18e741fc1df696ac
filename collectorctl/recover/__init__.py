"""Recovery of missing ticks of a day, and the certificate that none is missing: `collectorctl recover`, `verify`."""
