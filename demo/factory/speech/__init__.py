"""Training speech of the bundled model: synthetic voices with known phone times, and its augmentation."""
