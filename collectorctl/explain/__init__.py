"""Explanation of stored rows: arrivals, reasons, gaps, and outages of each feed."""
