/**
 * One signalling socket: requests paired with their responses, events passed on. It does not
 * reconnect; a socket that closed is replaced by a new `SignalSocket` (see recovery.ts).
 */
import { Emitter } from "./emitter.js";
import {
  ConnectionLostError,
  ProtocolError,
  RelayError,
  type SealcastError,
  TimeoutError,
  errorFromClose,
  isRelayErrorCode,
} from "./errors.js";
import {
  type RelayEvent,
  type RelayMessage,
  type RequestType,
  type Requests,
  type ResponseOf,
  type ResponseType,
  SUBPROTOCOL,
  decodeEvent,
  decodeMessage,
  decodeResponse,
} from "./protocol.js";

/** How long a socket may take to open, and a request to be answered. */
export const REQUEST_TIMEOUT_MS = 10_000;

/** The part of `WebSocket` that is used, so that tests can stand in for it. */
export interface SocketLike {
  send(text: string): void;
  close(code?: number, reason?: string): void;
  addEventListener(type: "open" | "error", listener: () => void): void;
  addEventListener(type: "message", listener: (event: { data: unknown }) => void): void;
  addEventListener(type: "close", listener: (event: { code: number; reason: string }) => void): void;
}

interface SignalEvents {
  event: RelayEvent;
  /** The socket is gone; every pending request has been rejected with this error. */
  closed: SealcastError;
}

interface Pending {
  expected: ResponseType;
  resolve(response: never): void;
  reject(error: SealcastError): void;
  timer: ReturnType<typeof setTimeout>;
}

const RESPONSE_TO: { [T in RequestType]: Requests[T]["response"] } = {
  join: "joined",
  resume: "resumed",
  leave: "left",
  offer: "answer",
  publish: "published",
  unpublish: "ok",
  mute: "ok",
  slots: "ok",
  remove: "ok",
  group: "ok",
  sealed: "ok",
  report: "ok",
};

export class SignalSocket extends Emitter<SignalEvents> {
  readonly #socket: SocketLike;
  readonly #pending = new Map<number, Pending>();
  /** What the relay said was wrong before it closed, which says more than the close code. */
  #fatal: SealcastError | undefined;
  #closed: SealcastError | undefined;
  #nextId = 1;

  /** Opens a socket; rejects with {@link ConnectionLostError} or {@link TimeoutError}. */
  static open(
    url: string,
    makeSocket: (url: string) => SocketLike = (address) => new WebSocket(address, SUBPROTOCOL),
  ): Promise<SignalSocket> {
    return new Promise((resolve, reject) => {
      const socket = makeSocket(url);
      const timer = setTimeout(() => {
        reject(new TimeoutError("the signalling socket did not open"));
        socket.close();
      }, REQUEST_TIMEOUT_MS);
      const signal = new SignalSocket(socket);
      socket.addEventListener("open", () => {
        clearTimeout(timer);
        resolve(signal);
      });
      signal.on("closed", (error) => {
        clearTimeout(timer);
        reject(error);
      });
    });
  }

  private constructor(socket: SocketLike) {
    super();
    this.#socket = socket;
    socket.addEventListener("message", ({ data }) => this.#onMessage(data));
    socket.addEventListener("close", ({ code, reason }) =>
      this.#onClosed(this.#fatal ?? errorFromClose(code, reason)),
    );
  }

  request<T extends RequestType>(
    type: T,
    fields: Requests[T]["fields"],
  ): Promise<ResponseOf<Requests[T]["response"]>> {
    return new Promise((resolve, reject) => {
      if (this.#closed) {
        reject(new ConnectionLostError(`no socket for ${type}`, { cause: this.#closed }));
        return;
      }
      const id = this.#nextId++;
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(new TimeoutError(`the relay did not answer ${type}`));
      }, REQUEST_TIMEOUT_MS);
      this.#pending.set(id, { expected: RESPONSE_TO[type], resolve, reject, timer });
      this.#socket.send(JSON.stringify({ ...fields, type, id }));
    });
  }

  close(): void {
    this.#socket.close(1000);
    this.#onClosed(new ConnectionLostError("socket closed by this client"));
  }

  #onMessage(data: unknown): void {
    if (this.#closed) return;
    try {
      if (typeof data !== "string") throw new ProtocolError("the relay sent a binary frame");
      const message = decodeMessage(data);
      if (message.id !== undefined) this.#onResponse(message.id, message);
      else if (message.type === "error") this.#fatal = relayError(message);
      else {
        const event = decodeEvent(message);
        if (event) this.emit("event", event);
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#socket.close(4400, "protocol violation");
      this.#onClosed(error);
    }
  }

  #onResponse(id: number, message: RelayMessage): void {
    const pending = this.#pending.get(id);
    // A response that comes after its time-out is late, not wrong.
    if (!pending) return;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    if (message.type === "error") {
      pending.reject(relayError(message));
      return;
    }
    try {
      pending.resolve(decodeResponse(pending.expected, message) as never);
    } catch (error) {
      if (error instanceof ProtocolError) pending.reject(error);
      throw error;
    }
  }

  #onClosed(error: SealcastError): void {
    if (this.#closed) return;
    this.#closed = error;
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(error);
    }
    this.#pending.clear();
    this.emit("closed", error);
  }
}

function relayError({ body }: RelayMessage): SealcastError {
  const text = typeof body["message"] === "string" ? body["message"] : "no message";
  const code = body["code"];
  if (!isRelayErrorCode(code)) return new ProtocolError(`unknown error code ${String(code)}: ${text}`);
  return new RelayError(code, text, body["retry"] === true);
}
