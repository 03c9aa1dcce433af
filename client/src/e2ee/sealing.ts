/** The page's handle on the worker that seals and opens frames. */
import { Emitter } from "../emitter.js";
import { ClosedError, NoKeyError, UnsupportedBrowserError, WorkerError } from "../errors.js";
import type {
  FromWorker,
  GroupConfig,
  GroupCounters,
  GroupNotice,
  GroupSnapshot,
  OpenCounters,
  SealCounters,
  ToWorker,
  TransformOptions,
} from "./messages.js";

/** AES_256_GCM_SHA512_128 (RFC 9605 §8.1), the suite of link-key rooms (docs/PROTOCOL.md §7.3). */
const LINK_KEY_SUITE = 5;

/** Compiling the module takes some 50 ms; a device that needs longer than this is stuck. */
const START_TIMEOUT_MS = 20_000;

interface SealingEvents {
  /** Once a second: totals by track, and by sending line. */
  counters: {
    opened: Record<string, OpenCounters>;
    sealed: Record<string, SealCounters>;
    group: GroupCounters | null;
  };
  /** The public key for which the group is to be joined. */
  "group-key": JsonWebKey;
  /** To be sent to the delivery service. */
  "group-send": Uint8Array<ArrayBuffer>;
  /** To be sent to everybody, sealed already. */
  "sealed-send": { message: Uint8Array<ArrayBuffer>; request: number | null };
  "say-refused": { request: number; message: string };
  "group-changed": GroupSnapshot;
  "group-notice": GroupNotice;
  said: { participant: string; body: unknown };
  failed: WorkerError;
}

/** What a member joins its group with. */
export interface GroupJoin {
  config: GroupConfig;
  claim: string;
  participant: string;
  name?: string;
  named?: string;
}

interface Waiting {
  resolve(contexts: number[]): void;
  reject(error: Error): void;
}

export class Sealing extends Emitter<SealingEvents> {
  readonly hasLinkKey: boolean;
  #hasGroup = false;
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #nextRequest = 1;

  /**
   * Starts the worker.
   *
   * @throws UnsupportedBrowserError before anything is started
   */
  static async start(
    makeWorker: () => Worker,
    wasm: string,
    linkKey: Uint8Array<ArrayBuffer> | undefined,
  ): Promise<Sealing> {
    assertSupported();
    const worker = makeWorker();
    try {
      await started(worker, wasm);
    } catch (error) {
      worker.terminate();
      throw error;
    }
    return new Sealing(worker, linkKey);
  }

  private constructor(worker: Worker, linkKey: Uint8Array<ArrayBuffer> | undefined) {
    super();
    this.#worker = worker;
    this.hasLinkKey = linkKey !== undefined;
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#onMessage(data);
    worker.onerror = (event) => {
      this.emit("failed", new WorkerError(`the sealing worker failed: ${event.message}`));
    };
    if (linkKey) this.#post({ type: "link-key", key: linkKey });
  }

  /** Whether there is anything to seal with, or will be. */
  get hasKey(): boolean {
    return this.hasLinkKey || this.#hasGroup;
  }

  /** Keys come from the room's group; `group-key` follows. */
  startGroup(suite: number): void {
    this.#hasGroup = true;
    this.#post({ type: "group", suite });
  }

  joinGroup(join: GroupJoin): void {
    this.#post({ type: "group-join", ...join });
  }

  /** The connection to the relay is new. */
  groupConnected(participant: string): void {
    this.#post({ type: "group-connected", participant });
  }

  groupMessage(message: Uint8Array<ArrayBuffer>): void {
    this.#post({ type: "group-message", message });
  }

  /** The relay did not take a message of the group. */
  groupRefused(): void {
    this.#post({ type: "group-refused" });
  }

  /** @param from who sent it, by the relay's word; `null` where the lane has none */
  sealedMessage(message: Uint8Array<ArrayBuffer>, from: string | null): void {
    this.#post({ type: "sealed-message", message, from });
  }

  /** Answered by `sealed-send` or `say-refused` with the same `request`. */
  say(request: number, body: unknown): void {
    this.#post({ type: "say", request, body });
  }

  rotate(): void {
    this.#post({ type: "group-rotate" });
  }

  /** A transform for one end of one m-line; frames pass it only when they are sealed or opened. */
  transform(options: TransformOptions): RTCRtpScriptTransform {
    return new RTCRtpScriptTransform(this.#worker, options);
  }

  /**
   * Seals what `line` sends: under fresh key ids, or with the group's keys once there are any.
   *
   * @param encodings how many the line sends; each has a key of its own
   * @returns the key id contexts to announce in `publish`
   */
  seal(line: string, encodings: number): Promise<number[]> {
    if (!this.hasKey) {
      return Promise.reject(new NoKeyError("the room was joined without a key, nothing can be sealed"));
    }
    const request = this.#nextRequest++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(request, { resolve, reject });
      this.#post({ type: "seal", request, line, encodings });
    });
  }

  unseal(line: string): void {
    this.#post({ type: "unseal", line });
  }

  /** @param owner the participant whose track it is */
  show(slot: string, track: string | null, sealed: boolean, owner: string): void {
    this.#post({ type: "show", slot, track, sealed, owner });
  }

  /** Ends the worker, and the keys with it. */
  close(): void {
    this.#worker.terminate();
    for (const { reject } of this.#waiting.values()) reject(new ClosedError("the room was left"));
    this.#waiting.clear();
  }

  #onMessage(message: FromWorker): void {
    switch (message.type) {
      case "sealing":
        this.#take(message.request)?.resolve(message.contexts);
        break;
      case "seal-refused":
        this.#take(message.request)?.reject(new WorkerError(message.message));
        break;
      case "group-key":
        this.emit("group-key", JSON.parse(message.jwk) as JsonWebKey);
        break;
      case "group-send":
        this.emit("group-send", message.message);
        break;
      case "sealed-send":
        this.emit("sealed-send", { message: message.message, request: message.request });
        break;
      case "say-refused":
        this.emit("say-refused", { request: message.request, message: message.message });
        break;
      case "group-changed":
        this.emit("group-changed", message.group);
        break;
      case "group-notice":
        this.emit("group-notice", message.notice);
        break;
      case "said":
        this.emit("said", { participant: message.participant, body: message.body });
        break;
      case "counters":
        this.emit("counters", { opened: message.opened, sealed: message.sealed, group: message.group });
        break;
      case "failed":
        this.emit("failed", new WorkerError(message.message));
        break;
      case "ready":
        break;
    }
  }

  #take(request: number): Waiting | undefined {
    const waiting = this.#waiting.get(request);
    this.#waiting.delete(request);
    return waiting;
  }

  #post(message: ToWorker): void {
    this.#worker.postMessage(message);
  }
}

/** @throws UnsupportedBrowserError where frames could not be sealed in this browser */
export function assertSupported(): void {
  const needed = ["RTCPeerConnection", "RTCRtpScriptTransform", "WebAssembly", "Worker"];
  const missing = needed.filter((name) => !(name in globalThis));
  if (missing.length > 0) throw new UnsupportedBrowserError(missing);
}

function started(worker: Worker, wasm: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new WorkerError("the sealing worker did not start in time")),
      START_TIMEOUT_MS,
    );
    const settle = (outcome: () => void): void => {
      clearTimeout(timer);
      outcome();
    };
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      if (data.type === "ready") settle(resolve);
      if (data.type === "failed") settle(() => reject(new WorkerError(data.message)));
    };
    worker.onerror = (event) => {
      settle(() => reject(new WorkerError(`the sealing worker did not load: ${event.message}`)));
    };
    const init: ToWorker = { type: "init", wasm, suite: LINK_KEY_SUITE };
    worker.postMessage(init);
  });
}
