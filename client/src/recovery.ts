/**
 * What to do when the signalling socket or the media path drops: a machine without timers, sockets
 * or a clock of its own. Feed it what happened with {@link Recovery.handle}, then take actions from
 * {@link Recovery.poll} until there is none, and call again at {@link Recovery.deadline}.
 *
 * The two lanes fail on their own. A dropped socket is resumed while media flows on; a dead media
 * path gets a new peer connection over the living socket; when the grace period is over, the room is
 * joined afresh.
 */
import type { SealcastError } from "./errors.js";

/** Waits before each attempt to reach the relay, in ms; the last repeats. */
export const SIGNAL_BACKOFF_MS: readonly number[] = [0, 500, 1_000, 2_000, 4_000];
/** Waits before each media restart, in ms; the last repeats. */
export const MEDIA_BACKOFF_MS: readonly number[] = [0, 1_000, 2_000, 4_000, 8_000];
/** Without a socket for this long, the room is given up. */
export const SIGNAL_GIVE_UP_MS = 120_000;
/** Without media for this long (and a living socket), the room is given up. */
export const MEDIA_GIVE_UP_MS = 60_000;
/** ICE may find its way by itself after a short outage; beyond this a restart is faster. */
export const MEDIA_DISCONNECTED_MS = 5_000;
/** A new media session that has not connected by then is tried again. */
export const MEDIA_CONNECT_MS = 15_000;
/** Up to this share of a wait is added at random, so that a room's clients do not return at once. */
const JITTER = 0.3;

export type RecoveryInput =
  /** Joined, for the first time or afresh: media starts anew. */
  | { type: "joined"; graceMs: number }
  | { type: "resumed"; mediaAlive: boolean }
  /** The socket closed, or could not be opened. `fatal`: trying again cannot help. */
  | { type: "socket-lost"; error: SealcastError; fatal: boolean }
  /** The relay no longer knows the participant: only joining afresh helps. */
  | { type: "resume-refused" }
  | { type: "media-connecting" }
  | { type: "media-connected" }
  | { type: "media-disconnected" }
  | { type: "media-failed" }
  | { type: "time" };

export type RecoveryAction =
  | { type: "resume" }
  | { type: "join" }
  | { type: "restart-media" }
  | { type: "give-up"; lane: "signalling" | "media"; error?: SealcastError };

export type RecoveryPhase = "steady" | "signalling" | "media" | "over";

interface SignalOutage {
  since: number;
  attempts: number;
  /** When to try next; `undefined` while an attempt is under way. */
  nextAt: number | undefined;
  resumable: boolean;
  error: SealcastError;
}

interface MediaOutage {
  since: number;
  attempts: number;
  nextAt: number;
}

export class Recovery {
  readonly #random: () => number;
  #graceMs = 0;
  #signal: SignalOutage | undefined;
  #media: MediaOutage | undefined;
  #over = false;
  #pending: RecoveryAction[] = [];

  /** @param random uniform in [0, 1) */
  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  get phase(): RecoveryPhase {
    if (this.#over) return "over";
    if (this.#signal) return "signalling";
    return this.#media ? "media" : "steady";
  }

  /** @param now milliseconds of a monotonic clock */
  handle(now: number, input: RecoveryInput): void {
    if (this.#over) return;
    switch (input.type) {
      case "joined":
        this.#graceMs = input.graceMs;
        this.#signal = undefined;
        this.#media = undefined;
        break;
      case "resumed":
        this.#signal = undefined;
        if (!input.mediaAlive) this.#mediaDown(now, now);
        break;
      case "socket-lost":
        this.#socketLost(now, input.error, input.fatal);
        break;
      case "resume-refused":
        if (this.#signal) {
          this.#signal.resumable = false;
          this.#signal.nextAt = now;
        }
        break;
      case "media-connecting":
        this.#mediaDown(now, now + MEDIA_CONNECT_MS);
        break;
      case "media-connected":
        this.#media = undefined;
        break;
      case "media-disconnected":
        this.#mediaDown(now, now + MEDIA_DISCONNECTED_MS);
        break;
      case "media-failed":
        this.#mediaDown(now, now);
        break;
      case "time":
        break;
    }
    this.#advance(now);
  }

  poll(): RecoveryAction | undefined {
    return this.#pending.shift();
  }

  /** When `handle` wants to be called with `time` at the latest. */
  deadline(): number | undefined {
    if (this.#over) return undefined;
    // Media waits for the socket: a restart is an offer.
    return this.#signal ? this.#signal.nextAt : this.#media?.nextAt;
  }

  #socketLost(now: number, error: SealcastError, fatal: boolean): void {
    if (fatal) {
      this.#giveUp("signalling", error);
      return;
    }
    this.#signal ??= { since: now, attempts: 0, nextAt: undefined, resumable: true, error };
    this.#signal.error = error;
    this.#signal.nextAt = now + this.#wait(SIGNAL_BACKOFF_MS, this.#signal.attempts);
  }

  #mediaDown(now: number, restartAt: number): void {
    this.#media ??= { since: now, attempts: 0, nextAt: restartAt };
    this.#media.nextAt =
      this.#media.attempts === 0
        ? Math.min(this.#media.nextAt, restartAt)
        : Math.max(restartAt, now + this.#wait(MEDIA_BACKOFF_MS, this.#media.attempts));
  }

  #advance(now: number): void {
    const signal = this.#signal;
    if (signal) {
      if (signal.nextAt === undefined || now < signal.nextAt) return;
      if (now - signal.since >= SIGNAL_GIVE_UP_MS) {
        this.#giveUp("signalling", signal.error);
        return;
      }
      if (now - signal.since >= this.#graceMs) signal.resumable = false;
      signal.attempts += 1;
      signal.nextAt = undefined;
      this.#pending.push({ type: signal.resumable ? "resume" : "join" });
      return;
    }
    const media = this.#media;
    if (!media || now < media.nextAt) return;
    if (now - media.since >= MEDIA_GIVE_UP_MS) {
      this.#giveUp("media");
      return;
    }
    media.attempts += 1;
    media.nextAt = now + MEDIA_CONNECT_MS;
    this.#pending.push({ type: "restart-media" });
  }

  #giveUp(lane: "signalling" | "media", error?: SealcastError): void {
    this.#over = true;
    this.#pending = [error ? { type: "give-up", lane, error } : { type: "give-up", lane }];
  }

  #wait(table: readonly number[], attempts: number): number {
    const base = table[Math.min(attempts, table.length - 1)] ?? 0;
    return base * (1 + JITTER * this.#random());
  }
}
