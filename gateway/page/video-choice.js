// `?video=` of the page's address: h264, vp8 or jpeg. Without it the client chooses.

/**
 * @param {string} query of the address
 * @returns {{video?: string[]}} options of the session
 */
export function videoOptions(query) {
  const named = new URLSearchParams(query).get("video");
  if (!named) return {};
  return { video: named.split(",").filter((name) => name !== "jpeg") };
}
