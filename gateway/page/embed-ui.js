// The elements of /embed.

/**
 * @import { Access } from "./access.js"
 * @import { EmbedOptions } from "./embed-options.js"
 * @import { PageState } from "./ui.js"
 */

import { typed } from "./elements.js";

export class EmbedUi {
  /**
   * @param {EmbedOptions} options
   * @param {() => void} onTap
   */
  constructor(options, onTap) {
    this.canvas = typed("canvas", HTMLCanvasElement);
    this.portrait = typed("portrait", HTMLImageElement);
    this.tap = typed("tap", HTMLButtonElement);
    this.error = typed("error", HTMLElement);
    this.generated = typed("generated", HTMLElement);
    document.body.style.background = options.background;
    document.body.style.setProperty("--fit", options.fit);
    this.portrait.addEventListener("load", () => {
      this.portrait.hidden = false;
    });
    // A tap anywhere will do.
    document.addEventListener("click", () => {
      if (!this.tap.hidden) onTap();
    });
  }

  /** @param {PageState} state */
  showState(state) {
    document.body.dataset.state = state;
  }

  /** @param {boolean} shown whether the speaking face lies over the portrait */
  showFace(shown) {
    typed("face", HTMLElement).classList.toggle("speaking", shown);
  }

  /**
   * @param {Access} access
   * @param {string} name
   */
  showPortrait(access, name) {
    const path = `avatars/${encodeURIComponent(name)}.png`;
    if (this.portrait.dataset.path !== path) access.show(this.portrait, path);
  }

  /** @param {boolean} shown whether it says that the face is generated */
  showGenerated(shown) {
    this.generated.hidden = !shown;
  }

  /** @param {string} text empty for none */
  showTap(text) {
    this.tap.textContent = text;
    this.tap.hidden = !text;
  }

  /** @param {string} text empty for none */
  showError(text) {
    this.error.textContent = text;
    this.error.hidden = !text;
  }
}
