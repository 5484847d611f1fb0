// The clock of a session counts samples at this rate; protocol/wire/clock.py states the same number.

export const SAMPLE_RATE = 16000;
