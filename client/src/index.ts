/** `@sealcast/client`: join a Sealcast room from a browser. Start at {@link connect}. */
export { type ConnectOptions, connect } from "./connect.js";
export type { RemoteParticipant, RemoteTrack } from "./directory.js";
export type {
  GroupCounters,
  GroupNotice,
  GroupSnapshot,
  Issuer,
  MemberSnapshot,
  OpenCounters,
  OpenState,
  SealCounters,
  SealState,
} from "./e2ee/messages.js";
export { assertSupported } from "./e2ee/sealing.js";
export * from "./errors.js";
export type { IdentityOptions, Vouched } from "./group.js";
export { LINK_KEY_BYTES, type Link, formatLink, generateLinkKey, issuerFrom, parseLink } from "./link.js";
export { VIDEO_CODECS, type VideoCodec, type VideoSource } from "./encodings.js";
export type { Grants, Kind, PixelSize, Source } from "./protocol.js";
export type { Publication } from "./publications.js";
export type { Room, RoomEvents, RoomState } from "./room.js";
export { watchSize } from "./size.js";
export type { EncodingStats, ReceiveStats, RoomStats, SendStats, TransportStats } from "./stats.js";
export { VERSION } from "./version.js";
