/** Tells the relay what became of others' frames, in numbers alone (docs/PROTOCOL.md §6.3). */
import type { OpenCounters } from "./e2ee/messages.js";
import type { TrackReport } from "./protocol.js";

/** How often, in ms. */
export const REPORT_INTERVAL_MS = 10_000;

/** Tracks of one report. */
const MAX_TRACKS = 128;

interface Totals {
  opened: number;
  unknown: number;
  failed: number;
}

export class Reporter {
  #reported = new Map<string, Totals>();

  /** What has changed since the last call. Tracks that are gone are forgotten. */
  take(counters: Readonly<Record<string, OpenCounters>>): TrackReport[] {
    const reports: TrackReport[] = [];
    const totals = new Map<string, Totals>();
    for (const [track, counts] of Object.entries(counters)) {
      const before = this.#reported.get(track) ?? { opened: 0, unknown: 0, failed: 0 };
      const failed = counts.inauthentic + counts.malformed + counts.misattributed;
      const now = { opened: counts.opened, unknown: counts.unknownKey, failed };
      const report = {
        track,
        opened: now.opened - before.opened,
        unknown_key: now.unknown - before.unknown,
        failed: now.failed - before.failed,
      };
      const changed = report.opened > 0 || report.unknown_key > 0 || report.failed > 0;
      const fits = reports.length < MAX_TRACKS;
      if (changed && fits) reports.push(report);
      totals.set(track, changed && !fits ? before : now);
    }
    this.#reported = totals;
    return reports;
  }
}
