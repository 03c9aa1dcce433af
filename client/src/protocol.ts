/**
 * The signalling protocol's messages (docs/PROTOCOL.md §3–6, §8), and a decoder that lets through
 * only what has the fields it should have. Field tables are the single source: the types are
 * derived from them.
 */
import { ProtocolError } from "./errors.js";

export const PROTOCOL_VERSION = 1;
export const SUBPROTOCOL = "sealcast.v1";
export const DATA_CHANNEL_LABEL = "sealcast";

/** What a track shows. */
export type Source = "audio" | "camera" | "screen" | "imaging";
export type Kind = "audio" | "video";

export function kindOf(source: Source): Kind {
  return source === "audio" ? "audio" : "video";
}

export interface TrackInfo {
  /** `TR_` and 16 hex digits. */
  track: string;
  source: Source;
  muted: boolean;
  /** `opus`, `VP8`, …; empty where the relay does not say. */
  codec: string;
  /** False for media that its publisher does not seal (a WHIP device in a room that allows it). */
  sealed: boolean;
}

export interface ParticipantInfo {
  /** `PA_` and 16 hex digits. */
  participant: string;
  tracks: TrackInfo[];
}

export interface Grants {
  publish: Source[];
  subscribe: boolean;
  unsealed: boolean;
  moderate: boolean;
}

export interface SlotInfo {
  mid: string;
  track: string | null;
}

/** Pixels that a picture is shown at; `[0, 0]` while it cannot be seen. */
export type PixelSize = readonly [width: number, height: number];

export interface SlotRequest extends SlotInfo {
  size?: PixelSize;
}

/** A track of one's own, as the relay remembers it. */
export interface OwnTrackInfo {
  mid: string;
  track: string;
  muted: boolean;
}

type FieldTypes = {
  string: string;
  "string?": string | undefined;
  "string|null": string | null;
  number: number;
  "number?": number | undefined;
  boolean: boolean;
  "boolean?": boolean | undefined;
  source: Source;
  grants: Grants;
  participants: ParticipantInfo[];
  slots: SlotInfo[];
  ownTracks: OwnTrackInfo[];
  booleans: boolean[];
};
type FieldType = keyof FieldTypes;
type Fields = Record<string, FieldType>;
type Decoded<F extends Fields> = { -readonly [K in keyof F]: FieldTypes[F[K]] };

/** Responses by request. */
const RESPONSES = {
  joined: {
    participant: "string",
    room: "string",
    resume_token: "string",
    grace_seconds: "number",
    sealed: "string",
    keys: "string?",
    group_suite: "number?",
    grants: "grants",
    participants: "participants",
    seq: "number",
  },
  resumed: {
    participant: "string",
    resume_token: "string",
    session: "boolean",
    tracks: "ownTracks",
    slots: "slots",
    participants: "participants",
    seq: "number",
  },
  left: {},
  answer: { sdp: "string" },
  published: { track: "string" },
  ok: {},
} as const satisfies Record<string, Fields>;

/** Events of the room and of the own session. */
const EVENTS = {
  participant_joined: { seq: "number", participant: "string" },
  participant_left: { seq: "number", participant: "string", reason: "string" },
  track_published: {
    seq: "number",
    participant: "string",
    track: "string",
    source: "source",
    codec: "string?",
    muted: "boolean",
    sealed: "boolean?",
  },
  track_unpublished: { seq: "number", participant: "string", track: "string", reason: "string" },
  track_muted: {
    seq: "number",
    participant: "string",
    track: "string",
    muted: "boolean",
    by: "string",
  },
  track_blocked: { seq: "number", participant: "string", track: "string", reason: "string" },
  media_connected: { transport: "string", dtls: "string", srtp_profile: "string" },
  media_closed: { reason: "string" },
  removed: { by: "string" },
  /** A handshake of the room's group, base64. */
  group: { data: "string" },
  /** A sealed message of another participant, base64. */
  sealed: { participant: "string", data: "string" },
  /** Somebody says that they cannot open an own track, or can again. */
  track_unopened: { participant: "string", track: "string", failing: "boolean" },
  going_away: { seconds: "number" },
} as const satisfies Record<string, Fields>;

/** Messages of the data channel (§8). */
const NOTICES = {
  /** `paused`: nothing of the track comes, because the path does not carry it. */
  slot: { mid: "string", track: "string|null", revision: "number", paused: "boolean?" },
  /** Whose voice is the loudest; an audio track. */
  speaker: { track: "string|null" },
  /** Which encodings of a line anybody gets, in the offer's order. */
  encodings: { mid: "string", active: "booleans" },
  /** What the path to this client carries, by the relay's estimate, in bits per second. */
  estimate: { bitrate: "number" },
} as const satisfies Record<string, Fields>;

export type ResponseType = keyof typeof RESPONSES;
export type ResponseOf<T extends ResponseType> = { type: T } & Decoded<(typeof RESPONSES)[T]>;
export type EventType = keyof typeof EVENTS;
export type EventOf<T extends EventType> = { type: T } & Decoded<(typeof EVENTS)[T]>;
export type RelayEvent = { [T in EventType]: EventOf<T> }[EventType];
export type Joined = ResponseOf<"joined">;
export type Resumed = ResponseOf<"resumed">;
export type NoticeType = keyof typeof NOTICES;
export type NoticeOf<T extends NoticeType> = { type: T } & Decoded<(typeof NOTICES)[T]>;
export type DataNotice = { [T in NoticeType]: NoticeOf<T> }[NoticeType];
export type SlotNotice = NoticeOf<"slot">;

/** What became of a track's frames since the last report (docs/PROTOCOL.md §6.3). */
export interface TrackReport {
  track: string;
  opened: number;
  unknown_key: number;
  altered: number;
  misattributed: number;
  malformed: number;
  /** The newest frames did not open. */
  failing: boolean;
}

/** A client's request and the response it gets. */
export interface Requests {
  join: { fields: { protocol: number; token: string; room?: string; client: string }; response: "joined" };
  resume: { fields: { protocol: number; resume_token: string }; response: "resumed" };
  leave: { fields: object; response: "left" };
  offer: { fields: { sdp: string; restart?: true }; response: "answer" };
  publish: {
    fields: { mid: string; source: Source; seal?: { contexts: number[] } };
    response: "published";
  };
  unpublish: { fields: { track: string }; response: "ok" };
  mute: { fields: { track: string; muted: boolean }; response: "ok" };
  slots: { fields: { assign: SlotRequest[] }; response: "ok" };
  remove: { fields: { participant: string }; response: "ok" };
  group: { fields: { data: string }; response: "ok" };
  sealed: { fields: { data: string; to?: string }; response: "ok" };
  report: { fields: { receiving: TrackReport[] }; response: "ok" };
}
export type RequestType = keyof Requests;

export interface RelayMessage {
  type: string;
  id?: number;
  body: Record<string, unknown>;
}

/** @throws ProtocolError where `text` is not a JSON object with a `type` */
export function decodeMessage(text: string): RelayMessage {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (cause) {
    throw new ProtocolError("the relay sent something other than JSON", { cause });
  }
  if (!isObject(body) || typeof body["type"] !== "string") {
    throw new ProtocolError("the relay sent a message without a type");
  }
  const message: RelayMessage = { type: body["type"], body };
  if (typeof body["id"] === "number") message.id = body["id"];
  return message;
}

/** @throws ProtocolError where the response is of another type or lacks a field */
export function decodeResponse<T extends ResponseType>(type: T, message: RelayMessage): ResponseOf<T> {
  if (message.type !== type) {
    throw new ProtocolError(`expected ${type}, the relay answered ${message.type}`);
  }
  return decodeFields(type, RESPONSES[type], message.body) as ResponseOf<T>;
}

/** @returns `undefined` for an event of a later version, which is to be ignored */
export function decodeEvent(message: RelayMessage): RelayEvent | undefined {
  if (!Object.hasOwn(EVENTS, message.type)) return undefined;
  const type = message.type as EventType;
  return decodeFields(type, EVENTS[type], message.body) as RelayEvent;
}

/** A data-channel message; `undefined` for types of a later version. */
export function decodeNotice(text: string): DataNotice | undefined {
  const message = decodeMessage(text);
  if (!Object.hasOwn(NOTICES, message.type)) return undefined;
  const type = message.type as NoticeType;
  return decodeFields(type, NOTICES[type], message.body) as DataNotice;
}

function decodeFields(type: string, fields: Fields, body: Record<string, unknown>): Record<string, unknown> {
  const decoded: Record<string, unknown> = { type };
  for (const [name, fieldType] of Object.entries(fields)) {
    const value = DECODERS[fieldType](body[name]);
    if (value === INVALID) throw new ProtocolError(`${type}.${name} is not a ${fieldType}`);
    decoded[name] = value;
  }
  return decoded;
}

const INVALID = Symbol("invalid");
type Decoder<T> = (value: unknown) => T | typeof INVALID;

const ofType =
  <T>(type: string): Decoder<T> =>
  (value) =>
    typeof value === type ? (value as T) : INVALID;

const optional =
  <T>(decode: Decoder<T>): Decoder<T | undefined> =>
  (value) =>
    value === undefined || value === null ? undefined : decode(value);

const arrayOf =
  <T>(decode: Decoder<T>): Decoder<T[]> =>
  (value) => {
    if (!Array.isArray(value)) return INVALID;
    const decoded = value.map(decode);
    return decoded.includes(INVALID) ? INVALID : (decoded as T[]);
  };

const SOURCES: readonly unknown[] = ["audio", "camera", "screen", "imaging"] satisfies Source[];
const source: Decoder<Source> = (value) => (SOURCES.includes(value) ? (value as Source) : INVALID);

const trackInfo: Decoder<TrackInfo> = (value) => {
  if (!isObject(value) || typeof value["track"] !== "string") return INVALID;
  const decodedSource = source(value["source"]);
  if (decodedSource === INVALID) return INVALID;
  return {
    track: value["track"],
    source: decodedSource,
    muted: value["muted"] === true,
    codec: typeof value["codec"] === "string" ? value["codec"] : "",
    // Only an outright `false` makes a track an unsealed one: what the relay leaves out is held to
    // the stricter rule.
    sealed: value["sealed"] !== false,
  };
};

const participantInfo: Decoder<ParticipantInfo> = (value) => {
  if (!isObject(value) || typeof value["participant"] !== "string") return INVALID;
  const tracks = arrayOf(trackInfo)(value["tracks"] ?? []);
  return tracks === INVALID ? INVALID : { participant: value["participant"], tracks };
};

const ownTrack: Decoder<OwnTrackInfo> = (value) => {
  if (!isObject(value) || typeof value["mid"] !== "string" || typeof value["track"] !== "string") {
    return INVALID;
  }
  return { mid: value["mid"], track: value["track"], muted: value["muted"] === true };
};

const slotInfo: Decoder<SlotInfo> = (value) => {
  if (!isObject(value) || typeof value["mid"] !== "string") return INVALID;
  const track = value["track"] ?? null;
  if (track !== null && typeof track !== "string") return INVALID;
  return { mid: value["mid"], track };
};

const grants: Decoder<Grants> = (value) => {
  if (!isObject(value)) return INVALID;
  const publish = arrayOf(source)(value["publish"] ?? []);
  if (publish === INVALID) return INVALID;
  return {
    publish,
    subscribe: value["subscribe"] === true,
    unsealed: value["unsealed"] === true,
    moderate: value["moderate"] === true,
  };
};

const DECODERS: { [T in FieldType]: Decoder<FieldTypes[T]> } = {
  string: ofType<string>("string"),
  "string?": optional(ofType<string>("string")),
  "string|null": (value) => (value === null || typeof value === "string" ? value : INVALID),
  number: ofType<number>("number"),
  "number?": optional(ofType<number>("number")),
  boolean: ofType<boolean>("boolean"),
  "boolean?": optional(ofType<boolean>("boolean")),
  source,
  grants,
  participants: arrayOf(participantInfo),
  slots: arrayOf(slotInfo),
  ownTracks: arrayOf(ownTrack),
  booleans: arrayOf(ofType<boolean>("boolean")),
};

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
