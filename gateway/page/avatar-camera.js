// A still picture from the camera. The stream ends as soon as the picture is there, or nobody wants one.

/** Why there is no picture from a camera, as a sentence. */
export class CameraError extends Error {}

/** @type {Record<string, string>} */
const REASONS = {
  NotAllowedError: "The browser may not use the camera. Allow it in the address bar.",
  NotFoundError: "There is no camera.",
  NotReadableError: "Another program uses the camera.",
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
    if (!navigator.mediaDevices) throw new CameraError("A camera needs a page on this machine, or HTTPS.");
    let stream;
    try {
      const video = { facingMode: "user", width: { ideal: 1280 }, height: { ideal: 960 } };
      stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    } catch (error) {
      const name = error instanceof DOMException ? error.name : "";
      throw new CameraError(REASONS[name] ?? "The camera gives no picture.");
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
    if (!(blob instanceof Blob)) throw new CameraError("The camera gives no picture.");
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
