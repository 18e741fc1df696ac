"""Placement of fetched trades into gaps of cumulative volume."""
