"""One live feed: connection loop, liveness, publishing, heartbeat, quarantine."""
