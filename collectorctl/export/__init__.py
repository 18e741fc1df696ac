"""Export of certified days into the formats of other programs."""
