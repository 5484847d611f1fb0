"""The bundled model against the drawn truth, through the streaming path.

Run it as `python -m demo.factory.evaluate`.
"""
