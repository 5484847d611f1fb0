// The page's elements: they show the session's state and tell of a person's choices.

import { isHeard } from "./echo.js";
import { typed } from "./elements.js";
import { CATALOGUES, currentLanguage, numeral, t, useLanguage } from "./text.js";

/**
 * @import { Access } from "./access.js"
 * @import { Stats } from "./client/stats.js"
 * @import { TextKey, Values } from "./text.js"
 * @typedef {"loading" | "idle" | "connecting" | "live" | "waiting"} PageState
 * @typedef {"avatar" | "pose"} Group
 * @typedef {{
 *   avatars: string[], poses: string[], names: {avatars: Record<string, string>, poses: Record<string, string>},
 *   width: number, height: number, notice: string, notice_phrase?: object, generated: boolean, record: boolean, voice_engine: string,
 *   framing: import("./avatar-crop.js").Framing, warnings: Record<string, string>,
 *   own_avatars: import("./avatar-store.js").OwnAvatar[], own_avatars_most: number,
 * }} Catalogue the used fields of avatars.json
 * @typedef {{
 *   startOrStop: () => void, choose: (group: Group, name: string) => void, sound: (on: boolean) => void,
 *   token: (token: string) => void, language: () => void,
 * }} UiHandlers
 * @typedef {{img: HTMLImageElement, move?: (live: boolean) => void}} CardPicture
 */

/** @param {string} id */
const $ = (id) => typed(id, HTMLElement);

/**
 * @param {string} selector
 * @returns {HTMLInputElement | null}
 */
function input(selector) {
  const found = document.querySelector(selector);
  return found instanceof HTMLInputElement ? found : null;
}

/**
 * A radio button that looks like a card.
 *
 * @param {Group} group
 * @param {string} name
 * @param {string} shown
 * @param {boolean} checked
 * @param {CardPicture} picture
 */
function choiceCard(group, name, shown, checked, { img, move }) {
  const label = document.createElement("label");
  const radio = Object.assign(document.createElement("input"), { type: "radio", name: group, value: name, checked });
  const card = document.createElement("span");
  const text = Object.assign(document.createElement("b"), { textContent: shown, title: shown, dir: "auto" });
  if (move) {
    for (const event of ["pointerenter", "focusin"]) label.addEventListener(event, () => move(true));
    for (const event of ["pointerleave", "focusout"]) label.addEventListener(event, () => move(false));
  }
  img.addEventListener("error", () => card.classList.add("no-picture"));
  card.dataset.initial = [...shown][0] ?? "";
  card.append(img, text);
  label.append(radio, card);
  return label;
}

/** @param {string} name */
function avatarPath(name) {
  return `avatars/${encodeURIComponent(name)}.png`;
}

/**
 * @param {Access} access
 * @param {string} name
 * @returns {CardPicture}
 */
function avatarPicture(access, name) {
  const img = Object.assign(new Image(), { alt: "", decoding: "async" });
  access.show(img, avatarPath(name));
  return { img };
}

/**
 * It moves only while it is pointed at or has the focus. To move all the time would take processor time from
 * the model.
 *
 * @param {Access} access
 * @param {string} name
 * @returns {CardPicture}
 */
function posePicture(access, name) {
  const file = `${encodeURIComponent(name)}.svg`;
  const img = Object.assign(new Image(), { alt: "", decoding: "async" });
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const move = (/** @type {boolean} */ live) => {
    access.show(img, live && !calm.matches ? `poses/live/${file}` : `poses/${file}`);
  };
  move(false);
  return { img, move };
}

export class Ui {
  /**
   * @param {Access} access
   * @param {UiHandlers} on
   */
  constructor(access, on) {
    this.access = access;
    this.canvas = typed("canvas", HTMLCanvasElement);
    this.on = on;
    /** @type {Record<string, string>} */
    this.avatarNames = {}; // display names by id
    this.loudest = 0; // level since the page last showed it
    this.levelAt = 0;
    /** @type {{key: TextKey, values: Values}} */
    this.told = { key: "state.connecting", values: {} }; // the state in words
    /** @type {boolean | null} */
    this.soundWish = null; // the person's own choice; without one it follows from the source
    this.fillLanguages();
    $("panel").addEventListener("submit", (event) => {
      event.preventDefault();
      on.startOrStop();
    });
    $("gate").addEventListener("submit", (event) => {
      event.preventDefault();
      on.token(typed("token-field", HTMLInputElement).value);
    });
    $("panel").addEventListener("change", (event) => this.changed(event.target));
    for (const name of ["dragover", "drop"]) {
      document.addEventListener(name, (event) => event.preventDefault());
    }
    document.addEventListener("drop", (event) => this.dropped(event.dataTransfer?.files));
  }

  /** @param {EventTarget | null} target */
  changed(target) {
    if (!(target instanceof HTMLInputElement)) return;
    if (target.name === "avatar" || target.name === "pose") this.on.choose(target.name, target.value);
    if (target.name === "avatar") this.showPortrait(target.value);
    if (target.name === "source") this.showSource();
    if (target.id === "sound") {
      this.soundWish = target.checked;
      this.showSoundHint();
      this.on.sound(target.checked);
    }
    if (target.id === "file") this.showFile();
  }

  /** @param {FileList | undefined} files */
  dropped(files) {
    const source = input("[name=source][value=file]");
    if (!files?.length || this.running || !source) return;
    typed("file", HTMLInputElement).files = files;
    source.checked = true;
    this.showSource();
    this.showFile();
  }

  fillLanguages() {
    const select = typed("language", HTMLSelectElement);
    const options = Object.entries(CATALOGUES).map(([name, texts]) => {
      const option = new Option(texts["language.name"], name, false, name === currentLanguage());
      option.lang = name;
      return option;
    });
    select.replaceChildren(...options);
    select.addEventListener("change", () => {
      useLanguage(select.value);
      this.on.language();
    });
  }

  // The texts that the page's state decides, in a language that was just chosen.
  tellAgain() {
    const { key, values } = this.told;
    $("state").textContent = t(key, values);
    this.showSource();
    if (!this.file) this.showFile();
    typed("start", HTMLButtonElement).textContent = t(this.running ? "stop" : "start");
    const avatar = this.chosen("avatar");
    if (avatar !== undefined) this.tellPortrait(avatar);
  }

  /** Whether a session runs or is about to. */
  get running() {
    return ["connecting", "live", "waiting"].includes(document.body.dataset.state ?? "");
  }

  // ---- a person's choices

  /** "microphone" or "file". */
  get source() {
    return input("[name=source]:checked")?.value ?? "microphone";
  }

  get file() {
    return typed("file", HTMLInputElement).files?.[0] ?? null;
  }

  /** Whether the person wants to hear the voice. */
  get sound() {
    return typed("sound", HTMLInputElement).checked;
  }

  /** @param {Group} group */
  chosen(group) {
    return input(`[name=${group}]:checked`)?.value;
  }

  // ---- the page's display

  /**
   * @param {Catalogue} catalogue
   * @param {{avatar?: string, pose?: string}} wanted chosen on this page before it was loaded again
   */
  fillChoices({ avatars, poses, names }, wanted = {}) {
    this.avatarNames = names.avatars;
    this.fillGroup("avatar", avatars, names.avatars, avatarPicture, wanted.avatar);
    this.fillGroup("pose", poses, names.poses, posePicture, wanted.pose);
    const avatar = this.chosen("avatar");
    if (avatar !== undefined) this.showPortrait(avatar);
  }

  /**
   * @param {Group} group
   * @param {string[]} names
   * @param {Record<string, string>} shown
   * @param {(access: Access, name: string) => CardPicture} picture
   * @param {string} [wanted]
   */
  fillGroup(group, names, shown, picture, wanted) {
    const before = this.chosen(group) ?? wanted;
    const first = before !== undefined && names.includes(before) ? before : names[0];
    const cards = names.map((name) =>
      choiceCard(group, name, shown[name] ?? name, name === first, picture(this.access, name)),
    );
    const place = $(`${group}s`);
    place.replaceChildren(...cards);
    const fieldset = place.closest("fieldset");
    if (fieldset) fieldset.hidden = names.length < 2 && group === "pose";
  }

  /** @param {string} name */
  showPortrait(name) {
    const portrait = typed("portrait", HTMLImageElement);
    const path = avatarPath(name);
    if (portrait.dataset.path === path) return;
    portrait.onload = () => {
      portrait.hidden = false;
      $("placeholder").hidden = true;
      $("frame").style.setProperty("--ratio", `${portrait.naturalWidth} / ${portrait.naturalHeight}`);
    };
    portrait.onerror = () => {
      portrait.hidden = true;
      $("placeholder").hidden = false;
    };
    this.access.show(portrait, path);
    this.tellPortrait(name);
  }

  /** @param {string} name */
  tellPortrait(name) {
    typed("portrait", HTMLImageElement).alt = t("stage.portrait", { name: this.avatarNames[name] ?? name });
  }

  showSource() {
    const file = this.source === "file";
    $("file-row").hidden = !file;
    $("microphone-row").hidden = file;
    typed("sound", HTMLInputElement).checked = isHeard(this.soundWish, !file);
    this.showSoundHint();
    this.showError("");
  }

  showSoundHint() {
    const microphone = this.sound ? "sound.microphone.on" : "sound.microphone.off";
    $("sound-hint").textContent = t(this.source === "file" ? "sound.file" : microphone);
  }

  showFile() {
    $("file-label").textContent = this.file?.name ?? t("panel.choose");
    $("file-label").classList.toggle("chosen", Boolean(this.file));
    this.showError("");
  }

  /**
   * The state decides the pill's colour and the button's word.
   *
   * @param {PageState} state
   * @param {TextKey} key of the state in words
   * @param {Values} values
   */
  showState(state, key, values = {}) {
    const start = typed("start", HTMLButtonElement);
    document.body.dataset.state = state;
    this.told = { key, values };
    $("state").textContent = t(key, values);
    const { running } = this;
    start.textContent = t(running ? "stop" : "start");
    start.disabled = state === "loading";
    $("sources").classList.toggle("locked", running);
    for (const each of document.querySelectorAll("[name=source], #file")) {
      if (each instanceof HTMLInputElement) each.disabled = running;
    }
    if (!running) {
      this.showFace(false);
      this.showLevel(0);
      $("progress").hidden = true;
    }
  }

  /** @param {string} text empty for none */
  showError(text) {
    $("error").textContent = text;
    $("error").hidden = !text;
  }

  /**
   * Says in place of the choices why the server does not let the page in.
   *
   * @param {string} text empty where it does
   * @param {boolean} asks whether a token is asked for
   */
  showRefusal(text, asks) {
    const asked = !$("gate").hidden && !$("token").hidden;
    $("gate").hidden = !text;
    $("panel").hidden = Boolean(text);
    $("refusal").textContent = text;
    $("token").hidden = !asks;
    $("open").hidden = !asks;
    if (asks && !asked) $("token-field").focus();
    if (!asks) typed("token-field", HTMLInputElement).value = "";
  }

  /** @param {string} text empty for none */
  showNotice(text) {
    if ($("notice").textContent === text) return;
    $("notice").textContent = text;
    $("notice").hidden = !text;
  }

  /** @param {string} text what is wrong with the browser's sound or the microphone; empty for nothing */
  showTrouble(text) {
    if ($("trouble").textContent === text) return;
    $("trouble").textContent = text;
    $("trouble").hidden = !text;
  }

  /** @param {boolean} shown whether the page says that the face is generated */
  showGenerated(shown) {
    $("generated").hidden = !shown;
  }

  /** @param {boolean} shown whether the canvas lies over the portrait; it does once it has a frame */
  showFace(shown) {
    $("frame").classList.toggle("speaking", shown);
  }

  /**
   * @param {number} width
   * @param {number} height
   */
  showRatio(width, height) {
    if (width && height) $("frame").style.setProperty("--ratio", `${width} / ${height}`);
  }

  /**
   * Called for every 10 ms of speech. The page changes ten times a second.
   *
   * @param {number} level of the voice, from 0 to 1
   */
  showLevel(level) {
    const now = performance.now();
    this.loudest = Math.max(this.loudest, level);
    if (level > 0 && now - this.levelAt < 100) return;
    this.levelAt = now;
    for (const bar of ["level", "meter-level"]) $(bar).style.transform = `scaleX(${this.loudest.toFixed(2)})`;
    $("ring").style.opacity = level === 0 ? "0" : (0.25 + 0.75 * this.loudest).toFixed(2);
    this.loudest = 0;
  }

  /** @param {number} done from 0 to 1 */
  showProgress(done) {
    const progress = typed("progress", HTMLProgressElement);
    progress.hidden = false;
    progress.value = done;
  }

  /** @param {Stats | null} stats */
  showFigures(stats) {
    const latency = stats?.latencyMs ?? null;
    const offset = stats?.offsetMs ?? null;
    const rounded = offset === null ? null : Math.round(offset);
    $("fps").textContent = stats && stats.shown ? numeral(stats.fps, 1) : "–";
    $("latency").textContent = latency === null ? "–" : String(Math.round(latency));
    $("offset").textContent = rounded === null ? "–" : rounded > 0 ? `+${rounded}` : numeral(rounded, 0);
    $("drops").textContent = stats ? String(stats.drops) : "–";
  }
}
