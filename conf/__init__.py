"""What every process needs before it starts: settings, home, clock, calendar, instruments, process bootstrap."""
