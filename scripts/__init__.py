"""Command-line tools: supervisor (behind ``run_all.sh``), client, benchmark, pose converter."""
