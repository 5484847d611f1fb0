"""From PCM to the audio tokens of each clip: rolling buffer, Whisper features, token gather."""
