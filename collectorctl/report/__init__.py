"""Report of a day: one HTML page, made of stored files."""
