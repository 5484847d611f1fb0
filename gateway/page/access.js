// The token of this page. It comes by the address (?token= or #token=), by a field on the page, or from the page
// that holds this one in a frame. It never stays in the address bar, and a tab keeps it over a reload.

import { ClientError } from "./client/errors.js";
import { Server } from "./client/server.js";

const KEPT = "echomimic-token";
const SHAPE = /^[A-Za-z0-9._~-]{1,4096}$/; // a token can stand in a header and in a subprotocol

/** Browsers that keep nothing for pages in frames throw here. @param {(storage: Storage) => string | null | void} use */
function tryStorage(use) {
  try {
    return use(window.sessionStorage) ?? "";
  } catch {
    return "";
  }
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * Takes `token` out of "?a=1&token=x" or "#token=x".
 *
 * @param {string} text
 * @returns {{token: string | null, rest: string}} the rest with its mark, or empty
 */
function takeToken(text) {
  const parts = text.slice(1).split("&").filter(Boolean);
  const mine = parts.filter((part) => part.startsWith("token="));
  const others = parts.filter((part) => !part.startsWith("token="));
  const token = mine.length ? decoded(mine[0].slice(6)) : null;
  return { token, rest: others.length ? text[0] + others.join("&") : "" };
}

export class Access extends Server {
  constructor() {
    super(document.baseURI);
    this.place = KEPT + this.base.pathname; // two servers may share an origin
    this.token = tryStorage((storage) => storage.getItem(this.place));
    this.takeFromAddress();
  }

  takeFromAddress() {
    const { pathname, search, hash } = window.location;
    const query = takeToken(search);
    const fragment = takeToken(hash);
    const token = fragment.token ?? query.token;
    if (token === null) return;
    window.history.replaceState(window.history.state, "", pathname + query.rest + fragment.rest);
    this.set(token);
  }

  /**
   * @param {string} token empty for none
   * @returns {boolean} whether it can be a token at all
   */
  set(token) {
    const trimmed = token.trim();
    if (trimmed && !SHAPE.test(trimmed)) return false;
    this.token = trimmed;
    tryStorage((storage) => (trimmed ? storage.setItem(this.place, trimmed) : storage.removeItem(this.place)));
    return true;
  }

  /**
   * Shows a picture in an element, which cannot send a token by itself.
   *
   * @param {HTMLImageElement} img
   * @param {string} path relative to the page
   */
  async show(img, path) {
    img.dataset.path = path;
    let src = path;
    let blob = "";
    if (this.token) {
      try {
        const answer = await this.fetch(path, "default");
        if (!answer.ok) throw new ClientError("lost");
        blob = URL.createObjectURL(await answer.blob());
        src = blob;
      } catch {
        // The browser asks again without the token, and the element tells that there is no picture.
      }
    }
    // Another picture may have been wanted meanwhile.
    if (img.dataset.path === path) {
      const free = () => URL.revokeObjectURL(blob);
      for (const event of ["load", "error"]) img.addEventListener(event, free, { once: true });
      img.src = src;
    } else if (blob) {
      URL.revokeObjectURL(blob);
    }
  }
}
