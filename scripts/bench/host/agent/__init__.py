"""How a voice agent fares: interruptions, the first picture of a burst, speech with gaps."""
