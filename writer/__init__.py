"""One process that turns rings into hourly Parquet: intake, merge, journal, publication."""
