/**
 * Every way in which the client can fail, as types. Each error has a stable `code` for programs;
 * `message` is for developers and is not meant to be shown to users.
 */

/** The error codes that a relay sends (docs/PROTOCOL.md §3.1). */
export const RELAY_ERROR_CODES = [
  "bad_message",
  "unknown_type",
  "too_large",
  "rate_limited",
  "unsupported_version",
  "unauthorized",
  "token_expired",
  "forbidden",
  "wrong_room",
  "not_joined",
  "already_joined",
  "resume_unknown",
  "room_full",
  "bad_sdp",
  "sdp_too_large",
  "no_session",
  "no_track",
  "no_slot",
  "mid_in_use",
  "codec_unsupported",
  "limit",
  "busy",
  "unsealed",
  "bad_group",
  "going_away",
  "internal",
] as const;

export type RelayErrorCode = (typeof RELAY_ERROR_CODES)[number];

/** Errors that arise in the client itself. */
export const CLIENT_ERROR_CODES = [
  "unsupported_browser",
  "no_key",
  "bad_link",
  "worker_failed",
  "connection_lost",
  "timeout",
  "protocol_violation",
  "media_failed",
  "removed",
  "replaced",
  "closed",
] as const;

export type ClientErrorCode = (typeof CLIENT_ERROR_CODES)[number];
export type ErrorCode = RelayErrorCode | ClientErrorCode;

export abstract class SealcastError extends Error {
  /** What happened, for programs. */
  abstract readonly code: ErrorCode;
  /** Whether the same call may succeed later without the caller changing anything. */
  readonly retry: boolean = false;

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** The relay refused a request, or closed the socket with a reason. */
export class RelayError extends SealcastError {
  override readonly retry: boolean;

  constructor(
    readonly code: RelayErrorCode,
    message: string,
    retry: boolean,
  ) {
    super(message);
    this.retry = retry;
  }
}

/** The browser has no encoded transforms, without which nothing can be sealed. */
export class UnsupportedBrowserError extends SealcastError {
  readonly code = "unsupported_browser";

  /** @param missing the names of the interfaces that the browser lacks */
  constructor(readonly missing: readonly string[]) {
    super(`this browser lacks ${missing.join(", ")}`);
  }
}

/** Publishing needs a key, and the room was joined without one. */
export class NoKeyError extends SealcastError {
  readonly code = "no_key";
}

/** A join link whose fragment is not what {@link parseLink} expects. */
export class BadLinkError extends SealcastError {
  readonly code = "bad_link";
}

/** The worker that seals and opens frames did not start, or died. */
export class WorkerError extends SealcastError {
  readonly code = "worker_failed";
}

/** The signalling socket could not be opened, or dropped with this request unanswered. */
export class ConnectionLostError extends SealcastError {
  readonly code = "connection_lost";
  override readonly retry = true;
}

/** The relay did not answer in time. */
export class TimeoutError extends SealcastError {
  readonly code = "timeout";
  override readonly retry = true;
}

/** The relay sent something that docs/PROTOCOL.md does not allow. */
export class ProtocolError extends SealcastError {
  readonly code = "protocol_violation";
}

/** No media path to the relay came up, over UDP or TCP, however often it was tried. */
export class MediaError extends SealcastError {
  readonly code = "media_failed";
  override readonly retry = true;
}

/** A moderator removed this participant. */
export class RemovedError extends SealcastError {
  readonly code = "removed";
}

/** Another socket resumed this participant (a duplicated browser tab, for example). */
export class ReplacedError extends SealcastError {
  readonly code = "replaced";
}

/** The room has been left; nothing more can be asked of it. */
export class ClosedError extends SealcastError {
  readonly code = "closed";
}

export function isRelayErrorCode(code: unknown): code is RelayErrorCode {
  return (RELAY_ERROR_CODES as readonly unknown[]).includes(code);
}

/** The WebSocket close codes of docs/PROTOCOL.md, as the errors they stand for. */
export function errorFromClose(code: number, reason: string): SealcastError {
  switch (code) {
    case 1001:
      return new RelayError("going_away", reason || "the relay is stopping", true);
    case 1009:
      return new RelayError("too_large", reason || "message too large", false);
    case 4400:
      return new RelayError("unsupported_version", reason || "protocol version refused", false);
    case 4401:
      return new RelayError("unauthorized", reason || "token refused", false);
    case 4403:
      return new RelayError("wrong_room", reason || "the token is for another room", false);
    case 4404:
      return new RelayError("resume_unknown", reason || "nothing to resume", false);
    case 4409:
      return new ReplacedError("another socket took this participant over");
    case 4410:
      return new RemovedError("a moderator removed this participant");
    case 4429:
      return new RelayError("room_full", reason || "the room is full", true);
    default:
      return new ConnectionLostError(`socket closed (${code}${reason ? `: ${reason}` : ""})`);
  }
}
