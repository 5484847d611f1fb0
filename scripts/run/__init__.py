"""The launcher: it starts the stages, keeps them running and stops them."""
