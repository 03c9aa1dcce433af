/**
 * The standing connection to a relay: one signalling socket, one media session, and the recovery of
 * either. Above it nobody needs to know which socket or peer connection is the current one.
 */
import type { Sealing } from "./e2ee/sealing.js";
import { Emitter } from "./emitter.js";
import {
  ClosedError,
  ConnectionLostError,
  MediaError,
  ProtocolError,
  RelayError,
  SealcastError,
} from "./errors.js";
import { type MediaLayout, MediaSession } from "./media.js";
import {
  type DataNotice,
  type Joined,
  PROTOCOL_VERSION,
  type RelayEvent,
  type RequestType,
  type Requests,
  type ResponseOf,
  type Resumed,
} from "./protocol.js";
import { Recovery, type RecoveryAction, type RecoveryInput, type RecoveryPhase } from "./recovery.js";
import { SignalSocket } from "./signalling.js";

export interface ConnectionOptions {
  url: string;
  /** A join token, or a function that gets a fresh one for each time the room must be joined. */
  token: string | (() => Promise<string>);
  room: string | undefined;
  client: string;
  layout: MediaLayout;
  sealing: Sealing;
}

interface ConnectionEvents {
  /** Joined afresh: nothing of an earlier stay remains. Media is still to be negotiated. */
  joined: Joined;
  /** The first offer after joining is answered: lines and slots have MIDs. */
  negotiated: undefined;
  /** The socket is back; the snapshot replaces what was known. */
  resumed: Resumed;
  event: RelayEvent;
  /** Over the data channel. What it says of own encodings is seen to already. */
  notice: Exclude<DataNotice, { type: "encodings" }>;
  /** A sealed message that came over the data channel. */
  data: Uint8Array<ArrayBuffer>;
  /** A new media session replaced the former one; MIDs and assignments stay. */
  "media-replaced": MediaSession;
  phase: RecoveryPhase;
  "media-up": undefined;
  closed: SealcastError | undefined;
}

/** Errors after which another attempt would end the same way. */
const FATAL_CODES: readonly string[] = [
  "unsupported_version",
  "unauthorized",
  "token_expired",
  "forbidden",
  "wrong_room",
  "removed",
  "replaced",
  "protocol_violation",
];

export class Connection extends Emitter<ConnectionEvents> {
  readonly #options: ConnectionOptions;
  readonly #recovery = new Recovery();
  #socket: SignalSocket | undefined;
  #media: MediaSession | undefined;
  #resumeToken = "";
  #negotiations: Promise<unknown> = Promise.resolve();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #phase: RecoveryPhase = "steady";
  #closed = false;

  constructor(options: ConnectionOptions) {
    super();
    this.#options = options;
  }

  get media(): MediaSession | undefined {
    return this.#media;
  }

  get phase(): RecoveryPhase {
    return this.#phase;
  }

  /** Joins for the first time. Failing here is final: nothing is tried again. */
  async start(): Promise<void> {
    try {
      await this.#join();
    } catch (error) {
      this.#shutDown();
      throw error;
    }
  }

  request<T extends RequestType>(
    type: T,
    fields: Requests[T]["fields"],
  ): Promise<ResponseOf<Requests[T]["response"]>> {
    if (this.#closed) return Promise.reject(new ClosedError("the room was left"));
    if (!this.#socket) return Promise.reject(new ConnectionLostError(`no socket for ${type}`));
    return this.#socket.request(type, fields);
  }

  /**
   * Sends a sealed message over the data channel.
   *
   * @throws ConnectionLostError where it is not open, or takes no more now
   */
  sendData(message: Uint8Array<ArrayBuffer>): void {
    if (!this.#media?.sendData(message)) throw new ConnectionLostError("the data channel takes nothing now");
  }

  /** Offers the layout anew, after a line was added to it. Offers go one after the other. */
  negotiate(): Promise<void> {
    const media = this.#media;
    if (!media) return Promise.reject(new ConnectionLostError("no media session"));
    return this.#negotiate(media, false);
  }

  /** Leaves: tells the relay where it can be told, and ends everything. */
  async close(): Promise<void> {
    if (this.#closed) return;
    const farewell = this.#socket?.request("leave", {});
    this.#closed = true;
    // The relay notices a closed socket as well; it only takes the grace period.
    await farewell?.catch(() => undefined);
    this.#shutDown();
    this.emit("closed", undefined);
  }

  /** Drops the socket as a failing network would; for tests of recovery. */
  dropSocket(): void {
    this.#socket?.close();
  }

  // Signalling.

  async #join(): Promise<void> {
    const { url, room, client } = this.#options;
    const token = await this.#token();
    const socket = await SignalSocket.open(url);
    try {
      const fields = { protocol: PROTOCOL_VERSION, token, client, ...(room === undefined ? {} : { room }) };
      const joined = await socket.request("join", fields);
      this.#adopt(socket, joined.resume_token);
      this.#feed({ type: "joined", graceMs: joined.grace_seconds * 1000 });
      const media = this.#replaceMedia();
      this.emit("joined", joined);
      this.#feed({ type: "media-connecting" });
      await this.#negotiate(media, false);
      this.emit("negotiated", undefined);
    } catch (error) {
      if (this.#socket === socket) this.#socket = undefined;
      socket.close();
      throw error;
    }
  }

  async #resume(): Promise<void> {
    const socket = await SignalSocket.open(this.#options.url);
    try {
      const resumed = await socket.request("resume", {
        protocol: PROTOCOL_VERSION,
        resume_token: this.#resumeToken,
      });
      this.#adopt(socket, resumed.resume_token);
      this.#feed({ type: "resumed", mediaAlive: resumed.session });
      this.emit("resumed", resumed);
    } catch (error) {
      socket.close();
      throw error;
    }
  }

  #adopt(socket: SignalSocket, resumeToken: string): void {
    if (this.#closed) {
      socket.close();
      throw new ClosedError("the room was left");
    }
    this.#socket = socket;
    this.#resumeToken = resumeToken;
    socket.on("event", (event) => this.#onEvent(socket, event));
    socket.on("closed", (error) => {
      if (this.#socket !== socket) return;
      this.#socket = undefined;
      this.#feed({ type: "socket-lost", error, fatal: isFatal(error) });
    });
  }

  #onEvent(socket: SignalSocket, event: RelayEvent): void {
    if (this.#socket !== socket) return;
    if (event.type === "media_closed") this.#feed({ type: "media-failed" });
    this.emit("event", event);
  }

  async #token(): Promise<string> {
    const { token } = this.#options;
    return typeof token === "string" ? token : token();
  }

  // Media.

  #replaceMedia(): MediaSession {
    this.#media?.close();
    const media = new MediaSession(this.#options.layout, this.#options.sealing);
    this.#media = media;
    media.on("state", (state) => {
      if (state === "connected") {
        this.#feed({ type: "media-connected" });
        this.emit("media-up", undefined);
      } else this.#feed({ type: state === "failed" ? "media-failed" : "media-disconnected" });
    });
    media.on("notice", (notice) => this.emit("notice", notice));
    media.on("data", (message) => this.emit("data", message));
    media.on("violation", (error) => this.#giveUp(error));
    return media;
  }

  #negotiate(media: MediaSession, restart: boolean): Promise<void> {
    const negotiation = this.#negotiations.then(async () => {
      if (this.#media !== media) return;
      const sdp = await media.offer();
      const answer = await this.request("offer", restart ? { sdp, restart: true } : { sdp });
      if (this.#media === media) await media.accept(answer.sdp);
    });
    this.#negotiations = negotiation.catch(() => undefined);
    return negotiation;
  }

  async #restartMedia(): Promise<void> {
    const media = this.#replaceMedia();
    this.#feed({ type: "media-connecting" });
    await this.#negotiate(media, true);
    this.emit("media-replaced", media);
  }

  // Recovery.

  #feed(input: RecoveryInput): void {
    if (this.#closed) return;
    this.#recovery.handle(performance.now(), input);
    for (let action = this.#recovery.poll(); action; action = this.#recovery.poll()) {
      void this.#perform(action);
    }
    this.#reportPhase();
    this.#armTimer();
  }

  async #perform(action: RecoveryAction): Promise<void> {
    try {
      if (action.type === "resume") await this.#resume();
      else if (action.type === "join") await this.#join();
      else if (action.type === "restart-media") await this.#restartMedia();
      else this.#giveUp(action.error ?? new MediaError("no media path to the relay came up"));
    } catch (error) {
      this.#onFailedAction(action, error);
    }
  }

  #onFailedAction(action: RecoveryAction, cause: unknown): void {
    const error = asSealcastError(cause);
    if (action.type === "restart-media") {
      // Without a socket the restart waits for the next one; the relay may also be short of room.
      this.#feed({ type: "media-failed" });
    } else if (action.type === "resume" && error instanceof RelayError && error.code === "resume_unknown") {
      this.#feed({ type: "resume-refused" });
    } else this.#feed({ type: "socket-lost", error, fatal: isFatal(error) });
  }

  #reportPhase(): void {
    if (this.#phase === this.#recovery.phase) return;
    this.#phase = this.#recovery.phase;
    this.emit("phase", this.#phase);
  }

  #armTimer(): void {
    clearTimeout(this.#timer);
    const deadline = this.#recovery.deadline();
    if (deadline === undefined) return;
    const wait = Math.max(0, deadline - performance.now());
    this.#timer = setTimeout(() => this.#feed({ type: "time" }), wait);
  }

  #giveUp(error: SealcastError): void {
    if (this.#closed) return;
    this.#shutDown();
    this.emit("closed", error);
  }

  #shutDown(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.close();
    this.#media?.close();
  }
}

function isFatal({ code }: SealcastError): boolean {
  return FATAL_CODES.includes(code);
}

function asSealcastError(error: unknown): SealcastError {
  if (error instanceof SealcastError) return error;
  return new ProtocolError("the connection failed in an unforeseen way", { cause: error });
}
