// Whether the face's voice is heard. By loudspeakers a microphone would hear it, and the face would answer itself.

/**
 * @param {boolean | null} wish of the person or of the page; null for none
 * @param {boolean} microphone whether the face speaks what a microphone hears
 */
export function isHeard(wish, microphone) {
  return wish ?? !microphone;
}
