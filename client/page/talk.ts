/**
 * What the consult's pages tell each other sealed (docs/PROTOCOL.md §11.9, `app`): chat, pointers
 * and strokes over a shared picture. What another member sends is data to be checked, as anything
 * from the network.
 */

/** A place in a picture: fractions of its width and height, from the top left. */
export type Point = readonly [x: number, y: number];

export type Talk =
  | { kind: "chat"; text: string }
  /** Where somebody points; `null`: nowhere any more. */
  | { kind: "pointer"; track: string; at: Point | null }
  /** More points of a line. `stroke` numbers the sender's lines. */
  | { kind: "stroke"; track: string; stroke: number; points: Point[] }
  /** The sender's lines on this picture are gone. */
  | { kind: "clear"; track: string };

/** Longest chat message, in characters. */
export const MAX_TEXT = 2_000;

/** Most points in one message. */
export const MAX_POINTS = 64;

/** @returns `undefined` for what is none of these; other kinds are of other versions */
export function parseTalk(body: unknown): Talk | undefined {
  if (typeof body !== "object" || body === null) return undefined;
  const { kind, text, track, at, stroke, points } = body as Record<string, unknown>;
  if (kind === "chat") {
    const clean = typeof text === "string" ? cleanText(text) : "";
    return clean === "" ? undefined : { kind, text: clean };
  }
  if (typeof track !== "string") return undefined;
  if (kind === "clear") return { kind, track };
  if (kind === "pointer") {
    if (at === null) return { kind, track, at };
    return isPoint(at) ? { kind, track, at } : undefined;
  }
  if (kind !== "stroke" || !Number.isSafeInteger(stroke)) return undefined;
  if (!Array.isArray(points) || points.length > MAX_POINTS || !points.every(isPoint)) return undefined;
  return { kind, track, stroke: stroke as number, points };
}

/** Control and direction characters, but for line breaks, would let a text pretend to be another. */
export function cleanText(text: string): string {
  return text
    .replace(/\r\n?/g, "\n")
    .replace(/[\p{Cc}\p{Cf}]/gu, (char) => (char === "\n" || char === "\u200d" ? char : ""))
    .trim()
    .slice(0, MAX_TEXT);
}

function isPoint(value: unknown): value is Point {
  const inside = (n: unknown): boolean => typeof n === "number" && n >= 0 && n <= 1;
  return Array.isArray(value) && value.length === 2 && value.every(inside);
}
