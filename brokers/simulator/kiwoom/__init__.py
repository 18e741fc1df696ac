"""Kiwoom REST API server: WebSocket, authentication, charts and trade lists."""
