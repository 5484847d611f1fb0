// Promises that may never settle: browsers leave some of theirs open, such as AudioContext.resume() without a tap.

/**
 * @param {Promise<unknown>} promise
 * @param {number} milliseconds
 * @returns {Promise<boolean>} whether it was fulfilled within this time
 */
export function settledWithin(promise, milliseconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), milliseconds);
    const answer = (/** @type {boolean} */ fulfilled) => {
      clearTimeout(timer);
      resolve(fulfilled);
    };
    promise.then(
      () => answer(true),
      () => answer(false),
    );
  });
}
