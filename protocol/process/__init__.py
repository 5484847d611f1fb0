"""What every stage process needs: settings, logs, metrics, the work loop."""
