// The avatars that this person brought, at the server.

import { ClientError } from "./client/errors.js";
import { sentence } from "./text.js";

/**
 * @import { Access } from "./access.js"
 * @typedef {{
 *   id: string, name: string, kept: boolean, warning: string, warning_phrase?: object, picture: string, preview: string,
 *   fit: {edges: number, psnr: number} | null,
 * }} OwnAvatar
 * @typedef {[number, number, number, number]} Crop left, top, width and height as fractions of the picture
 * @typedef {{aligned: "face" | false, aligned_reason: string | null, crop: Crop | null}} Alignment
 */

/** The server's sentence about what it refused. */
export class StoreError extends Error {}

export class AvatarStore {
  /** @param {Access} access */
  constructor(access) {
    this.access = access;
  }

  /**
   * Sends a picture. It waits to be kept.
   *
   * @param {Blob} picture
   * @param {string} name
   * @param {Crop} crop
   * @returns {Promise<OwnAvatar>}
   */
  async bring(picture, name, crop) {
    const query = new URLSearchParams({ name, crop: crop.map((part) => part.toFixed(5)).join(",") });
    return (await this.send("POST", `avatars?${query}`, picture)).json();
  }

  /**
   * Where the picture's face is. The server keeps nothing of it.
   *
   * @param {Blob} picture
   * @returns {Promise<Alignment>}
   */
  async align(picture) {
    return (await this.send("POST", "avatars/align", picture)).json();
  }

  /**
   * @param {string} id
   * @returns {Promise<OwnAvatar>}
   */
  async keep(id) {
    return (await this.send("POST", `avatars/${id}/keep`)).json();
  }

  /** @param {string} id */
  async remove(id) {
    await this.send("DELETE", `avatars/${id}`);
  }

  /**
   * @param {string} method
   * @param {string} path relative to the page
   * @param {Blob} [body]
   */
  async send(method, path, body) {
    const token = this.access.token;
    const headers = token ? { Authorization: `Bearer ${token}` } : undefined;
    let answer;
    try {
      answer = await fetch(new URL(path, document.baseURI), { method, body, headers, cache: "no-store" });
    } catch {
      throw new ClientError("lost");
    }
    if (!answer.ok) {
      const phrase = JSON.parse(answer.headers.get("Phrase") ?? "{}");
      throw new StoreError(sentence(phrase, (await answer.text()).trim()));
    }
    return answer;
  }
}
