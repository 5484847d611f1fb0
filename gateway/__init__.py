"""The gateway: serves the page, holds the websocket sessions, plays frames out with their sound."""
