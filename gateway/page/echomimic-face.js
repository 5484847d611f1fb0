// <echomimic-face>: a face that speaks, in a page of any site that the server names in --embed-origins.
//
//   <script type="module" src="SERVER/echomimic-face.js"></script>
//   <echomimic-face avatar="maya"></echomimic-face>
//   document.querySelector("echomimic-face").speak(samples, 24000);
//
// It holds the server's /embed in a frame and talks to it by messages. Nothing of the server's runs in this page
// but this file, and nothing of this page is seen by the server.
//
// Attributes: server (default: where this file came from), token, avatar, pose, background, fit, muted, mic.
// Events: ready, speechstart, speechend, frame, tap, error. `detail` has their fields.

/**
 * @typedef {Record<string, unknown> & {echomimic: string}} FrameMessage
 * @typedef {{stop: () => void}} Listening
 */

const HOME = new URL(".", import.meta.url).href;
const ANSWER_WITHIN = 5000; // milliseconds from the frame's load to its first word
const MOST_QUEUED = 2000; // messages that wait for the frame
const RATE = 16000; // of what the server's worklet gives
const EVENTS = ["ready", "speechstart", "speechend", "frame", "tap", "error"];

const SHEET = `
  :host { display: inline-block; width: 320px; aspect-ratio: 1; }
  :host([hidden]) { display: none; }
  iframe { display: block; width: 100%; height: 100%; border: 0; background: transparent; color-scheme: light; }
`;

/**
 * The mean of an AudioBuffer's channels.
 *
 * @param {AudioBuffer} buffer
 */
function monoOf(buffer) {
  const mono = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel += 1) {
    const samples = buffer.getChannelData(channel);
    for (let n = 0; n < mono.length; n += 1) mono[n] += samples[n] / buffer.numberOfChannels;
  }
  return mono;
}

/**
 * Hands on what a stream carries, until it ends or stop() is called.
 *
 * @param {MediaStream} stream
 * @param {string} server
 * @param {(samples: Float32Array) => void} onSamples
 * @returns {Promise<Listening>}
 */
async function listen(stream, server, onSamples) {
  const context = new AudioContext();
  const stop = () => context.state !== "closed" && context.close();
  try {
    await context.audioWorklet.addModule(new URL("capture-worklet.js", server));
  } catch (error) {
    stop();
    throw error;
  }
  const node = new AudioWorkletNode(context, "capture", {
    numberOfInputs: 1,
    numberOfOutputs: 1,
    channelCount: 1,
    channelCountMode: "explicit",
  });
  node.port.onmessage = ({ data }) => onSamples(data.samples);
  context.createMediaStreamSource(stream).connect(node);
  node.connect(context.destination); // silence, which keeps the node running
  for (const track of stream.getAudioTracks()) track.addEventListener("ended", stop);
  await context.resume();
  return { stop };
}

export class EchomimicFace extends HTMLElement {
  static observedAttributes = ["server", "token", "avatar", "pose", "background", "fit", "muted", "mic"];

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet(); // the holding page's policy need not allow inline styles
    sheet.replaceSync(SHEET);
    root.adoptedStyleSheets = [sheet];
    /** @type {HTMLIFrameElement | null} */
    this.frame = null;
    /** @type {FrameMessage[]} */
    this.queue = []; // until the frame answers
    this.answered = false;
    this.timer = 0;
    /** @type {Set<Listening>} */
    this.streams = new Set();
    this.take = (/** @type {MessageEvent} */ event) => this.takeMessage(event);
  }

  /** Address of the server, with a slash at its end. */
  get server() {
    const given = this.getAttribute("server");
    if (!given) return HOME;
    return new URL(given.endsWith("/") ? given : `${given}/`, document.baseURI).href;
  }

  // ---- speech

  /**
   * Speaks a sound. Sounds that come while one is spoken follow it.
   *
   * @param {Float32Array | AudioBuffer | MediaStream} sound mono samples from -1 to 1, or anything with sound
   * @param {number} sampleRate of the samples
   */
  speak(sound, sampleRate = RATE) {
    if (sound instanceof MediaStream) this.speakStream(sound);
    else if (sound instanceof AudioBuffer) this.post("speak", { samples: monoOf(sound), rate: sound.sampleRate });
    else this.post("speak", { samples: sound, rate: sampleRate });
  }

  /** @param {MediaStream} stream */
  async speakStream(stream) {
    try {
      const listening = await listen(stream, this.server, (samples) => this.post("speak", { samples, rate: RATE }));
      this.streams.add(listening);
    } catch (error) {
      this.tell("error", { code: "bad_audio", text: `The stream's sound cannot be read. (${error})` });
    }
  }

  /** The sentence is complete: its end need not wait for more. */
  flush() {
    this.post("flush");
  }

  /** Falls silent at once, and forgets what was still to be said. */
  stop() {
    for (const listening of this.streams) listening.stop();
    this.streams.clear();
    this.queue = this.queue.filter(({ echomimic }) => echomimic !== "speak" && echomimic !== "flush");
    this.post("stop");
  }

  // ---- the frame

  connectedCallback() {
    window.addEventListener("message", this.take);
    this.load();
  }

  disconnectedCallback() {
    window.removeEventListener("message", this.take);
    for (const listening of this.streams) listening.stop();
    this.streams.clear();
    this.unload();
  }

  /**
   * @param {string} name
   * @param {string | null} before
   * @param {string | null} value
   */
  attributeChangedCallback(name, before, value) {
    if (!this.frame || before === value) return;
    if (name === "token") this.post("token", { token: value ?? "" });
    else if (name === "avatar" || name === "pose") this.post("options", { [name]: value ?? "" });
    else if (name === "muted") this.post("mute", { muted: value === null ? null : !["0", "false"].includes(value) });
    else this.load(); // the frame's address or its permissions change
  }

  load() {
    this.unload();
    const address = new URL("embed", this.server);
    for (const name of ["avatar", "pose", "background", "fit", "muted", "mic"]) {
      const value = this.getAttribute(name);
      if (value !== null) address.searchParams.set(name, value);
    }
    const frame = document.createElement("iframe");
    // The face needs sound without a tap of its own, and the microphone only where the page says so.
    frame.allow = this.hasAttribute("mic") ? "autoplay; microphone" : "autoplay";
    frame.title = this.title || "A face that speaks";
    frame.addEventListener("load", () => this.greet());
    // Until the face answers, the frame may hold the browser's own page about an error.
    frame.style.visibility = "hidden";
    frame.src = address.href;
    this.frame = frame;
    this.shadowRoot?.append(frame);
  }

  unload() {
    clearTimeout(this.timer);
    this.frame?.remove();
    this.frame = null;
    this.answered = false;
  }

  greet() {
    this.send({ echomimic: "hello" });
    // Not by the address: addresses end up in logs.
    const token = this.getAttribute("token");
    if (token) this.send({ echomimic: "token", token });
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const text =
        `The face did not answer. Is ${this.server} reached, and does it name ` +
        `${window.location.origin} in --embed-origins?`;
      this.tell("error", { code: "no_answer", text });
    }, ANSWER_WITHIN);
  }

  /** @param {FrameMessage} message */
  send(message) {
    this.frame?.contentWindow?.postMessage(message, new URL(this.server).origin);
  }

  /**
   * @param {string} kind
   * @param {Record<string, unknown>} fields
   */
  post(kind, fields = {}) {
    const message = { ...fields, echomimic: kind };
    if (this.answered) this.send(message);
    else if (this.queue.length < MOST_QUEUED) this.queue.push(message);
  }

  /** @param {MessageEvent} event */
  takeMessage({ source, origin, data }) {
    if (source !== this.frame?.contentWindow || origin !== new URL(this.server).origin) return;
    const { echomimic: kind, ...detail } = data ?? {};
    if (kind === "hello") {
      clearTimeout(this.timer);
      this.answered = true;
      if (this.frame) this.frame.style.visibility = "visible";
      for (const message of this.queue.splice(0)) this.send(message);
    } else if (EVENTS.includes(kind)) {
      if (kind === "ready" && detail.width) this.style.aspectRatio = `${detail.width} / ${detail.height}`;
      this.tell(kind, detail);
    }
  }

  /**
   * @param {string} kind
   * @param {Record<string, unknown>} detail
   */
  tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}

if (!customElements.get("echomimic-face")) customElements.define("echomimic-face", EchomimicFace);
