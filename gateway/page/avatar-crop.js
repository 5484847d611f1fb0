// Chooses the part of a picture that becomes an avatar: drag, wheel, two fingers or keys.

/**
 * @import { Crop } from "./avatar-store.js"
 * @typedef {{
 *   face_x: number, face_y: number, face_width: number, face_height: number, neck: number, shoulders: number,
 * }} Framing where the model has head and shoulders, as fractions of the frame
 */

const SMALLEST = 0.5; // of the picture in the frame: a picture may be smaller than the frame
const LARGEST = 12;
const STEP = 0.02; // of the frame's side, for a press of an arrow key
const ZOOM = 1.1; // for a press of + or −

export class CropView {
  /**
   * @param {HTMLCanvasElement} canvas it shows the frame, and takes the focus
   * @param {() => void} changed another part was chosen
   */
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    /** @type {ImageBitmap | null} */
    this.picture = null;
    /** @type {Framing | null} */
    this.framing = null;
    /** @type {Crop | null} */
    this.found = null; // the part that the picture's face chose
    this.zoom = 1; // 1: the picture covers the frame
    this.left = 0; // of the picture, in canvas pixels
    this.top = 0;
    /** @type {Map<number, {x: number, y: number}>} */
    this.fingers = new Map();
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    for (const name of /** @type {const} */ (["pointerup", "pointercancel"])) {
      canvas.addEventListener(name, (event) => this.fingers.delete(event.pointerId));
    }
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  /**
   * @param {ImageBitmap} picture upright
   * @param {number} ratio width over height of the model's frames
   * @param {Framing} framing
   */
  show(picture, ratio, framing) {
    this.picture?.close();
    this.picture = picture;
    this.framing = framing;
    this.found = null;
    this.canvas.height = Math.round(this.canvas.width / ratio);
    this.reset();
  }

  // The part that is taken where nobody chooses: that of the face, else the middle of a wide picture and the top
  // of a tall one.
  reset() {
    this.zoom = 1;
    if (this.found) {
      this.zoom = within(SMALLEST, this.canvas.width / (this.found[2] * this.width), LARGEST);
      this.left = -this.found[0] * this.width;
      this.top = -this.found[1] * this.height;
    } else {
      this.left = (this.canvas.width - this.width) / 2;
      this.top = 0;
    }
    this.draw();
  }

  /** @param {Crop} crop the part that the picture's face chose */
  follow(crop) {
    this.found = crop;
    this.reset();
  }

  // Width and height of the whole picture, in canvas pixels.
  get width() {
    return this.scale * (this.picture?.width ?? 1);
  }

  get height() {
    return this.scale * (this.picture?.height ?? 1);
  }

  get scale() {
    const { width = 1, height = 1 } = this.picture ?? {};
    return this.zoom * Math.max(this.canvas.width / width, this.canvas.height / height);
  }

  /** @returns {Crop} */
  get crop() {
    const { width, height } = this;
    return [-this.left / width, -this.top / height, this.canvas.width / width, this.canvas.height / height];
  }

  /**
   * @param {number} right in canvas pixels
   * @param {number} down
   */
  move(right, down) {
    // A quarter of the frame always shows some of the picture.
    const edge = 0.25;
    const { width, height } = this.canvas;
    this.left = within(width * edge - this.width, this.left + right, width * (1 - edge));
    this.top = within(height * edge - this.height, this.top + down, height * (1 - edge));
    this.draw();
    this.changed();
  }

  /**
   * @param {number} by factor
   * @param {number} x the place that stays where it is, in canvas pixels
   * @param {number} y
   */
  zoomBy(by, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    const before = this.zoom;
    this.zoom = within(SMALLEST, this.zoom * by, LARGEST);
    const factor = this.zoom / before;
    this.left = x - (x - this.left) * factor;
    this.top = y - (y - this.top) * factor;
    this.move(0, 0);
  }

  /** @param {MouseEvent} event */
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / box.width;
    return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
  }

  /** @param {PointerEvent} event */
  down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, this.place(event));
  }

  /** @param {PointerEvent} event */
  moved(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const now = this.place(event);
    const other = [...this.fingers].find(([id]) => id !== event.pointerId)?.[1];
    this.fingers.set(event.pointerId, now);
    if (other) {
      const apart = Math.hypot(now.x - other.x, now.y - other.y);
      const was = Math.hypot(before.x - other.x, before.y - other.y);
      if (was > 0) this.zoomBy(apart / was, other.x, other.y);
    } else {
      this.move(now.x - before.x, now.y - before.y);
    }
  }

  /** @param {WheelEvent} event */
  wheel(event) {
    event.preventDefault();
    const { x, y } = this.place(event);
    this.zoomBy(Math.exp(-event.deltaY / 400), x, y);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const step = STEP * this.canvas.width * (event.shiftKey ? 5 : 1);
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowLeft: () => this.move(-step, 0),
      ArrowRight: () => this.move(step, 0),
      ArrowUp: () => this.move(0, -step),
      ArrowDown: () => this.move(0, step),
      "+": () => this.zoomBy(ZOOM),
      "=": () => this.zoomBy(ZOOM),
      "-": () => this.zoomBy(1 / ZOOM),
      0: () => this.reset(),
    };
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  }

  draw() {
    const pen = this.canvas.getContext("2d");
    if (!pen || !this.picture) return;
    const { width, height } = this.canvas;
    pen.fillStyle = "#888";
    pen.fillRect(0, 0, width, height);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.picture, this.left, this.top, this.width, this.height);
    if (!this.framing) return;
    // Light on dark, so that it shows on every picture.
    for (const [colour, thick] of /** @type {const} */ ([["rgb(0 0 0 / 55%)", 6], ["rgb(255 255 255 / 95%)", 2.5]])) {
      pen.strokeStyle = colour;
      pen.lineWidth = thick;
      pen.setLineDash(thick < 4 ? [9, 6] : []);
      outline(pen, this.framing, width, height);
    }
  }
}

/**
 * @param {number} least
 * @param {number} value
 * @param {number} most
 */
function within(least, value, most) {
  return Math.min(most, Math.max(least, value));
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {Framing} at
 * @param {number} width
 * @param {number} height
 */
function outline(pen, at, width, height) {
  pen.beginPath();
  pen.ellipse(at.face_x * width, at.face_y * height, at.face_width * width, at.face_height * height, 0, 0, 2 * Math.PI);
  pen.stroke();
  pen.beginPath();
  for (const side of [-1, 1]) {
    const x = (/** @type {number} */ part) => (at.face_x + side * part) * width;
    pen.moveTo(x(0.06), at.neck * height);
    pen.quadraticCurveTo(x(at.shoulders * 0.95), (at.neck + 0.02) * height, x(at.shoulders), (at.neck + 0.16) * height);
    pen.lineTo(x(at.shoulders + 0.01), height);
  }
  pen.stroke();
}
