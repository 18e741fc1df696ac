"""Text that leaves the program: control characters escaped, secrets masked."""
