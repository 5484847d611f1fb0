// A still picture from the camera. The stream ends as soon as the picture is there, or nobody wants one.

/** @import { TextKey } from "./text.js" */

/** There is no picture from a camera. */
export class CameraError extends Error {
  /** @param {TextKey} key of the sentence that says why */
  constructor(key) {
    super(key);
    this.key = key;
  }
}

/** @type {Record<string, TextKey>} */
const REASONS = {
  NotAllowedError: "own.camera.denied",
  NotFoundError: "own.camera.none",
  NotReadableError: "own.camera.busy",
};

export class Camera {
  /** @param {HTMLVideoElement} video shows what the camera sees */
  constructor(video) {
    this.video = video;
    /** @type {MediaStream | null} */
    this.stream = null;
    this.wanted = false;
  }

  async open() {
    this.wanted = true;
    if (!navigator.mediaDevices) throw new CameraError("own.camera.insecure");
    let stream;
    try {
      const video = { facingMode: "user", width: { ideal: 1280 }, height: { ideal: 960 } };
      stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    } catch (error) {
      const name = error instanceof DOMException ? error.name : "";
      throw new CameraError(REASONS[name] ?? "own.camera.dark");
    }
    if (!this.wanted) {
      stop(stream);
      return;
    }
    this.stream = stream;
    this.video.srcObject = stream;
    await this.video.play();
  }

  /**
   * The picture of this moment, and the end of the stream.
   *
   * @returns {Promise<Blob>} PNG
   */
  async take() {
    const { videoWidth: width, videoHeight: height } = this.video;
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    canvas.getContext("2d")?.drawImage(this.video, 0, 0);
    this.close();
    const blob = await new Promise((done) => {
      canvas.toBlob(done, "image/png");
    });
    if (!(blob instanceof Blob)) throw new CameraError("own.camera.dark");
    return blob;
  }

  close() {
    this.wanted = false;
    if (this.stream) stop(this.stream);
    this.stream = null;
    this.video.srcObject = null;
  }
}

/** @param {MediaStream} stream */
function stop(stream) {
  for (const track of stream.getTracks()) track.stop();
}
