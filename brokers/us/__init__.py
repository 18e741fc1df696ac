"""KIS's feed of the US exchanges."""
