"""Notifications: what the verdict finds, sent to whoever is not looking."""
