"""A phone's way in: the address that the console shows, HTTPS with the self-signed certificate, the microphone."""
