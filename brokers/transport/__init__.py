"""WebSocket and HTTPS transport, access-token cache, backoff."""
