/** Tells the relay what became of others' frames, in numbers alone (docs/PROTOCOL.md §6.3). */
import type { OpenCounters } from "./e2ee/messages.js";
import type { TrackReport } from "./protocol.js";

/** How often, in ms. */
export const REPORT_INTERVAL_MS = 10_000;

/** Tracks of one report. */
const MAX_TRACKS = 128;

type Totals = Omit<TrackReport, "track" | "failing">;

const NOTHING: Totals & { failing: boolean } = { failing: false, opened: 0, unknown_key: 0, altered: 0, misattributed: 0, malformed: 0 };

export class Reporter {
  #reported = new Map<string, Totals & { failing: boolean }>();
  #failing = "";

  /** Whether the tracks that cannot be opened are others than at the last call: then a report is due. */
  isDue(counters: Readonly<Record<string, OpenCounters>>): boolean {
    const failing = Object.entries(counters).flatMap(([track, { state }]) => (state === "failing" ? [track] : []));
    const now = failing.sort().join(" ");
    const due = now !== this.#failing;
    this.#failing = now;
    return due;
  }

  /** What has changed since the last call. Tracks that are gone are forgotten. */
  take(counters: Readonly<Record<string, OpenCounters>>): TrackReport[] {
    const reports: TrackReport[] = [];
    const totals = new Map<string, Totals & { failing: boolean }>();
    for (const [track, counts] of Object.entries(counters)) {
      const before = this.#reported.get(track) ?? NOTHING;
      const failing = counts.state === "failing";
      const now = {
        failing,
        opened: counts.opened,
        unknown_key: counts.unknownKey,
        altered: counts.inauthentic,
        misattributed: counts.misattributed,
        malformed: counts.malformed,
      };
      const frames = difference(now, before);
      const report = { track, failing, ...frames };
      const changed = failing !== before.failing || Object.values(frames).some((count) => count > 0);
      const fits = reports.length < MAX_TRACKS;
      if (changed && fits) reports.push(report);
      totals.set(track, changed && !fits ? before : now);
    }
    this.#reported = totals;
    return reports;
  }
}

function difference(now: Totals, before: Totals): Totals {
  return {
    opened: now.opened - before.opened,
    unknown_key: now.unknown_key - before.unknown_key,
    altered: now.altered - before.altered,
    misattributed: now.misattributed - before.misattributed,
    malformed: now.malformed - before.malformed,
  };
}
