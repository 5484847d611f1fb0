// The page: it waits until the server is ready, and holds one Session between Start and Stop.

import { Access } from "./access.js";
import { AudioFile } from "./audio-file.js";
import { AvatarDialog } from "./avatar-dialog.js";
import { ClientError, isPassing, needsToken } from "./client/errors.js";
import { Session } from "./client/session.js";
import { Curves } from "./curves.js";
import { typed } from "./elements.js";
import { describe } from "./errors.js";
import { offerFullScreen } from "./full-screen.js";
import { Guide } from "./guide.js";
import { keepForReload, takeKept } from "./kept-session.js";
import { Microphone } from "./microphone.js";
import { MicrophoneUi } from "./microphone-ui.js";
import { RecordBox } from "./record-box.js";
import { Quiet, SayBox } from "./say-box.js";
import { ServerWatch } from "./server-watch.js";
import { keyOf, sentence, t, translate } from "./text.js";
import { Ui } from "./ui.js";
import { videoOptions } from "./video-choice.js";

/**
 * @import { StateDetails, WireState } from "./client/wire.js"
 * @import { Kept } from "./kept-session.js"
 * @import { Catalogue, Group } from "./ui.js"
 */

/** @type {Session | null} */
let session = null;
let framesLostBefore = 0; // in this session, when the page last looked
/** @type {Kept | null} */
let before = takeKept(); // the session of this page before it was loaded again
const access = new Access();
translate();
const ui = new Ui(access, {
  startOrStop,
  choose: changeChoice,
  sound: hearVoice,
  token: useToken,
  language: () => ui.tellAgain(),
});
const microphones = new MicrophoneUi({
  level: (level) => ui.showLevel(level),
  error: (error) => ui.showError(describe(error).text),
  change: changeMicrophone,
});
const curves = new Curves();
const guide = new Guide();
const sayBox = new SayBox(sayText);
const recordBox = new RecordBox(access, ui.canvas);
const ownAvatars = new AvatarDialog(typed("own-open", HTMLButtonElement), access, showOwnAvatars);
// A session ends the asking.
const watch = new ServerWatch(access, {
  ready: serverReady,
  loading: (stages = {}) => {
    const cold = Object.keys(stages).filter((name) => stages[name] !== "warm");
    ui.showState("loading", "state.loading", { part: t(keyOf(`part.${cold[0]}`) ?? "part.model") });
  },
  refused: showRefusal,
  lost: () => ui.showState("loading", "state.unreached"),
});

// For tests and for a curious person's console.
Object.defineProperty(window, "echomimic", {
  value: {
    get session() {
      return session;
    },
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
    ownAvatars.offer(catalogue);
    ui.showRatio(catalogue.width, catalogue.height);
    ui.showGenerated(catalogue.generated);
    sayBox.offer(catalogue.voice_engine);
    recordBox.offerAtAll(catalogue);
    ui.showState("idle", "state.ready");
    if (before) goOn(before);
  }
  ui.showNotice(sentence(catalogue.notice_phrase, catalogue.notice) || ownAvatars.warningOf(ui.chosen("avatar")));
}

/**
 * Shows the choices anew, since an avatar was brought or removed.
 *
 * @param {string | null} id the avatar that was brought
 */
async function showOwnAvatars(id) {
  const answer = await access.fetch("avatars.json");
  if (!answer.ok) return;
  /** @type {Catalogue} */
  const catalogue = await answer.json();
  ui.fillChoices(catalogue, {});
  ownAvatars.offer(catalogue);
  const card = id === null ? null : document.querySelector(`[name=avatar][value="${id}"]`);
  if (card instanceof HTMLInputElement) card.click();
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
  ui.showState("loading", asks ? "state.token" : isPassing(code) ? "state.waiting" : "state.refused");
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

/**
 * A text alone needs no microphone: it begins a session without one.
 *
 * @param {string} text
 * @param {string} id
 */
function sayText(text, id) {
  if (!session) start(new Quiet());
  session?.say(text, id);
}

/** @param {Quiet | null} quiet the source of a session that speaks texts alone */
async function start(quiet = null) {
  const file = ui.source === "file" && !quiet ? ui.file : null;
  ui.showError("");
  if (ui.source === "file" && !file && !quiet) {
    ui.showError(describe(new ClientError("no_file")).text);
    return;
  }
  guide.close();
  microphones.endCheck();
  ui.showState("connecting", file || quiet ? "state.connecting" : "state.microphone");
  framesLostBefore = 0;
  const options = { avatar: ui.chosen("avatar"), pose: ui.chosen("pose"), ...videoOptions(window.location.search) };
  const source = quiet ?? (file ? new AudioFile(file) : new Microphone(microphones.chosen));
  const place = before?.place ?? null;
  /** @type {Session} */
  const mine = new Session(ui.canvas, source, access, options, place, {
    state: (name, details) => {
      if (session === mine) stateChanged(name, details);
    },
    ready: (fields) => {
      forgetBefore();
      microphones.fill(); // their names are known once the person allowed one
      ui.showRatio(fields.width, fields.height);
      recordBox.begin(mine, fields.session);
    },
    picture: () => ui.showFace(true),
    level: (level) => ui.showLevel(level),
    text: (fields) => {
      sayBox.take(fields);
      recordBox.take(fields);
    },
  });
  session = mine;
  watch.stop();
  try {
    await mine.start(!quiet && !ui.sound);
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
  ui.showTrouble("");
  sayBox.over();
  recordBox.over();
  ui.showState("idle", "state.ready");
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
    ui.showState("waiting", code === "busy" ? "state.place" : "state.reconnecting");
  } else if (name === "connecting") {
    const { again } = details;
    ui.showState(again ? "waiting" : "connecting", again ? "state.reconnecting" : "state.connecting");
  } else {
    ui.showError("");
    ui.showNotice(sentence(details.notice_phrase, details.notice ?? ""));
    ui.showState("live", "state.live");
  }
}

/**
 * @param {Group} group
 * @param {string} name
 */
function changeChoice(group, name) {
  if (group === "avatar") ui.showNotice(ownAvatars.warningOf(name));
  session?.change({ [group]: name });
}

/** @param {boolean} on */
function hearVoice(on) {
  session?.mute(!on);
}

/** @param {string} device the microphone to take from now on */
async function changeMicrophone(device) {
  if (!(session?.source instanceof Microphone)) return;
  try {
    await session.source.use(device);
  } catch (error) {
    if (session) stateChanged("ended", { error });
  }
}

// Browsers that hold sound back let it out after a press of any kind.
function pressed() {
  if (session?.trouble === "sound_withheld") session.playout.open();
}

/** @param {KeyboardEvent} event */
function keyPressed({ key }) {
  pressed();
  if (key === "Escape" && !document.fullscreenElement && session) stop();
}

function refresh() {
  ui.showFigures(session?.stats ?? null);
  curves.add(session?.stats ?? null);
  if (!session) return;
  const { trouble } = session;
  ui.showTrouble(trouble ? t(`trouble.${trouble}`) : "");
  if (session.source instanceof AudioFile) ui.showProgress(session.source.progress);
  const server = session.stats.server;
  if (!server) return;
  const behind = server.frames_lost > framesLostBefore ? t("notice.behind") : "";
  framesLostBefore = server.frames_lost;
  ui.showNotice(sentence(server.notice_phrase, server.notice) || behind || ownAvatars.warningOf(ui.chosen("avatar")));
}

window.addEventListener("pagehide", keepPlace);
window.addEventListener("pageshow", () => keepForReload(null));

if (isSupported()) {
  setInterval(refresh, 500);
  ui.showSource();
  offerFullScreen();
  document.addEventListener("pointerdown", pressed);
  document.addEventListener("keydown", keyPressed);
  watch.start();
} else {
  ui.showState("loading", "state.unsupported");
  ui.showError(describe(new ClientError("old_browser")).text);
}
