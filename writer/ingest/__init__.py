"""Feed rings to accepted rows: ordered reading, book arbitration, backfill filter."""
