export class Server {
    /**
     * @param {string | URL} address of the server's page, or of a page beside it
     * @param {string} token empty for none
     * @param {typeof WebSocket} [Socket] the class of its websocket, where the platform has none of its own
     */
    constructor(address: string | URL, token?: string, Socket?: typeof WebSocket);
    base: URL;
    token: string;
    Socket: {
        new (url: string | URL, protocols?: string | string[]): WebSocket;
        prototype: WebSocket;
        readonly CONNECTING: 0;
        readonly OPEN: 1;
        readonly CLOSING: 2;
        readonly CLOSED: 3;
    } | undefined;
    /** Address of the websocket. */
    get socketAddress(): URL;
    /** A new websocket of version 2. The token is a subprotocol: a browser can set no header there. */
    open(): WebSocket;
    /**
     * @param {string} path relative to the page
     * @param {RequestCache} cache
     * @param {number} within milliseconds after which it is given up; 0 for no limit
     * @returns {Promise<Response>}
     */
    fetch(path: string, cache?: RequestCache, within?: number): Promise<Response>;
    /**
     * Why the server does not let this client's websocket in. Null where it does, or is not reached.
     *
     * @returns {Promise<ClientError | null>}
     */
    askReason(): Promise<ClientError | null>;
}
import { ClientError } from "./errors.js";
