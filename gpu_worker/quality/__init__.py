"""`--quality auto`: warm-up times the card and picks what it holds in real time."""
