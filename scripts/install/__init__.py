"""Installs packages into the virtual environment that runs it. It needs nothing but Python's own library."""
