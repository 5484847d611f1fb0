"""Stand-ins for the three workers, so that the gateway and the page run without torch and without a model."""
