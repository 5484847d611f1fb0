// The page: it waits until the server is ready, and holds one Session between Start and Stop.

import { PageError, describe } from "./errors.js";
import { Session } from "./session.js";
import { Ui } from "./ui.js";

/**
 * @import { Group } from "./ui.js"
 * @import { StateDetails, WireState } from "./wire.js"
 */

const POLL = 1500; // milliseconds between questions whether the server is ready
/** @type {Record<string, string>} */
const STAGES = { audio_worker: "hearing", gpu_worker: "the face model", encoder_worker: "the picture encoder" };

/** @type {Session | null} */
let session = null;
let poll = 0;
let framesLostBefore = 0; // in this session, when the page last looked
const ui = new Ui({ startOrStop, choose: changeChoice, sound: hearVoice });

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

/** @param {string} path */
async function fetchJson(path) {
  const answer = await fetch(path, { cache: "no-store" });
  return answer.json();
}

// Asks the server again and again, and shows its choices as soon as it is ready. A session ends the asking.
async function watchServer() {
  clearTimeout(poll);
  if (session) return;
  let again = POLL;
  try {
    const { ready, stages } = await fetchJson("readyz");
    if (session) return;
    if (ready) {
      const catalogue = await fetchJson("avatars.json");
      if (session) return;
      if (document.body.dataset.state === "loading") {
        ui.fillChoices(catalogue);
        ui.showRatio(catalogue.width, catalogue.height);
        ui.showState("idle", "Ready");
      }
      ui.showNotice(catalogue.notice);
      again = 4 * POLL;
    } else {
      const cold = Object.keys(stages).filter((name) => stages[name] !== "warm");
      ui.showState("loading", `Loading ${STAGES[cold[0]] ?? "the model"}…`);
    }
  } catch {
    ui.showState("loading", "Server not reached, trying again…");
  }
  askAgain(again);
}

/** @param {number} milliseconds */
function askAgain(milliseconds) {
  // A second round may have begun while this one waited for its answers: only one timer is left.
  clearTimeout(poll);
  poll = setTimeout(watchServer, milliseconds);
}

function startOrStop() {
  if (session) stop();
  else start();
}

async function start() {
  const file = ui.source === "file" ? ui.file : null;
  ui.showError("");
  if (ui.source === "file" && !file) {
    ui.showError(describe(new PageError("no_file")).text);
    return;
  }
  ui.showState("connecting", file ? "Connecting…" : "Waiting for the microphone…");
  framesLostBefore = 0;
  const options = { avatar: ui.chosen("avatar"), pose: ui.chosen("pose") };
  /** @type {Session} */
  const mine = new Session(ui.canvas, options, {
    state: (name, details) => {
      if (session === mine) stateChanged(name, details);
    },
    ready: (fields) => ui.showRatio(fields.width, fields.height),
    picture: () => ui.showFace(true),
    level: (level) => ui.showLevel(level),
  });
  session = mine;
  try {
    await mine.start(file, !ui.sound);
  } catch (error) {
    if (session === mine) stateChanged("ended", { error });
  }
}

function stop() {
  session?.stop();
  session = null;
  ui.showState("idle", "Ready");
  watchServer();
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
  if (session.file) ui.showProgress(session.capture.progress);
  const server = session.stats.server;
  if (!server) return;
  const behind = server.frames_lost > framesLostBefore ? "The machine is behind: some pictures are left out." : "";
  framesLostBefore = server.frames_lost;
  ui.showNotice(server.notice || behind);
}

if (isSupported()) {
  setInterval(refresh, 500);
  ui.showSource();
  watchServer();
} else {
  ui.showState("loading", "Not supported");
  ui.showError(describe(new PageError("old_browser")).text);
}
