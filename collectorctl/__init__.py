"""Command line over a home, and the processes beside collectors and writer: watchdog, gap filler, recovery."""
