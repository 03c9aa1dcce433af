/** Who cannot open whom, since when, in plain words. It goes away by itself once it is over. */
import type { OpenCounters, Source } from "../src/index.js";
import { timeOfDay } from "./seal.js";

/** Sources that do not open, and since when. */
export interface Trouble {
  /** Whose name it is about. */
  name: string;
  source: Source;
  /** ms since the epoch */
  since: number;
}

const SOURCE_WORDS: Record<Source, string> = { audio: "voice", camera: "camera", screen: "screen", imaging: "images" };

const RECOVERY = "The keys are being asked for again; this ends by itself.";

/**
 * @param incoming what this device cannot open
 * @param outgoing what others cannot open of this device
 */
export function troubleWords(incoming: readonly Trouble[], outgoing: readonly Trouble[]): string[] {
  return [
    ...gather(incoming).map(({ name, sources, since }) => `You cannot open ${name}’s ${sources} since ${since}.`),
    ...gather(outgoing).map(({ name, sources, since }) => `${name} cannot open your ${sources} since ${since}.`),
  ].map((line) => `${line} ${RECOVERY}`);
}

/** Since when a track of somebody else cannot be opened; `undefined` where it can. */
export function failingSince(seal: OpenCounters | undefined): number | undefined {
  return seal?.state === "failing" ? seal.since : undefined;
}

/** One entry for each person. */
function gather(troubles: readonly Trouble[]): { name: string; sources: string; since: string }[] {
  const byName = new Map<string, Trouble[]>();
  for (const trouble of troubles) byName.set(trouble.name, [...(byName.get(trouble.name) ?? []), trouble]);
  return [...byName].map(([name, list]) => ({
    name,
    sources: list.map(({ source }) => SOURCE_WORDS[source]).join(" and "),
    since: timeOfDay(Math.min(...list.map(({ since }) => since))),
  }));
}
