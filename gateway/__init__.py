"""The gateway: serves the page, holds the websocket sessions, plays pictures out with their sound."""
