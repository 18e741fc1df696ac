"""Publication of hourly Parquet partitions out of the journal."""
