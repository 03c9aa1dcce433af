/** Counting what became of each track's frames, and the state that the counts add up to. */
import type { OpenCounters, OpenState, SealCounters, SealState } from "../e2ee/messages.js";

/**
 * A single frame that does not open (the first one under a new key, a frame cut short by loss) is
 * no state; this many in a row are.
 */
export const FAILURES_BEFORE_FAILING = 3;

export type OpenFailure = "unknownKey" | "inauthentic" | "misattributed" | "malformed";

/** A member says who it is within a second of being in; one that does not for this long is failing. */
export const HOLD_MS = 8_000;

export class OpenTally {
  readonly counters: OpenCounters;
  #failuresInRow = 0;
  #heldSince: number | undefined;

  constructor(now: number) {
    this.counters = {
      opened: 0,
      repeated: 0,
      unknownKey: 0,
      inauthentic: 0,
      misattributed: 0,
      held: 0,
      malformed: 0,
      duplicate: 0,
      empty: 0,
      clear: 0,
      keyId: null,
      lastOpened: null,
      state: "waiting",
      since: now,
    };
  }

  onOpened(now: number, keyId: bigint): void {
    this.counters.opened += 1;
    this.counters.keyId = keyId.toString(16);
    this.counters.lastOpened = now;
    this.#failuresInRow = 0;
    this.#heldSince = undefined;
    this.#enter("open", now);
  }

  /** Frames opened that redundancy brought before their own packet came, or instead of it. */
  onRepeated(count: number): void {
    this.counters.repeated += count;
  }

  onFailed(now: number, reason: OpenFailure): void {
    this.counters[reason] += 1;
    this.#failuresInRow += 1;
    if (this.#failuresInRow >= FAILURES_BEFORE_FAILING) this.#enter("failing", now);
  }

  /** It is not known yet whose frames this track must hold. */
  onHeld(now: number): void {
    this.counters.held += 1;
    this.#heldSince ??= now;
    if (now - this.#heldSince >= HOLD_MS) this.#enter("failing", now);
  }

  onIgnored(reason: "duplicate" | "empty"): void {
    this.counters[reason] += 1;
  }

  onClear(now: number): void {
    this.counters.clear += 1;
    this.#enter("clear", now);
  }

  #enter(state: OpenState, now: number): void {
    if (this.counters.state === state) return;
    this.counters.state = state;
    this.counters.since = now;
  }
}

export class SealTally {
  readonly counters: SealCounters;
  /** The key id of each encoding's last frame. */
  readonly #keyIds = new Map<number, bigint>();

  constructor(now: number) {
    this.counters = { sealed: 0, withheld: 0, keyIds: [], state: "waiting", since: now };
  }

  onSealed(now: number, keyId: bigint, encoding = 0): void {
    this.counters.sealed += 1;
    if (this.#keyIds.get(encoding) !== keyId) {
      this.#keyIds.set(encoding, keyId);
      this.counters.keyIds = [...this.#keyIds.values()].map((id) => id.toString(16));
    }
    this.#enter("sealing", now);
  }

  onWithheld(now: number): void {
    this.counters.withheld += 1;
    this.#enter("withheld", now);
  }

  #enter(state: SealState, now: number): void {
    if (this.counters.state === state) return;
    this.counters.state = state;
    this.counters.since = now;
  }
}

/** The reasons of `FrameOpener.open`, which stand at the start of its error messages. */
export function failureOf(error: unknown): OpenFailure | "duplicate" {
  const message = error instanceof Error ? error.message : String(error);
  if (message.startsWith("unknown-kid")) return "unknownKey";
  if (message.startsWith("replayed")) return "duplicate";
  if (message.startsWith("auth")) return "inauthentic";
  if (message.startsWith("misattributed")) return "misattributed";
  return "malformed";
}
