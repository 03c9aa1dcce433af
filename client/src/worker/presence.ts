/**
 * What members tell each other sealed (docs/PROTOCOL.md §11.9): who they are to the relay, their
 * names, and messages of the application. JSON in UTF-8.
 */

/** Who a member is: the relay's pseudonym, which only its own word ties to its leaf. */
export interface Presence {
  participant: string;
  /** By its own word. */
  name?: string;
  /** An assertion by the issuer that holds the name. */
  assertion?: string;
}

export type Content =
  | { type: "presence"; presence: Presence }
  /** Everybody is to say who they are. */
  | { type: "who" }
  | { type: "app"; body: unknown };

/** Longest name, in characters; members could send each other anything. */
export const MAX_NAME_LENGTH = 128;

export function encodeContent(content: Content): Uint8Array<ArrayBuffer> {
  const flat = content.type === "presence" ? { type: content.type, ...content.presence } : content;
  return new TextEncoder().encode(JSON.stringify(flat));
}

/** @returns `undefined` for what is none of these; a later version's messages are ignored */
export function decodeContent(bytes: Uint8Array): Content | undefined {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { type, participant, name, assertion, body } = value as Record<string, unknown>;
  if (type === "who") return { type };
  if (type === "app") return { type, body };
  if (type !== "presence" || typeof participant !== "string") return undefined;
  return {
    type,
    presence: {
      participant,
      ...(typeof name === "string" && name !== "" ? { name: cleanName(name) } : {}),
      ...(typeof assertion === "string" ? { assertion } : {}),
    },
  };
}

/** Control and direction characters would let a name pretend to be something else on the page. */
export function cleanName(name: string): string {
  return name.replace(/[\p{Cc}\p{Cf}]/gu, "").trim().slice(0, MAX_NAME_LENGTH);
}
