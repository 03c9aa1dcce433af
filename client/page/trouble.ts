/** Who cannot open whom, since when, in plain words. It goes away by itself once it is over. */
import type { Room, Source } from "../src/index.js";
import { el, fill } from "./dom.js";
import { icon } from "./icons.js";
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

/** The lines of it above the call. */
export class TroubleNotices {
  readonly element = el("div", { class: "trouble", role: "status" });
  #shown = "";

  /** @returns whether what is shown has changed */
  update(room: Pick<Room, "participants" | "sealOf" | "unopened">, nameOf: (participant: string) => string): boolean {
    const incoming = [...room.participants.values()].flatMap(({ participant, tracks }) =>
      [...tracks.values()].flatMap(({ track, source, muted }) => {
        const seal = muted ? undefined : room.sealOf(track);
        return seal?.state === "failing" ? [{ name: nameOf(participant), source, since: seal.since }] : [];
      }),
    );
    const outgoing = room.unopened().map(({ participant, ...trouble }) => ({ name: nameOf(participant), ...trouble }));
    const words = troubleWords(incoming, outgoing);
    if (words.join("\n") === this.#shown) return false;
    this.#shown = words.join("\n");
    const line = (text: string): Node => el("div", { class: "notice notice-warning" }, icon("alert"), el("div", {}, text));
    fill(this.element, ...words.map(line));
    return true;
  }
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
