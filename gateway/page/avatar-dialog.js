// The dialogue in which a person brings an avatar: choose, crop, try, keep. Or removes one.

import { Camera, CameraError } from "./avatar-camera.js";
import { CropView } from "./avatar-crop.js";
import { FaceFinder, smaller } from "./avatar-face.js";
import { AvatarStore, StoreError } from "./avatar-store.js";
import { describe } from "./errors.js";
import { sentence, t } from "./text.js";

/**
 * @import { Access } from "./access.js"
 * @import { Framing } from "./avatar-crop.js"
 * @import { OwnAvatar } from "./avatar-store.js"
 * @import { TextKey } from "./text.js"
 * @typedef {"choose" | "camera" | "crop" | "trying" | "preview"} Step
 * @typedef {{
 *   warnings?: Record<string, string>, warning_phrases?: Record<string, object>, own_avatars?: OwnAvatar[], own_avatars_most?: number, own_avatars_align?: boolean, framing?: Framing, width: number, height: number,
 * }} OwnCatalogue the used fields of avatars.json
 */

const MOST_BYTES = 15 * 2 ** 20; // the server takes a little more
const MOST_SIDE = 4096; // of a picture that is made smaller for that
const CANVAS = 512; // pixels of the crop's width

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} [fields]
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[K]}
 */
function element(tag, fields = {}, ...children) {
  const made = document.createElement(tag);
  Object.assign(made, fields);
  made.append(...children);
  return made;
}

/**
 * Gives an element its text, also when the language changes.
 *
 * @template {HTMLElement} T
 * @param {T} made
 * @param {TextKey} key
 */
function named(made, key) {
  made.dataset.text = key;
  made.textContent = t(key);
  return made;
}

/** @param {TextKey} key @param {() => void} act @param {string} [kind] */
function button(key, act, kind = "") {
  const made = named(element("button", { type: "button", className: kind }), key);
  made.addEventListener("click", act);
  return made;
}

export class AvatarDialog {
  /**
   * @param {HTMLButtonElement} opener
   * @param {Access} access
   * @param {(id: string | null) => void} changed an avatar was kept, or (null) one was removed
   */
  constructor(opener, access, changed) {
    this.access = access;
    this.store = new AvatarStore(access);
    this.changed = changed;
    /** @type {OwnAvatar[]} */
    this.own = [];
    this.most = 0;
    /** @type {Record<string, string>} */
    this.warnings = {}; // by avatar, of those that the model does not carry
    /** @type {Record<string, object | undefined>} */
    this.phrases = {}; // of those
    this.aligns = false; // whether the server can look for faces
    this.ratio = 1;
    /** @type {Framing | null} */
    this.framing = null;
    /** @type {Blob | null} */
    this.picture = null;
    /** @type {OwnAvatar | null} */
    this.tried = null;
    this.opener = opener;
    named(opener, "own.open");
    opener.addEventListener("click", () => this.open());
    this.build();
  }

  build() {
    this.message = element("p", { className: "own-message" });
    this.message.setAttribute("role", "status");
    this.file = element("input", { type: "file", accept: "image/*", id: "own-file", className: "own-file" });
    this.file.addEventListener("change", () => {
      this.take(this.file?.files?.[0]);
      if (this.file) this.file.value = ""; // so that the same file can be chosen again
    });
    const label = named(element("label", { htmlFor: "own-file", className: "file-button" }), "own.file");
    this.list = element("ul", { className: "own-list" });
    this.listTitle = named(element("h3"), "own.yours");
    this.video = element("video", { muted: true, playsInline: true });
    this.camera = new Camera(this.video);
    this.canvas = element("canvas", { width: CANVAS, height: CANVAS, tabIndex: 0, className: "own-crop" });
    this.canvas.setAttribute("role", "img");
    this.canvas.dataset.label = "own.crop.label";
    this.canvas.setAttribute("aria-label", t("own.crop.label"));
    this.view = new CropView(this.canvas, () => this.finder?.leave());
    this.finder = new FaceFinder(this.store, this.view, (text) => this.tell(text), (error) => this.tellError(error));
    this.name = element("input", { type: "text", maxLength: 40, id: "own-name", autocomplete: "off" });
    this.shown = element("img", { alt: t("own.tried"), className: "own-preview" });
    this.keepButton = button("own.keep", () => this.keep(), "primary");
    const cropTools = element(
      "div",
      { className: "own-row" },
      button("own.zoom.out", () => this.view?.zoomBy(1 / 1.1)),
      button("own.zoom.in", () => this.view?.zoomBy(1.1)),
    );
    const nameRow = element("label", { className: "own-name", htmlFor: "own-name" }, named(element("span"), "own.name"), this.name);
    const again = () => button("own.back", () => this.show("choose"));
    const cameraButton = button("own.camera", () => this.openCamera());
    /** @type {Record<Step, HTMLElement>} */
    this.steps = {
      choose: element(
        "div", {}, named(element("p", { className: "own-drop" }), "own.choose"),
        element("div", { className: "own-row" }, this.file, label, cameraButton), this.listTitle, this.list,
      ),
      camera: element(
        "div", {}, this.video,
        element("div", { className: "own-row" }, again(), button("own.take", () => this.shoot(), "primary")),
      ),
      crop: element(
        "div", {}, named(element("p"), "own.crop"), this.canvas, cropTools, nameRow,
        element("div", { className: "own-row" }, again(), button("own.try", () => this.tryOut(), "primary")),
      ),
      trying: element("div", {}, element("progress", { ariaLabel: t("own.trying") })),
      preview: element(
        "div", {}, this.shown,
        element("div", { className: "own-row" }, button("own.back", () => this.show("crop")), this.keepButton),
      ),
    };
    const title = named(element("h2", { id: "own-title" }), "own.title");
    const head = element("div", { className: "own-head" }, title, button("own.close", () => this.dialog?.close()));
    this.dialog = element("dialog", { className: "own" }, head, ...Object.values(this.steps), this.message);
    this.dialog.setAttribute("aria-labelledby", "own-title");
    this.dialog.addEventListener("close", () => this.closed());
    this.dialog.addEventListener("dragover", (event) => event.preventDefault());
    this.dialog.addEventListener("drop", (event) => this.dropped(event));
    this.dialog.addEventListener("paste", (event) => this.take(event.clipboardData?.files[0]));
    document.body.append(this.dialog);
  }

  /** @param {OwnCatalogue} catalogue what the server says this person has */
  offer({ own_avatars: own = [], own_avatars_most: most = 0, own_avatars_align: aligns = false, framing = undefined, warnings = {}, warning_phrases: phrases = {}, width, height }) {
    this.own = own.filter((each) => each.kept);
    this.most = most;
    this.aligns = aligns;
    this.framing = framing ?? null;
    this.warnings = { ...warnings, ...Object.fromEntries(own.map((each) => [each.id, each.warning])) };
    this.phrases = { ...phrases, ...Object.fromEntries(own.map((each) => [each.id, each.warning_phrase])) };
    this.ratio = width && height ? width / height : 1;
    this.opener.hidden = most === 0;
  }

  /** @param {string | undefined} id of an avatar */
  warningOf(id) {
    return sentence(this.phrases[id ?? ""], this.warnings[id ?? ""] ?? "");
  }

  open() {
    this.dialog?.showModal();
    this.show("choose");
  }

  closed() {
    this.camera?.close();
    this.finder?.stop();
    if (this.tried && !this.tried.kept) this.store.remove(this.tried.id).catch(() => {}); // it would go by itself
    this.tried = null;
    this.opener.focus();
  }

  /** @param {Step} step */
  show(step) {
    if (!this.steps) return;
    for (const [name, part] of Object.entries(this.steps)) part.hidden = name !== step;
    if (step !== "camera") this.camera?.close();
    if (step !== "crop") this.finder?.stop();
    if (step === "choose") this.showList();
    this.tell(step === "trying" ? t("own.trying") : "");
    const first = this.steps[step].querySelector("canvas, input:not([type=text]), button.primary");
    if (first instanceof HTMLElement) first.focus();
  }

  /** @param {string} text @param {boolean} bad */
  tell(text, bad = false) {
    if (!this.message) return;
    this.message.textContent = text;
    this.message.classList.toggle("bad", bad);
    if (text) this.message.scrollIntoView({ block: "nearest" });
  }

  /** @param {unknown} error */
  tellError(error) {
    if (error instanceof CameraError) this.tell(t(error.key), true);
    else this.tell(error instanceof StoreError ? error.message : describe(error).text, true);
  }

  showList() {
    if (!this.list || !this.listTitle) return;
    this.listTitle.hidden = this.own.length === 0;
    this.list.replaceChildren(
      ...this.own.map((each) => {
        const picture = element("img", { alt: "", width: 48, height: 48 });
        this.access.show(picture, each.picture);
        const gone = button("own.remove", () => this.remove(each));
        gone.setAttribute("aria-label", t("own.remove.named", { name: each.name }));
        return element("li", {}, picture, element("span", { dir: "auto" }, each.name), gone);
      }),
    );
  }

  /** @param {DragEvent} event */
  dropped(event) {
    event.preventDefault();
    event.stopPropagation(); // outside of the dialogue a dropped file is speech
    this.take(event.dataTransfer?.files[0]);
  }

  async openCamera() {
    this.show("camera");
    try {
      await this.camera?.open();
    } catch (error) {
      this.show("choose");
      this.tellError(error);
    }
  }

  async shoot() {
    try {
      await this.take(await this.camera?.take());
    } catch (error) {
      this.tellError(error);
    }
  }

  /** @param {Blob | undefined} picture */
  async take(picture) {
    if (!picture || !this.framing || this.steps?.trying.hidden === false) return;
    let seen;
    try {
      seen = await createImageBitmap(picture);
      this.picture = picture.size > MOST_BYTES ? await smaller(seen, MOST_SIDE) : picture;
    } catch {
      this.show("choose");
      this.tell(t("own.no.picture"), true);
      return;
    }
    if (this.name) this.name.value = picture instanceof File ? picture.name.replace(/\.[^.]*$/, "") : "";
    this.show("crop");
    this.view?.show(seen, this.ratio, this.framing);
    await this.finder?.look(seen, this.aligns);
  }

  async tryOut() {
    if (!this.picture || !this.view || !this.shown || !this.keepButton) return;
    this.show("trying");
    try {
      this.tried = await this.store.bring(this.picture, this.name?.value ?? "", this.view.crop);
    } catch (error) {
      this.show("crop");
      this.tellError(error);
      return;
    }
    if (!this.dialog?.open) {
      this.closed();
      return;
    }
    const { fit, preview, picture } = this.tried;
    const warning = sentence(this.tried.warning_phrase, this.tried.warning);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.access.show(this.shown, fit && !calm ? preview : picture);
    this.show("preview");
    named(this.keepButton, warning ? "own.keep.anyway" : "own.keep");
    this.tell(warning || (fit ? t("own.tried") : t("own.still")), warning !== "");
  }

  async keep() {
    if (!this.tried) return;
    try {
      this.tried = await this.store.keep(this.tried.id);
    } catch (error) {
      this.tellError(error);
      return;
    }
    this.own.push(this.tried);
    this.changed(this.tried.id);
    this.dialog?.close();
  }

  /** @param {OwnAvatar} avatar */
  async remove(avatar) {
    try {
      await this.store.remove(avatar.id);
    } catch (error) {
      this.tellError(error);
      return;
    }
    this.own = this.own.filter((each) => each.id !== avatar.id);
    this.changed(null);
    this.show("choose");
    this.tell(t("own.removed"));
  }
}
