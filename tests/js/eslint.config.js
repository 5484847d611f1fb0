// Rules for the page: errors that a browser shows only when the line runs, and one way to write things.

import js from "@eslint/js";
import globals from "globals";

const STRICT = {
  "array-callback-return": "error",
  "consistent-return": "error",
  curly: ["error", "multi-line"],
  "default-param-last": "error",
  eqeqeq: "error",
  "no-constructor-return": "error",
  "no-else-return": "error",
  "no-eval": "error",
  "no-implicit-globals": "error",
  "no-promise-executor-return": "error",
  "no-self-compare": "error",
  "no-shadow": "error",
  "no-template-curly-in-string": "error",
  "no-throw-literal": "error",
  "no-unmodified-loop-condition": "error",
  "no-unused-expressions": "error",
  "no-use-before-define": ["error", { functions: false }],
  "no-var": "error",
  "object-shorthand": "error",
  "prefer-const": "error",
  "require-atomic-updates": "error",
};

const page = "**/gateway/page/**/*.js";
const client = "**/clients/js/**/*.js";

export default [
  { ...js.configs.recommended, files: [page, client, "*.js"] },
  {
    files: [page, client, "*.js"],
    languageOptions: { ecmaVersion: 2022, sourceType: "module" },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: STRICT,
  },
  { files: [page, client], languageOptions: { globals: globals.browser } },
  { files: ["**/capture-worklet.js"], languageOptions: { globals: globals.audioWorklet } },
  {
    // Browsers without modules read this one: it is a script in the language of 2009.
    files: ["**/old-browser.js"],
    languageOptions: { ecmaVersion: 5, sourceType: "script", globals: globals.browser },
    rules: { "no-var": "off", "prefer-const": "off", "object-shorthand": "off" },
  },
];
