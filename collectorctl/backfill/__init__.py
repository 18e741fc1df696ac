"""Backfill: days before a symbol was collected, as far back as the broker has them: `collectorctl backfill`."""
