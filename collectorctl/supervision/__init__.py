"""Process supervision: supervisord client, status, readiness, watchdog."""
