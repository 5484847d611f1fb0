export const SAMPLE_RATE: 16000;
