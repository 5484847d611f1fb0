"""The bundled model against the drawn truth, through the streaming path: `python -m demo.evaluate`."""
