"""What this machine's processor and GPU offer: arithmetic, threads, memory."""
