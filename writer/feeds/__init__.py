"""Detection of a degraded feed that the other feed hides."""
