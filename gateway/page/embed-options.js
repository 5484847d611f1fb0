// What the address of /embed asks for.

/**
 * @typedef {{
 *   avatar: string | undefined, pose: string | undefined, background: string, fit: "contain" | "cover",
 *   heard: boolean | null, mic: boolean, label: boolean,
 * }} EmbedOptions `heard`: whether the voice is heard, null where nobody says it; `background` is a colour of CSS or "transparent"; `label` says that the face is generated
 */

/** @param {string | null} value "", "1" and "true" switch on; anything else does not */
function isOn(value) {
  return value !== null && ["", "1", "true"].includes(value.toLowerCase());
}

/**
 * @param {URLSearchParams} query
 * @returns {EmbedOptions}
 */
export function readOptions(query) {
  const background = query.get("background") ?? "transparent";
  return {
    avatar: query.get("avatar") || undefined,
    pose: query.get("pose") || undefined,
    background: CSS.supports("color", background) ? background : "transparent",
    fit: query.get("fit") === "cover" ? "cover" : "contain",
    heard: query.has("muted") ? !isOn(query.get("muted")) : null,
    mic: isOn(query.get("mic")),
    label: query.get("label") !== "0",
  };
}
