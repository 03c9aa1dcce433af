/**
 * What passes between the page and the worker that seals and opens frames. Keys go in and never
 * come out; what comes out are counts.
 */

/** Given to `RTCRtpScriptTransform`: which end of which m-line the transform serves. */
export type TransformOptions =
  /** `line` names a sending m-line across media restarts, so that its sealer lives on. */
  { role: "sender"; line: string } | { role: "receiver"; slot: string };

export type ToWorker =
  | { type: "init"; wasm: string; suite: number }
  /** The room's link key: 32 bytes. */
  | { type: "link-key"; key: Uint8Array<ArrayBuffer> }
  /** Seal what `line` sends with a fresh key id; answered by `sealing` with the same `request`. */
  | { type: "seal"; request: number; line: string }
  /** `line` sends nothing any more; its sealer is destroyed. */
  | { type: "unseal"; line: string }
  /**
   * What `slot` shows from here on. `sealed` false: frames of this track are passed on as they
   * come, counted as clear.
   */
  | { type: "show"; slot: string; track: string | null; sealed: boolean };

export type FromWorker =
  | { type: "ready" }
  | { type: "failed"; message: string }
  | { type: "sealing"; request: number; contexts: number[] }
  | { type: "seal-refused"; request: number; message: string }
  | { type: "counters"; opened: Record<string, OpenCounters>; sealed: Record<string, SealCounters> };

/**
 * How opening a track's frames goes:
 * `waiting`, no frame has come; `open`, the newest frames opened; `failing`, they did not;
 * `clear`, they are not sealed and are shown all the same.
 */
export type OpenState = "waiting" | "open" | "failing" | "clear";

export interface OpenCounters {
  opened: number;
  /** Frames under a key that this client does not hold. */
  unknownKey: number;
  /** Frames that a key it holds does not open: altered, or sealed with another key. */
  inauthentic: number;
  /** Frames that are not SFrame at all. */
  malformed: number;
  /** Copies of frames that have been opened before; dropped, and no failure. */
  duplicate: number;
  /** Frames without content (Opus silence); dropped, and no failure. */
  empty: number;
  /** Frames of an unsealed track. */
  clear: number;
  /** The key id of the frame opened last, in hex. */
  keyId: string | null;
  /** When that was, in ms since the epoch. */
  lastOpened: number | null;
  state: OpenState;
  /** When `state` was entered, in ms since the epoch. */
  since: number;
}

/** `waiting`, nothing was sent; `sealing`; `withheld`, frames are dropped for want of a key. */
export type SealState = "waiting" | "sealing" | "withheld";

export interface SealCounters {
  sealed: number;
  /** Frames dropped because there was no key, or sealing failed: nothing leaves unsealed. */
  withheld: number;
  keyId: string | null;
  state: SealState;
  since: number;
}
