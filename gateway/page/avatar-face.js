// Asks the server where a picture's face is, and lets the crop begin there. What a person does meanwhile wins.

import { keyOf, t } from "./text.js";

/**
 * @import { CropView } from "./avatar-crop.js"
 * @import { AvatarStore } from "./avatar-store.js"
 */

const SIDE = 1024; // pixels of the picture that is looked at: the server looks at fewer

export class FaceFinder {
  /**
   * @param {AvatarStore} store
   * @param {CropView} view
   * @param {(text: string) => void} tell
   * @param {(error: unknown) => void} tellError
   */
  constructor(store, view, tell, tellError) {
    this.store = store;
    this.view = view;
    this.tell = tell;
    this.tellError = tellError;
    this.turn = 0; // of the picture that is looked at: an answer to an earlier one is late
    this.looking = false;
  }

  // A person moves the picture, or leaves it: an answer that comes now is not wanted.
  leave() {
    if (!this.looking) return;
    this.stop();
    this.tell("");
  }

  stop() {
    this.turn += 1;
    this.looking = false;
  }

  /**
   * @param {ImageBitmap} picture that the view shows
   * @param {boolean} able whether the server can look for faces
   */
  async look(picture, able) {
    this.stop();
    if (!able) {
      this.tell(t("own.align.not_installed"));
      return;
    }
    const turn = this.turn;
    this.looking = true;
    this.tell(t("own.align.looking"));
    try {
      const { aligned, aligned_reason: reason, crop } = await this.store.align(await smaller(picture, SIDE));
      if (turn !== this.turn) return;
      if (crop) this.view.follow(crop);
      const key = keyOf(`own.align.${aligned || reason}`);
      this.tell(key ? t(key) : "");
    } catch (error) {
      if (turn === this.turn) this.tellError(error);
    } finally {
      if (turn === this.turn) this.looking = false;
    }
  }
}

/**
 * A picture as JPEG, none of whose sides is longer.
 *
 * @param {ImageBitmap} picture
 * @param {number} side
 * @returns {Promise<Blob>}
 */
export async function smaller(picture, side) {
  const scale = Math.min(1, side / Math.max(picture.width, picture.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  const pen = canvas.getContext("2d");
  if (pen) {
    pen.fillStyle = "#fff"; // as the server puts behind transparent parts
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  }
  const blob = await new Promise((done) => {
    canvas.toBlob(done, "image/jpeg", 0.95);
  });
  if (!(blob instanceof Blob)) throw new Error("the canvas gives no picture");
  return blob;
}
