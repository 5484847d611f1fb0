// Which microphone, and whether it hears: a chooser, and a check without a session.

import { typed } from "./elements.js";
import { Microphone } from "./microphone.js";
import { t } from "./text.js";

const KEPT = "echomimic-microphone";
const LOOK_EVERY = 250; // milliseconds
const HEARD = 0.08; // level from which a voice counts as heard

/**
 * @typedef {{
 *   level: (level: number) => void, error: (error: unknown) => void, change: (device: string) => void,
 * }} MicrophoneHandlers `change` is told of another choice
 */

/** @param {(storage: Storage) => string | null | void} use browsers that keep nothing throw */
function tryStorage(use) {
  try {
    return use(window.localStorage) ?? "";
  } catch {
    return "";
  }
}

/** @param {Float32Array} samples of one chunk */
function levelOf(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return Math.min(1, 4 * Math.sqrt(sum / samples.length));
}

export class MicrophoneUi {
  /** @param {MicrophoneHandlers} on */
  constructor(on) {
    this.on = on;
    this.select = typed("microphone", HTMLSelectElement);
    this.button = typed("check", HTMLButtonElement);
    this.note = typed("microphone-note", HTMLElement);
    this.meter = typed("meter", HTMLElement);
    /** @type {Microphone | null} */
    this.checked = null;
    this.heard = false;
    this.timer = 0;
    this.select.addEventListener("change", () => this.changed());
    this.button.addEventListener("click", () => (this.checked ? this.endCheck() : this.check()));
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.fill());
    this.fill();
  }

  /** The id of the chosen device; empty for the browser's choice. */
  get chosen() {
    return this.select.value;
  }

  // Browsers name the devices only once the person has allowed one.
  async fill() {
    const devices = (await navigator.mediaDevices?.enumerateDevices?.().catch(() => [])) ?? [];
    const wanted = this.select.value || tryStorage((storage) => storage.getItem(KEPT));
    const inputs = devices.filter(({ kind, deviceId }) => kind === "audioinput" && deviceId && deviceId !== "default");
    const options = inputs.map(({ deviceId, label }, n) => {
      const name = label || t("microphone.unnamed", { number: n + 1 });
      return new Option(name, deviceId, false, deviceId === wanted);
    });
    const first = new Option(t("microphone.default"), "", false, !inputs.some(({ deviceId }) => deviceId === wanted));
    first.dataset.text = "microphone.default";
    this.select.replaceChildren(first, ...options);
  }

  changed() {
    const device = this.chosen;
    tryStorage((storage) => (device ? storage.setItem(KEPT, device) : storage.removeItem(KEPT)));
    this.on.change(device);
    if (this.checked) this.check();
  }

  async check() {
    this.endCheck();
    const microphone = new Microphone(this.chosen);
    this.checked = microphone;
    this.heard = false;
    microphone.onChunk = (samples) => {
      const level = levelOf(samples);
      this.heard ||= level > HEARD;
      this.on.level(level);
    };
    microphone.onEnd = () => this.endCheck();
    this.show(true);
    this.timer = setInterval(() => this.tell(microphone), LOOK_EVERY);
    try {
      await microphone.open();
      await microphone.begin();
      await this.fill();
    } catch (error) {
      if (this.checked !== microphone) return;
      this.endCheck();
      this.on.error(error);
    }
  }

  /** @param {Microphone} microphone that is checked */
  tell({ trouble }) {
    const text = trouble ? t(`trouble.${trouble}`) : t(this.heard ? "microphone.heard" : "microphone.speak");
    if (this.note.textContent !== text) this.note.textContent = text;
  }

  endCheck() {
    clearInterval(this.timer);
    if (!this.checked) return;
    this.checked.close();
    this.checked = null;
    this.on.level(0);
    this.show(false);
  }

  /** @param {boolean} checking */
  show(checking) {
    const key = checking ? "microphone.check.stop" : "microphone.check";
    this.button.dataset.text = key;
    this.button.textContent = t(key);
    this.button.setAttribute("aria-pressed", String(checking));
    this.meter.hidden = !checking;
    this.note.hidden = !checking;
    this.note.textContent = checking ? t("microphone.speak") : "";
  }
}
