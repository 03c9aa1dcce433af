/**
 * Join links. Everything that matters stands in the fragment, which browsers do not send to
 * servers: `https://relay.example/#room=consult-1&key=<base64url>[&token=<JWT>]`.
 */
import { BadLinkError } from "./errors.js";

/** Bytes of a link key (docs/PROTOCOL.md §7.3). */
export const LINK_KEY_BYTES = 32;

/** `room` of a token: 1–128 of these (docs/PROTOCOL.md §2). */
const ROOM_NAME = /^[A-Za-z0-9._-]{1,128}$/;

export interface Link {
  room: string;
  /** {@link LINK_KEY_BYTES} bytes; absent where the link carries no key. */
  key?: Uint8Array<ArrayBuffer>;
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
  const token = fields.get("token");
  if (token) link.token = token;
  return link;
}

/** The link to hand to others: room and key, never the token. */
export function formatLink(page: string, link: Pick<Link, "room" | "key">): string {
  const key = link.key ? `&key=${encodeBase64Url(link.key)}` : "";
  return `${page.replace(/#.*$/s, "")}#room=${link.room}${key}`;
}

export function generateLinkKey(): Uint8Array<ArrayBuffer> {
  return crypto.getRandomValues(new Uint8Array(LINK_KEY_BYTES));
}

function decodeKey(text: string): Uint8Array<ArrayBuffer> {
  if (!/^[A-Za-z0-9_-]*$/.test(text)) throw new BadLinkError("the key is not base64url");
  let binary: string;
  try {
    binary = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  } catch (cause) {
    throw new BadLinkError("the key is not base64url", { cause });
  }
  if (binary.length !== LINK_KEY_BYTES) {
    throw new BadLinkError(`the key has ${binary.length} bytes instead of ${LINK_KEY_BYTES}`);
  }
  return Uint8Array.from(binary, (char) => char.charCodeAt(0));
}

function encodeBase64Url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replace(/\+/g, "-")
    .replace(/\//g, "_")
    .replace(/=+$/, "");
}
