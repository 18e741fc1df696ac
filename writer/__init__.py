"""Writer process: rings into a journal, and the journal into hourly Parquet."""
