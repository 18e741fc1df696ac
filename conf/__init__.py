"""What every process knows before it starts: settings, home, clock, instruments, rites."""
