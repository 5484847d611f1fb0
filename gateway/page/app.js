// The page: it waits until the server is ready, and holds one Session between Start and Stop.

import { Access } from "./access.js";
import { AudioFile, Microphone } from "./capture.js";
import { ClientError, isPassing, needsToken } from "./client/errors.js";
import { Session } from "./client/session.js";
import { describe } from "./errors.js";
import { keepForReload, takeKept } from "./kept-session.js";
import { ServerWatch } from "./server-watch.js";
import { Ui } from "./ui.js";

/**
 * @import { StateDetails, WireState } from "./client/wire.js"
 * @import { Kept } from "./kept-session.js"
 * @import { Catalogue, Group } from "./ui.js"
 */

/** @type {Record<string, string>} */
const STAGES = { audio_worker: "hearing", gpu_worker: "the face model", encoder_worker: "the picture encoder" };

/** @type {Session | null} */
let session = null;
let framesLostBefore = 0; // in this session, when the page last looked
/** @type {Kept | null} */
let before = takeKept(); // the session of this page before it was loaded again
const access = new Access();
const ui = new Ui(access, { startOrStop, choose: changeChoice, sound: hearVoice, token: useToken });
// A session ends the asking.
const watch = new ServerWatch(access, {
  ready: serverReady,
  loading: (stages = {}) => {
    const cold = Object.keys(stages).filter((name) => stages[name] !== "warm");
    ui.showState("loading", `Loading ${STAGES[cold[0]] ?? "the model"}…`);
  },
  refused: showRefusal,
  lost: () => ui.showState("loading", "Server not reached, trying again…"),
});

// For tests and for a curious person's console.
Object.defineProperty(window, "echomimic", {
  value: {
    get stats() {
      return session?.stats ?? null;
    },
    get state() {
      return document.body.dataset.state;
    },
  },
});

function isSupported() {
  return "AudioWorkletNode" in window && "createImageBitmap" in window && "getBigUint64" in DataView.prototype;
}

/** @param {Catalogue} catalogue */
function serverReady(catalogue) {
  if (document.body.dataset.state === "loading") {
    ui.showRefusal("", false);
    ui.fillChoices(catalogue, before?.options);
    ui.showRatio(catalogue.width, catalogue.height);
    ui.showGenerated(catalogue.generated);
    ui.showState("idle", "Ready");
    if (before) goOn(before);
  }
  ui.showNotice(catalogue.notice);
}

/**
 * After a reload the page goes on by itself where the browser gives the microphone without a question. Elsewhere
 * the next Start goes on.
 *
 * @param {Kept} kept
 */
async function goOn({ microphone }) {
  if (!microphone || session) return;
  try {
    const { state } = await navigator.permissions.query({ name: /** @type {PermissionName} */ ("microphone") });
    if (state === "granted" && !session) await start();
  } catch {
    // A browser that knows no such permission asks when the person presses Start.
  }
}

/** @param {ClientError} error why the server does not let the page in */
function showRefusal(error) {
  const { code, text } = describe(error);
  const asks = needsToken(code);
  ui.showState("loading", asks ? "Token needed" : isPassing(code) ? "Waiting…" : "Not let in");
  ui.showRefusal(text, asks);
}

/** @param {string} token */
function useToken(token) {
  if (access.set(token)) watch.start();
  else showRefusal(new ClientError("token_wrong"));
}

function startOrStop() {
  if (session) stop();
  else start();
}

async function start() {
  const file = ui.source === "file" ? ui.file : null;
  ui.showError("");
  if (ui.source === "file" && !file) {
    ui.showError(describe(new ClientError("no_file")).text);
    return;
  }
  ui.showState("connecting", file ? "Connecting…" : "Waiting for the microphone…");
  framesLostBefore = 0;
  const options = { avatar: ui.chosen("avatar"), pose: ui.chosen("pose") };
  const source = file ? new AudioFile(file) : new Microphone();
  const place = before?.place ?? null;
  /** @type {Session} */
  const mine = new Session(ui.canvas, source, access, options, place, {
    state: (name, details) => {
      if (session === mine) stateChanged(name, details);
    },
    ready: (fields) => {
      forgetBefore();
      ui.showRatio(fields.width, fields.height);
    },
    picture: () => ui.showFace(true),
    level: (level) => ui.showLevel(level),
  });
  session = mine;
  watch.stop();
  try {
    await mine.start(!ui.sound);
  } catch (error) {
    if (session === mine) stateChanged("ended", { error });
  }
}

function forgetBefore() {
  before = null;
}

function keepPlace() {
  const place = session?.place;
  if (!place) return;
  const options = { avatar: ui.chosen("avatar"), pose: ui.chosen("pose") };
  keepForReload({ place, options, microphone: ui.source === "microphone" });
}

function stop() {
  session?.stop();
  session = null;
  ui.showState("idle", "Ready");
  watch.start();
}

/**
 * @param {WireState} name
 * @param {StateDetails} details
 */
function stateChanged(name, details) {
  if (name === "ended") {
    stop();
    if (details.error) ui.showError(describe(details.error).text);
  } else if (name === "waiting") {
    const { code, text } = describe(details.error);
    if (needsToken(code)) {
      stop();
      return;
    }
    ui.showError(code === "lost" || code === "shutdown" ? "" : text);
    ui.showState("waiting", code === "busy" ? "Waiting for a place…" : "Reconnecting…");
  } else if (name === "connecting") {
    ui.showState(details.again ? "waiting" : "connecting", details.again ? "Reconnecting…" : "Connecting…");
  } else {
    ui.showError("");
    ui.showNotice(details.notice ?? "");
    ui.showState("live", "Live");
  }
}

/**
 * @param {Group} group
 * @param {string} name
 */
function changeChoice(group, name) {
  session?.change({ [group]: name });
}

/** @param {boolean} on */
function hearVoice(on) {
  session?.mute(!on);
}

function refresh() {
  ui.showFigures(session?.stats ?? null);
  if (!session) return;
  if (session.source instanceof AudioFile) ui.showProgress(session.source.progress);
  const server = session.stats.server;
  if (!server) return;
  const behind = server.frames_lost > framesLostBefore ? "The machine is behind: some pictures are left out." : "";
  framesLostBefore = server.frames_lost;
  ui.showNotice(server.notice || behind);
}

window.addEventListener("pagehide", keepPlace);
window.addEventListener("pageshow", () => keepForReload(null));

if (isSupported()) {
  setInterval(refresh, 500);
  ui.showSource();
  watch.start();
} else {
  ui.showState("loading", "Not supported");
  ui.showError(describe(new ClientError("old_browser")).text);
}
