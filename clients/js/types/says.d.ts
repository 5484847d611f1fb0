/**
 * @typedef {{outcome: string, message: string}} SayEnd `spoken`, `interrupted`, `failed` with the reason, or `lost` where
 *   nobody will tell
 */
export class Says {
    count: number;
    /** @type {Map<string, (ended: SayEnd) => void>} */
    waiting: Map<string, (ended: SayEnd) => void>;
    /**
     * A text is sent.
     *
     * @returns {{id: string, ended: Promise<SayEnd>}} its name on the wire
     */
    begin(): {
        id: string;
        ended: Promise<SayEnd>;
    };
    /** @param {Record<string, unknown>} fields of a text of the server */
    take({ type, id, outcome, message }: Record<string, unknown>): void;
    /**
     * @param {string} id
     * @param {SayEnd} ended
     */
    end(id: string, ended: SayEnd): void;
    /**
     * @param {string} outcome of all that wait
     * @param {string} message
     */
    endAll(outcome: string, message?: string): void;
}
/**
 * `spoken`, `interrupted`, `failed` with the reason, or `lost` where
 *   nobody will tell
 */
export type SayEnd = {
    outcome: string;
    message: string;
};
