// The page's texts in the reader's language.
//
// An element of the page names its text: data-text is the key of its content, data-label of its aria-label,
// data-title of its title, and data-placeholder of its placeholder. The server's sentences come in English, with a
// code by which they are found here.

import { DE } from "./texts-de.js";
import { EN } from "./texts-en.js";
import { TOLD_DE } from "./told-de.js";
import { TOLD_EN } from "./told-en.js";

const ENGLISH = { ...EN, ...TOLD_EN };

/**
 * @typedef {keyof typeof ENGLISH} TextKey
 * @typedef {Record<string, string | number>} Values
 * @typedef {{code?: string, values?: Values}} Phrase of a sentence of the server; empty for one without a code
 */

/** @type {Record<string, Record<TextKey, string>>} */
export const CATALOGUES = { en: ENGLISH, de: { ...DE, ...TOLD_DE } };
const KEPT = "echomimic-language";
/** Names of an element's data → the attributes that get these texts. @type {Record<string, string>} */
const ATTRIBUTES = { label: "aria-label", title: "title", placeholder: "placeholder" };

let language = firstLanguage();

/** The language of the address (?lang=), the one that was chosen before, or the browser's. */
function firstLanguage() {
  const asked = [new URLSearchParams(window.location.search).get("lang"), kept(), ...navigator.languages];
  const known = asked.map((name) => name?.slice(0, 2).toLowerCase() ?? "").find((name) => name in CATALOGUES);
  return known ?? "en";
}

/** Browsers that keep nothing throw here. */
function kept() {
  try {
    return window.localStorage.getItem(KEPT);
  } catch {
    return null;
  }
}

/**
 * @param {TextKey} key
 * @param {Values} values take the places of {names} in the text
 */
export function t(key, values = {}) {
  return CATALOGUES[language][key].replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

/**
 * A number as the reader's language writes it.
 *
 * @param {number} value
 * @param {number} digits after the point
 */
export function numeral(value, digits) {
  const format = { minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false };
  const rounded = Number(value.toFixed(digits)) + 0; // never −0
  return rounded.toLocaleString(language, format).replace("-", "−");
}

/**
 * A key that is made of parts. Null where there is none.
 *
 * @param {string} key
 * @returns {TextKey | null}
 */
export function keyOf(key) {
  return key in ENGLISH ? /** @type {TextKey} */ (key) : null;
}

/**
 * A sentence of the server in the reader's language. One whose code is not known here stays as it is.
 *
 * @param {unknown} phrase
 * @param {string} english
 */
export function sentence(phrase, english) {
  const { code, values } = /** @type {Phrase} */ (phrase ?? {});
  const key = keyOf(`told.${code}`);
  return key ? t(key, values) : english;
}

export function currentLanguage() {
  return language;
}

/** @param {string} name one of CATALOGUES */
export function useLanguage(name) {
  language = name;
  try {
    window.localStorage.setItem(KEPT, name);
  } catch {
    // The next visit has the browser's language again.
  }
  translate();
}

/** Puts the texts into the elements that name them. */
export function translate() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-text], [data-label], [data-title], [data-placeholder]")) {
    if (!(element instanceof HTMLElement)) continue;
    const text = keyOf(element.dataset.text ?? "");
    if (text) element.textContent = t(text);
    for (const [name, attribute] of Object.entries(ATTRIBUTES)) {
      const key = keyOf(element.dataset[name] ?? "");
      if (key) element.setAttribute(attribute, t(key));
    }
  }
}
