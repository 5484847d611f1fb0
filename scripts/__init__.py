"""Command-line tools: the supervisor behind ``run_all.sh``, the client, the benchmark and the pose converter."""
