"""The KL decoder fast on a GPU."""
