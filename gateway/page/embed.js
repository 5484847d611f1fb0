// /embed: the face alone, for a frame in another page, a browser source of OBS, or a kiosk. It speaks what the
// holding page hands over (holder.js), or what the microphone hears.

import { Access } from "./access.js";
import { PacedSpeech } from "./client/paced-speech.js";
import { Session } from "./client/session.js";
import { isHeard } from "./echo.js";
import { readOptions } from "./embed-options.js";
import { EmbedUi } from "./embed-ui.js";
import { describe } from "./errors.js";
import { Holder } from "./holder.js";
import { Microphone } from "./microphone.js";
import { ServerWatch } from "./server-watch.js";
import { t, translate } from "./text.js";

/**
 * @import { ClientError } from "./client/errors.js"
 * @import { Source } from "./client/source.js"
 * @import { FramePlace } from "./client/whereabouts.js"
 * @import { StateDetails, WireState } from "./client/wire.js"
 * @import { Message } from "./holder.js"
 * @import { Catalogue } from "./ui.js"
 */

const LOOK = 100; // milliseconds between two looks at the session
const FIRST_WORDS = 1000; // milliseconds that a holding page may take to speak
const BEGIN_AGAIN = 5000; // milliseconds from an ended session of the microphone to the next one
const KEEP = 30000; // milliseconds that a session is kept after its last speech

class EmbeddedFace {
  constructor() {
    this.options = readOptions(new URLSearchParams(window.location.search));
    this.access = new Access();
    this.ui = new EmbedUi(this.options, () => this.tapped());
    /** @type {Session | null} */
    this.session = null;
    /** @type {PacedSpeech | null} */
    this.speech = null; // what the holding page hands over
    this.expected = false; // speech was handed over, and its first picture has not come
    this.speaking = false;
    this.quietSince = 0;
    this.refused = false;
    /** @type {Catalogue | null} */
    this.catalogue = null;
    this.holder = new Holder((kind, message) => this.takeMessage(kind, message));
    this.watch = new ServerWatch(this.access, {
      ready: (catalogue) => this.serverReady(catalogue),
      loading: () => this.ui.showState("loading"),
      refused: (error) => this.serverRefused(error),
      lost: () => this.ui.showState("loading"),
    });
    // A holding page gives its token with its first words. Without them the face goes on after a moment.
    setTimeout(() => this.watch.round || this.watch.start(), this.holder.held ? FIRST_WORDS : 0);
    setInterval(() => this.look(), LOOK);
  }

  get wanted() {
    return { avatar: this.options.avatar, pose: this.options.pose };
  }

  // ---- from the server

  /** @param {Catalogue} catalogue */
  serverReady(catalogue) {
    const first = !this.catalogue;
    const changed = JSON.stringify(catalogue) !== JSON.stringify(this.catalogue);
    this.catalogue = catalogue;
    this.showPortrait();
    this.ui.showGenerated(catalogue.generated && this.options.label);
    if (this.refused) this.ui.showError("");
    if (changed || this.refused) this.tellReady();
    this.refused = false;
    if (this.session) this.watch.stop();
    else this.ui.showState("idle");
    if (first && this.options.mic) this.useMicrophone();
  }

  greet() {
    this.holder.tell("hello");
    if (!this.watch.round) this.watch.start();
    this.tellReady();
  }

  tellReady() {
    if (!this.catalogue) return;
    const { avatars, poses, names, width, height } = this.catalogue;
    this.holder.tell("ready", { avatars, poses, names, width, height });
  }

  showPortrait() {
    const name = this.options.avatar ?? this.catalogue?.avatars[0];
    if (name && this.catalogue?.avatars.includes(name)) this.ui.showPortrait(this.access, name);
  }

  /** @param {unknown} error */
  failed(error) {
    const { code, text } = describe(error);
    this.ui.showError(text);
    this.holder.tell("error", { code, text });
  }

  /** @param {ClientError} error why the server does not let the face in */
  serverRefused(error) {
    this.refused = true;
    // A face at rest keeps looking well: its holding page may have a new token before anybody speaks.
    if (this.holder.held && this.catalogue && !this.session) this.holder.tell("error", describe(error));
    else this.failed(error);
  }

  // ---- from the holding page

  /**
   * @param {string} kind
   * @param {Message} message
   */
  takeMessage(kind, message) {
    if (kind === "hello") this.greet();
    else if (kind === "token") this.changeToken(String(message.token ?? ""));
    else if (kind === "options") this.changeOptions(message);
    else if (kind === "speak") this.speak(message.samples, Number(message.rate));
    else if (kind === "flush") this.speech?.flush();
    else if (kind === "stop") this.stop();
    else if (kind === "mute") this.mute(typeof message.muted === "boolean" ? message.muted : null);
    else if (kind === "microphone") this.switchMicrophone(Boolean(message.on));
  }

  /** @param {string} token */
  changeToken(token) {
    if (token === this.access.token) return;
    this.access.set(token);
    if (!this.session || !this.catalogue) this.watch.start();
    this.session?.retry();
  }

  /** @param {Message} message */
  changeOptions({ avatar, pose }) {
    if (typeof avatar === "string") this.options.avatar = avatar || undefined;
    if (typeof pose === "string") this.options.pose = pose || undefined;
    this.showPortrait();
    this.session?.change(this.wanted);
  }

  /**
   * @param {unknown} samples
   * @param {number} rate
   */
  speak(samples, rate) {
    if (!(samples instanceof Float32Array)) {
      this.holder.tell("error", { code: "bad_audio", text: "speak takes a Float32Array." });
      return;
    }
    if (this.session && !this.speech) this.stop(); // the microphone gives way
    this.speech ??= new PacedSpeech();
    const refusal = this.speech.add(samples, rate);
    if (refusal) {
      this.holder.tell("error", { code: "bad_audio", text: refusal });
      return;
    }
    this.expected ||= !this.speaking;
    if (!this.session) this.begin(this.speech);
  }

  /** @param {boolean | null} muted null: as it is without a wish */
  mute(muted) {
    this.options.heard = muted === null ? null : !muted;
    const { session } = this;
    if (!session) return;
    session.mute(this.mutes(session.source));
    if (this.mutes(session.source)) this.ui.showTap("");
  }

  /** @param {Source} source of the speech */
  mutes(source) {
    return !isHeard(this.options.heard, source instanceof Microphone);
  }

  /** @param {boolean} on */
  switchMicrophone(on) {
    this.options.mic = on;
    if (on) this.useMicrophone();
    else if (!this.speech) this.stop();
  }

  // ---- the session

  useMicrophone() {
    if (this.session && !this.speech) return;
    this.stop();
    this.expected = true;
    this.begin(new Microphone());
  }

  /** @param {Microphone | PacedSpeech} source */
  async begin(source) {
    /** @type {Session} */
    const mine = new Session(this.ui.canvas, source, this.access, this.wanted, null, {
      state: (name, details) => {
        if (this.session === mine) this.stateChanged(name, details);
      },
      ready: () => {},
      picture: (place) => this.pictureShown(place),
      level: () => {},
    });
    this.session = mine;
    if (this.catalogue) this.watch.stop();
    this.ui.showState("connecting");
    if (source instanceof PacedSpeech) source.onFlush = () => mine.flush();
    try {
      const heard = await mine.start(this.mutes(source));
      if (this.session === mine && !heard) this.askForTap(t("embed.tap.sound"));
    } catch (error) {
      if (this.session !== mine) return;
      this.stop();
      // The microphone needs the browser's sound, and that may need a tap.
      if (describe(error).code === "no_sound") this.askForTap(t("embed.tap.speak"));
      else this.failed(error);
    }
  }

  /** @param {FramePlace} place */
  pictureShown(place) {
    this.ui.showFace(true);
    this.holder.tell("frame", place);
    if (!this.expected) return;
    this.expected = false;
    this.speaking = true;
    this.holder.tell("speechstart");
  }

  /**
   * @param {WireState} name
   * @param {StateDetails} details
   */
  stateChanged(name, details) {
    if (name === "ended") {
      this.stop();
      if (details.error) this.failed(details.error);
      // Nobody stands by a kiosk or a stream to press a button.
      setTimeout(() => this.options.mic && !this.session && this.useMicrophone(), BEGIN_AGAIN);
    } else if (name === "waiting") {
      this.ui.showState("waiting");
      const { code } = describe(details.error);
      if (code !== "lost" && code !== "shutdown") this.failed(details.error);
    } else {
      this.ui.showState(name);
      if (name === "live") this.ui.showError("");
    }
  }

  // Whether all speech was shown and heard, and whether the session is still needed.
  look() {
    const { session, speech } = this;
    if (!session) return;
    if (session.playout.timeline.audible) this.ui.showTap("");
    if (!speech) return;
    const now = performance.now();
    const quiet = speech.empty && session.drained(now - speech.sentAt);
    if (!quiet) this.quietSince = now;
    else if (this.speaking) this.ended();
    if (quiet && now - this.quietSince > KEEP) this.stop();
  }

  ended() {
    this.speaking = false;
    this.holder.tell("speechend");
  }

  stop() {
    if (this.session) this.watch.start();
    this.session?.stop();
    this.session = null;
    this.speech = null;
    this.expected = false;
    if (this.speaking) this.ended();
    this.ui.showFace(false);
    this.ui.showState("idle");
  }

  // ---- sound that the browser holds back

  /** @param {string} text */
  askForTap(text) {
    this.ui.showTap(text);
    this.holder.tell("tap", { text });
  }

  tapped() {
    this.ui.showTap("");
    if (this.session) this.session.playout.open();
    else if (this.options.mic) this.useMicrophone();
  }
}

translate();
const face = new EmbeddedFace();

// For tests and for a curious person's console.
Object.defineProperty(window, "echomimic", {
  value: {
    get stats() {
      return face.session?.stats ?? null;
    },
    get state() {
      return document.body.dataset.state;
    },
    get heard() {
      return Boolean(face.session && !face.session.playout.muted);
    },
    get audible() {
      return face.session?.playout.timeline.audible ?? false;
    },
  },
});
