// The page's elements: what they show, and what a person does with them.

const $ = (id) => document.getElementById(id);

function titled(name) {
  const words = name.replace(/[_-]+/g, " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function choice(group, name, checked, pictures) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "radio", name: group, value: name, checked });
  const card = document.createElement("span");
  const text = Object.assign(document.createElement("b"), { textContent: titled(name) });
  const [img, enter, leave] = pictures(encodeURIComponent(name));
  if (enter) {
    for (const event of ["pointerenter", "focusin"]) label.addEventListener(event, enter);
    for (const event of ["pointerleave", "focusout"]) label.addEventListener(event, leave);
  }
  img.addEventListener("error", () => card.classList.add("no-picture"));
  card.dataset.initial = titled(name).charAt(0);
  card.append(img, text);
  label.append(input, card);
  return label;
}

function avatarPicture(name) {
  return [Object.assign(new Image(), { src: `avatars/${name}.png`, alt: "", decoding: "async" })];
}

// Moves while it is pointed at or has the focus: moving all the time would cost what the model needs.
function posePicture(name) {
  const still = `poses/${name}.svg`;
  const img = Object.assign(new Image(), { src: still, alt: "", decoding: "async" });
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const move = (live) => () => {
    img.src = live && !calm.matches ? `poses/live/${name}.svg` : still;
  };
  return [img, move(true), move(false)];
}

export class Ui {
  // on: {submit(), choose(group, name), sound(on)}
  constructor(on) {
    this.canvas = $("canvas");
    this.on = on;
    $("panel").addEventListener("submit", (event) => {
      event.preventDefault();
      on.submit();
    });
    $("panel").addEventListener("change", (event) => this.changed(event.target));
    for (const name of ["dragover", "drop"]) {
      document.addEventListener(name, (event) => event.preventDefault());
    }
    document.addEventListener("drop", (event) => this.dropped(event.dataTransfer?.files));
  }

  changed(target) {
    if (target.name === "avatar" || target.name === "pose") this.on.choose(target.name, target.value);
    if (target.name === "avatar") this.showPortrait(target.value);
    if (target.name === "source") this.showSource();
    if (target.id === "sound") this.on.sound(target.checked);
    if (target.id === "file") this.showFile();
  }

  dropped(files) {
    if (!files?.length || document.body.dataset.state === "live") return;
    $("file").files = files;
    document.querySelector("[name=source][value=file]").checked = true;
    this.showSource();
    this.showFile();
  }

  // ---- what a person chose

  get source() {
    return document.querySelector("[name=source]:checked").value;
  }

  get file() {
    return $("file").files[0] ?? null;
  }

  get sound() {
    return $("sound").checked;
  }

  chosen(group) {
    return document.querySelector(`[name=${group}]:checked`)?.value;
  }

  // ---- what is shown

  fillChoices({ avatars, poses }) {
    for (const [group, names, picture] of [["avatar", avatars, avatarPicture], ["pose", poses, posePicture]]) {
      const before = this.chosen(group);
      const first = names.includes(before) ? before : names[0];
      const cards = names.map((name) => choice(group, name, name === first, picture));
      $(`${group}s`).replaceChildren(...cards);
      $(`${group}s`).closest("fieldset").hidden = names.length < 2 && group === "pose";
    }
    if (avatars.length) this.showPortrait(this.chosen("avatar"));
  }

  showPortrait(name) {
    const portrait = $("portrait");
    const src = `avatars/${encodeURIComponent(name)}.png`;
    if (portrait.getAttribute("src") === src) return;
    portrait.onload = () => {
      portrait.hidden = false;
      $("placeholder").hidden = true;
      $("frame").style.setProperty("--ratio", `${portrait.naturalWidth} / ${portrait.naturalHeight}`);
    };
    portrait.onerror = () => {
      portrait.hidden = true;
      $("placeholder").hidden = false;
    };
    portrait.src = src;
    portrait.alt = `${titled(name)}, at rest`;
  }

  showSource() {
    const file = this.source === "file";
    $("file-row").hidden = !file;
    $("sound-hint").textContent = file
      ? "In step with the face."
      : "In step with the face. Use headphones to avoid an echo.";
    this.showError("");
  }

  showFile() {
    $("file-label").textContent = this.file?.name ?? "Choose a file…";
    $("file-label").classList.toggle("chosen", Boolean(this.file));
    this.showError("");
  }

  // `state`: loading, idle, connecting, live, waiting. It decides the pill's colour and the button's word.
  showState(state, text) {
    const running = state === "connecting" || state === "live" || state === "waiting";
    document.body.dataset.state = state;
    $("state").textContent = text;
    $("start").textContent = running ? "Stop" : "Start";
    $("start").disabled = state === "loading";
    $("sources").classList.toggle("locked", running);
    for (const input of document.querySelectorAll("[name=source], #file")) input.disabled = running;
    if (!running) {
      this.showFace(false);
      this.showLevel(0);
      $("progress").hidden = true;
    }
  }

  showError(text) {
    $("error").textContent = text;
    $("error").hidden = !text;
  }

  showNotice(text) {
    if ($("notice").textContent === text) return;
    $("notice").textContent = text;
    $("notice").hidden = !text;
  }

  // The canvas over the portrait, once it has a picture.
  showFace(shown) {
    $("frame").classList.toggle("speaking", shown);
  }

  showRatio(width, height) {
    if (width && height) $("frame").style.setProperty("--ratio", `${width} / ${height}`);
  }

  // Called for every 20 ms of speech; the page changes ten times a second.
  showLevel(level) {
    const now = performance.now();
    this.loudest = Math.max(this.loudest ?? 0, level);
    if (level > 0 && now - (this.levelAt ?? 0) < 100) return;
    this.levelAt = now;
    $("level").style.transform = `scaleX(${this.loudest.toFixed(2)})`;
    $("ring").style.opacity = level === 0 ? "0" : (0.25 + 0.75 * this.loudest).toFixed(2);
    this.loudest = 0;
  }

  showProgress(done) {
    $("progress").hidden = false;
    $("progress").value = done;
  }

  showFigures(stats) {
    const whole = (value) => (value === null ? "–" : String(Math.round(value)));
    $("fps").textContent = stats && stats.shown ? stats.fps.toFixed(1) : "–";
    $("latency").textContent = stats ? whole(stats.latencyMs) : "–";
    const offset = stats?.offsetMs ?? null;
    const rounded = offset === null ? null : Math.round(offset);
    $("offset").textContent = rounded === null ? "–" : rounded > 0 ? `+${rounded}` : String(rounded).replace("-", "−");
    $("drops").textContent = stats ? String(stats.drops) : "–";
  }
}
