"""The needs of every stage process: settings, logs, metrics, the work loop."""
