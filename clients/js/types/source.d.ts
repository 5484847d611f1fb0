/**
 * why no more sound comes
 */
export type EndReason = "unplugged" | "bad_file" | "finished";
/**
 * what keeps
 *   speech from coming just now: the browser delivers none, the microphone gives zeros alone, the browser asks for it, or
 *   it took another one than was wanted
 *
 * A source of speech. A Session opens it from a click, begins it once the server takes speech, and closes it.
 */
export type Trouble = "" | "speech_stopped" | "microphone_silent" | "microphone_asks" | "microphone_switched";
/**
 * `onChunk` takes mono speech at 16 kHz, `stale` counts chunks left out,
 *   `live` says that old speech is of no use, and `drop` forgets speech that waits in the source
 */
export type Source = {
    onChunk: (samples: Float32Array<ArrayBuffer>) => void;
    onEnd: (why: EndReason) => void;
    readonly stale: number;
    readonly live: boolean;
    readonly trouble?: Trouble;
    open: () => Promise<void>;
    begin: () => Promise<void>;
    pause: () => void;
    resume: () => void;
    close: () => void;
    drop?: () => void;
};
