"""What two stages must read alike of a model: configuration, weights, names, hardware."""
