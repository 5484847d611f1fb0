// Curves of the last minute: frame rate, latency by stage, offset of sound and picture, and what waits where.

import { typed } from "./elements.js";
import { numeral, t } from "./text.js";

/**
 * @import { Stats } from "./client/stats.js"
 * @import { TextKey } from "./text.js"
 * @typedef {{name: TextKey, of: (stats: Stats) => number | null | undefined}} Line
 * @typedef {{name: TextKey, unit: string, least: number, most: number, lines: Line[]}} Chart `least` and `most` are
 *   shown in any case
 */

const POINTS = 120; // two a second
const WIDTH = 240;
const HEIGHT = 64;
const SVG = "http://www.w3.org/2000/svg";

/** @type {Chart[]} */
const CHARTS = [
  {
    name: "curves.fps",
    unit: "fps",
    least: 0,
    most: 26,
    lines: [{ name: "curves.line.shown", of: (stats) => (stats.shown ? stats.fps : null) }],
  },
  {
    name: "curves.latency",
    unit: "ms",
    least: 0,
    most: 500,
    lines: [
      { name: "curves.line.whole", of: (stats) => stats.latencyMs },
      { name: "curves.line.server", of: (stats) => stats.server?.latency_ms?.p50 },
      { name: "curves.line.hearing", of: (stats) => stats.server?.stages_ms?.audio_worker },
      { name: "curves.line.denoising", of: (stats) => stats.server?.stages_ms?.gpu_worker },
      { name: "curves.line.encoding", of: (stats) => stats.server?.stages_ms?.encoder_worker },
    ],
  },
  {
    name: "curves.offset",
    unit: "ms",
    least: -80,
    most: 80,
    lines: [{ name: "curves.line.ahead", of: (stats) => stats.offsetMs }],
  },
  {
    name: "curves.buffer",
    unit: "s",
    least: 0,
    most: 0.5,
    lines: [
      { name: "curves.line.here", of: (stats) => (stats.clips ? stats.buffer : null) },
      { name: "curves.line.there", of: (stats) => stats.server?.seconds_waiting },
    ],
  },
];

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 */
function svg(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  return element;
}

class ChartView {
  /** @param {Chart} chart */
  constructor(chart) {
    this.chart = chart;
    /** @type {(number | null)[][]} */
    this.values = chart.lines.map(() => []);
    this.place = document.createElement("figure");
    this.title = document.createElement("figcaption");
    this.picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.zero = svg("line", { x1: 0, x2: WIDTH, class: "zero" });
    this.lines = chart.lines.map((_, n) => svg("path", { class: `line line-${n}` }));
    this.picture.append(this.zero, ...this.lines);
    this.place.append(this.title, this.picture);
    this.tell();
  }

  /** @param {Stats | null} stats */
  add(stats) {
    this.chart.lines.forEach(({ of }, n) => {
      const value = stats ? of(stats) : null;
      this.values[n].push(Number.isFinite(value) ? Number(value) : null);
      if (this.values[n].length > POINTS) this.values[n].shift();
    });
  }

  draw() {
    const all = this.values.flat().filter((value) => value !== null);
    const least = Math.min(this.chart.least, ...all);
    const most = Math.max(this.chart.most, ...all);
    const y = (/** @type {number} */ value) => HEIGHT - 2 - ((value - least) / (most - least)) * (HEIGHT - 4);
    this.zero.setAttribute("y1", y(0).toFixed(1));
    this.zero.setAttribute("y2", y(0).toFixed(1));
    this.values.forEach((values, n) => {
      const step = WIDTH / (POINTS - 1);
      const first = POINTS - values.length;
      let pen = "M";
      const path = values.map((value, k) => {
        if (value === null) {
          pen = "M";
          return "";
        }
        const point = `${pen}${((first + k) * step).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = "L";
        return point;
      });
      this.lines[n].setAttribute("d", path.join(""));
    });
    this.tell();
  }

  // The newest values, for those who read and for those who listen.
  tell() {
    const { chart } = this;
    const now = chart.lines.flatMap(({ name }, n) => {
      const value = this.values[n].at(-1);
      if (value === null || value === undefined) return [];
      const shown = chart.unit === "s" ? numeral(value, 2) : numeral(value, 0);
      return [{ n, text: `${chart.lines.length > 1 ? `${t(name)} ` : ""}${shown} ${chart.unit}` }];
    });
    const name = document.createElement("b");
    name.textContent = t(chart.name);
    const keys = now.map(({ n, text }) => {
      const key = Object.assign(document.createElement("span"), { textContent: text, className: `key key-${n}` });
      return key;
    });
    this.title.replaceChildren(name, ...keys);
    const values = now.map(({ text }) => text).join(", ") || t("curves.none");
    this.picture.setAttribute("aria-label", t("curves.now", { name: t(chart.name), values }));
  }
}

export class Curves {
  constructor() {
    this.details = typed("curves", HTMLDetailsElement);
    this.charts = CHARTS.map((chart) => new ChartView(chart));
    typed("curves-body", HTMLElement).append(...this.charts.map(({ place }) => place));
    this.details.addEventListener("toggle", () => this.draw());
  }

  /** @param {Stats | null} stats of the session, twice a second */
  add(stats) {
    if (!stats && this.charts[0].values[0].every((value) => value === null)) return;
    for (const chart of this.charts) chart.add(stats);
    this.draw();
  }

  draw() {
    if (!this.details.open || document.hidden) return;
    for (const chart of this.charts) chart.draw();
  }
}
