// How the page works, in three steps: shown at the first visit until it was read, and again by the "?" button.

import { typed } from "./elements.js";

const KEPT = "echomimic-guide-read";

/** Browsers that keep nothing for this page show it once a page. */
function wasRead() {
  try {
    return window.localStorage.getItem(KEPT) !== null;
  } catch {
    return false;
  }
}

export class Guide {
  constructor() {
    this.place = typed("guide", HTMLElement);
    this.button = typed("help", HTMLButtonElement);
    this.button.addEventListener("click", () => this.show(this.place.hidden));
    typed("guide-close", HTMLButtonElement).addEventListener("click", () => this.close());
    this.show(!wasRead());
  }

  /** @param {boolean} shown */
  show(shown) {
    this.place.hidden = !shown;
    this.button.setAttribute("aria-expanded", String(shown));
  }

  // It was read, or the person knows how to start.
  close() {
    if (this.place.contains(document.activeElement)) this.button.focus();
    this.show(false);
    try {
      window.localStorage.setItem(KEPT, "1");
    } catch {
      // It is shown again at the next visit.
    }
  }
}
