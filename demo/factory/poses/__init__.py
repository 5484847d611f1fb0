"""Makes the bundled pose tracks."""
