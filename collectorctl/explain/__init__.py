"""What became of what a line delivered, and when a line could deliver nothing."""
