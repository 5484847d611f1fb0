"""The command line client and its checks."""
