/**
 * What passes between the page and the worker that seals and opens frames. Keys go in and never
 * come out; what comes out are counts.
 */

/** Given to `RTCRtpScriptTransform`: which end of which m-line the transform serves. */
export type TransformOptions =
  /** `line` names a sending m-line across media restarts, so that its sealer lives on. */
  { role: "sender"; line: string } | { role: "receiver"; slot: string };

/** Who vouches for members: the application's issuer of identity assertions (§11.5). */
export interface Issuer {
  /** `iss` of its assertions. */
  issuer: string;
  /** `aud` of its assertions. */
  audience: string;
  /** Its public keys. */
  keys: JsonWebKey[];
}

/** What the crypto module's member is set up with. */
export interface GroupConfig {
  issuer?: Issuer & { room: string };
  rotationMs?: number;
}

/** A member of the group, as this one sees it. */
export interface MemberSnapshot {
  /** Its place in the group's tree, and in the key ids of its frames. */
  leaf: number;
  own: boolean;
  /** The relay's pseudonym for it, by its own sealed word; `null` until that has come. */
  participant: string | null;
  name: string | null;
  /** The issuer vouches for the name, and not only the member itself. */
  nameVerified: boolean;
  /** The issuer vouches for the member. */
  verified: boolean;
  /** The issuer's pseudonym, or what an unverified member says it is. */
  subject: string;
  /** Why it is not verified. */
  reason: string | null;
}

export interface GroupSnapshot {
  /** −1 while outside. */
  epoch: number;
  suite: number;
  /** There are keys to seal with. */
  ready: boolean;
  /** Thirty digits that are the same for all who agree on who is in. */
  code: string | null;
  members: MemberSnapshot[];
  /** Why this client is not let in, or will not go in. */
  refused: string | null;
}

/** Something that people should be told. */
export type GroupNotice =
  /** The relay wanted to add somebody for whom the issuer does not vouch. */
  | { type: "declined"; subject: string; reason: string }
  | { type: "commit-refused"; reason: string }
  /** This client refuses the group. */
  | { type: "group-refused"; reason: string }
  /** The others refuse this client. */
  | { type: "not-admitted" }
  /** A member says it is somebody else who is there. */
  | { type: "impersonation"; participant: string; leaf: number };

export type ToWorker =
  | { type: "init"; wasm: string; suite: number }
  /** The room's link key: 32 bytes. */
  | { type: "link-key"; key: Uint8Array<ArrayBuffer> }
  /**
   * Seal what `line` sends, in so many encodings, each with a fresh key id; answered by `sealing`
   * with the same `request`.
   */
  | { type: "seal"; request: number; line: string; encodings: number }
  /** `line` sends nothing any more; its sealer is destroyed. */
  | { type: "unseal"; line: string }
  /**
   * What `slot` shows from here on. `sealed` false: frames of this track are passed on as they
   * come, counted as clear.
   */
  | { type: "show"; slot: string; track: string | null; sealed: boolean; owner: string }
  /** The room has a group: make a key for it. Answered by `group-key`. */
  | { type: "group"; suite: number }
  | {
      type: "group-join";
      config: GroupConfig;
      claim: string;
      participant: string;
      name?: string;
      /** The issuer's assertion with the name. */
      named?: string;
    }
  | { type: "group-connected"; participant: string }
  | { type: "group-message"; message: Uint8Array<ArrayBuffer> }
  | { type: "group-refused" }
  | { type: "group-rotate" }
  /** `from`: who sent it by the relay's word, where the lane has one. */
  | { type: "sealed-message"; message: Uint8Array<ArrayBuffer>; from: string | null }
  /**
   * Seal this for everybody in the group; anything that JSON can hold. Answered by `sealed-send` or
   * `say-refused` with the same `request`.
   */
  | { type: "say"; request: number; body: unknown };

export type FromWorker =
  | { type: "ready" }
  | { type: "failed"; message: string }
  | { type: "sealing"; request: number; contexts: number[] }
  | { type: "seal-refused"; request: number; message: string }
  | { type: "group-key"; jwk: string }
  | { type: "group-send"; message: Uint8Array<ArrayBuffer> }
  /** `request`: the `say` that this is for; the worker's own messages have none. */
  | { type: "sealed-send"; message: Uint8Array<ArrayBuffer>; request: number | null }
  | { type: "say-refused"; request: number; message: string }
  | { type: "group-changed"; group: GroupSnapshot }
  | { type: "group-notice"; notice: GroupNotice }
  | { type: "said"; participant: string; body: unknown }
  | {
      type: "counters";
      opened: Record<string, OpenCounters>;
      sealed: Record<string, SealCounters>;
      /** `null` in rooms with link keys. */
      group: GroupCounters | null;
    };

/** What became of the group's messages, since this client joined. Numbers alone. */
export interface GroupCounters {
  handshakes: {
    taken: number;
    /** Of these, handshakes that had been taken before. */
    repeated: number;
    /** By kind (`commit`, `welcome`, …), then by reason (`signature`, `epoch`, …). */
    refused: Record<string, Record<string, number>>;
  };
  /** Sealed messages of other members. */
  sealed: {
    opened: number;
    refused: {
      short: number;
      malformed: number;
      /** They name nobody in the group. */
      unknownSender: number;
      unknownKey: number;
      inauthentic: number;
      replayed: number;
    };
  };
}

/**
 * How opening a track's frames goes:
 * `waiting`, no frame has come; `open`, the newest frames opened; `failing`, they did not;
 * `clear`, they are not sealed and are shown all the same.
 */
export type OpenState = "waiting" | "open" | "failing" | "clear";

export interface OpenCounters {
  opened: number;
  /** Frames of audio beside these that redundancy brought before their own packet came, or instead of it. */
  repeated: number;
  /** Frames under a key that this client does not hold. */
  unknownKey: number;
  /** Frames that a key it holds does not open: altered, or sealed with another key. */
  inauthentic: number;
  /** Frames that open, but are of another member than the track's owner: not shown. */
  misattributed: number;
  /** Frames that came before the track's owner had said which member it is; dropped. */
  held: number;
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
  /** The key ids of its encodings, in hex, in the order in which they first sent. */
  keyIds: string[];
  state: SealState;
  since: number;
}
