// The page: it waits until the server is ready, and holds one Session between Start and Stop.

import { PageError, describe, isPassing } from "./errors.js";
import { Session } from "./session.js";
import { Ui } from "./ui.js";

const POLL = 1500; // milliseconds between questions whether the server is ready
const STAGES = { audio_worker: "hearing", gpu_worker: "the face model", encoder_worker: "the picture encoder" };

let session = null;
let poll = 0;
const ui = new Ui({ submit, choose, sound });

window.echomimic = {
  get stats() {
    return session?.stats ?? null;
  },
  get state() {
    return document.body.dataset.state;
  },
};

function isSupported() {
  return "AudioWorkletNode" in window && "createImageBitmap" in window && "getBigUint64" in DataView.prototype;
}

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store" });
  return answer.json();
}

// Shows what the server can do, as soon as it can.
async function watch() {
  clearTimeout(poll);
  if (session) return;
  let again = POLL;
  try {
    const { ready, stages } = await ask("readyz");
    if (session) return;
    if (ready) {
      const catalogue = await ask("avatars.json");
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
  poll = setTimeout(watch, again);
}

function submit() {
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
  const options = { avatar: ui.chosen("avatar"), pose: ui.chosen("pose") };
  const mine = new Session(ui.canvas, options, {
    state: (name, details) => session === mine && stateChanged(name, details),
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
  watch();
}

function stateChanged(name, details) {
  if (name === "ended") {
    stop();
    if (details.error) ui.showError(describe(details.error).text);
    return;
  }
  if (name === "waiting") {
    const { code, text } = describe(details.error);
    ui.showError(code === "lost" || code === "shutdown" ? "" : text);
    ui.showState("waiting", isPassing(code) && code === "busy" ? "Waiting for a place…" : "Reconnecting…");
    return;
  }
  if (name === "connecting") ui.showState(details.again ? "waiting" : "connecting", details.again ? "Reconnecting…" : "Connecting…");
  if (name === "live") {
    ui.showError("");
    ui.showNotice(details.notice);
    ui.showState("live", "Live");
  }
}

function choose(group, name) {
  session?.change({ [group]: name });
}

function sound(on) {
  session?.mute(!on);
}

function refresh() {
  ui.showFigures(session?.stats ?? null);
  if (!session) return;
  if (session.file) ui.showProgress(session.capture.progress);
  const server = session.stats.server;
  if (!server) return;
  const behind = server.frames_lost > (refresh.lost ?? 0) ? "The machine is behind: some pictures are left out." : "";
  refresh.lost = server.frames_lost;
  ui.showNotice(server.notice || behind);
}

if (isSupported()) {
  setInterval(refresh, 500);
  ui.showSource();
  watch();
} else {
  ui.showState("loading", "Not supported");
  ui.showError(describe(new PageError("old_browser")).text);
}
