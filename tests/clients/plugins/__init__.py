"""Programs of other frameworks that use the plugins. They run in an environment of their own."""
