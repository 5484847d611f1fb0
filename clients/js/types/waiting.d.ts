/**
 * @param {Promise<unknown>} promise
 * @param {number} milliseconds
 * @returns {Promise<boolean>} whether it was fulfilled within this time
 */
export function settledWithin(promise: Promise<unknown>, milliseconds: number): Promise<boolean>;
