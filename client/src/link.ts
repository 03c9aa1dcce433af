/**
 * Join links. Everything that matters stands in the fragment, which browsers do not send to
 * servers: `https://relay.example/#room=consult-1[&key=<base64url>][&issuer=<base64url>][&token=<JWT>]`.
 */
import { decodeBase64Url, encodeBase64Url } from "./base64.js";
import type { Issuer } from "./e2ee/messages.js";
import { BadLinkError } from "./errors.js";

/** Bytes of a link key (docs/PROTOCOL.md §7.3). */
export const LINK_KEY_BYTES = 32;

/** `room` of a token: 1–128 of these (docs/PROTOCOL.md §2). */
const ROOM_NAME = /^[A-Za-z0-9._-]{1,128}$/;

export interface Link {
  room: string;
  /** {@link LINK_KEY_BYTES} bytes; absent where the link carries no key. */
  key?: Uint8Array<ArrayBuffer>;
  /**
   * Whose word on the others' identities is believed, in rooms with group keys. It comes with the link
   * so that it does not come from the relay.
   */
  issuer?: Issuer;
  /** A join token, where the application puts it into the link. */
  token?: string;
}

/**
 * Reads a URL's fragment, with or without its `#`.
 *
 * @returns `undefined` where the fragment names no room
 * @throws BadLinkError where it names a room or key that cannot be one
 */
export function parseLink(fragment: string): Link | undefined {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  const room = fields.get("room");
  if (room === null) return undefined;
  if (!ROOM_NAME.test(room)) throw new BadLinkError("the room's name has characters that no room has");
  const link: Link = { room };
  const key = fields.get("key");
  if (key) link.key = decodeKey(key);
  const issuer = fields.get("issuer");
  if (issuer) link.issuer = decodeIssuer(issuer);
  const token = fields.get("token");
  if (token) link.token = token;
  return link;
}

/** The link to hand to others: room, key and issuer, never the token. */
export function formatLink(page: string, link: Pick<Link, "room" | "key" | "issuer">): string {
  const key = link.key ? `&key=${encodeBase64Url(link.key)}` : "";
  const issuer = link.issuer ? `&issuer=${encodeIssuer(link.issuer)}` : "";
  return `${page.replace(/#.*$/s, "")}#room=${link.room}${key}${issuer}`;
}

export function generateLinkKey(): Uint8Array<ArrayBuffer> {
  return crypto.getRandomValues(new Uint8Array(LINK_KEY_BYTES));
}

function decodeKey(text: string): Uint8Array<ArrayBuffer> {
  const key = decodeBase64Url(text);
  if (!key) throw new BadLinkError("the key is not base64url");
  if (key.length !== LINK_KEY_BYTES) {
    throw new BadLinkError(`the key has ${key.length} bytes instead of ${LINK_KEY_BYTES}`);
  }
  return key;
}

function encodeIssuer({ issuer, audience, keys }: Issuer): string {
  return encodeBase64Url(new TextEncoder().encode(JSON.stringify({ issuer, audience, keys })));
}

/** Keys of one issuer: the current one and some that are being rotated out. */
const MAX_ISSUER_KEYS = 8;

function decodeIssuer(text: string): Issuer {
  const bytes = decodeBase64Url(text);
  if (!bytes) throw new BadLinkError("the issuer is not base64url");
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new BadLinkError("the issuer is not JSON", { cause });
  }
  const issuer = issuerFrom(value);
  if (!issuer) throw new BadLinkError("the issuer is incomplete");
  return issuer;
}

/** @returns `undefined` where `value` is no issuer with 1 to 8 public keys */
export function issuerFrom(value: unknown): Issuer | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { issuer, audience, keys } = value as Record<string, unknown>;
  if (typeof issuer !== "string" || typeof audience !== "string" || !Array.isArray(keys)) return undefined;
  const isKey = (key: unknown): key is JsonWebKey => typeof key === "object" && key !== null && !("d" in key);
  if (keys.length === 0 || keys.length > MAX_ISSUER_KEYS || !keys.every(isKey)) return undefined;
  return { issuer, audience, keys };
}
