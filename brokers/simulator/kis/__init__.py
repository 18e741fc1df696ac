"""KIS Open API server: WebSocket, authentication, REST, domestic and overseas."""
