"""Coverage of cumulative volume by ticks: gaps and overlaps."""
