// The face on the whole screen, where the browser can do that for an element.

import { typed } from "./elements.js";
import { t } from "./text.js";

export function offerFullScreen() {
  const frame = typed("frame", HTMLElement);
  const button = typed("full", HTMLButtonElement);
  button.hidden = !document.fullscreenEnabled;
  const toggle = () => {
    // Either may be refused, such as in a frame that was not allowed to: then all stays as it is.
    const done = document.fullscreenElement ? document.exitFullscreen() : frame.requestFullscreen();
    done.catch(() => {});
  };
  button.addEventListener("click", toggle);
  frame.addEventListener("dblclick", () => document.fullscreenEnabled && toggle());
  document.addEventListener("fullscreenchange", () => {
    const key = document.fullscreenElement ? "stage.full.leave" : "stage.full";
    button.dataset.label = key;
    button.setAttribute("aria-label", t(key));
  });
}
