// Client of echomimic-live: sound goes up, and a face that speaks it comes back, picture by picture.

export { SAMPLE_RATE } from "./clock.js";
export { ClientError } from "./errors.js";
export { Face, connect } from "./face.js";
export { PacedSpeech } from "./paced-speech.js";
export { Pictures, knownCodecs } from "./pictures.js";
export { Playout } from "./playout.js";
export { Resampler } from "./resampler.js";
export { Server } from "./server.js";
export { Session } from "./session.js";
export { ShownFace, show } from "./show.js";
export { Stats } from "./stats.js";
export { Wire } from "./wire.js";
