"""The worker that makes speech of texts: one sentence after another, in pieces as the engine makes them."""
