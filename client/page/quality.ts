/**
 * How well a picture arrives, for the mark on its tile. Derived from what the browser decoded and
 * from what the relay says it withholds.
 */
import type { ReceiveStats, SendStats, Source } from "../src/index.js";

/**
 * `none`: there is nothing to judge. `withheld`: imaging that does not fit whole and is therefore
 * not shown at all. `limited`: one's own connection or device does not carry one's picture.
 */
export type QualityState = "none" | "good" | "limited" | "frozen" | "paused" | "withheld";

export interface Quality {
  state: QualityState;
  /** A few characters: `360p`. */
  label: string;
  /** What is wrong, in a sentence over the picture; empty where nothing is. */
  message: string;
}

export const NO_QUALITY: Quality = { state: "none", label: "", message: "" };

/** A picture that shows nothing new for this long stands still. Screens change less often. */
export const FROZEN_MS: Readonly<Record<Exclude<Source, "audio">, number>> = {
  camera: 2_000,
  screen: 10_000,
  imaging: 10_000,
};

/** An encoder that is short of bandwidth for a moment is no news. */
export const LIMITED_SAMPLES = 5;

/** Follows one track's samples, one a second. */
export class QualityMeter {
  #decoded = -1;
  #since = 0;
  #limited = 0;

  /**
   * @param expected whether pictures ought to come: it is not muted, and in view
   * @param now milliseconds of any clock
   */
  received(stats: ReceiveStats | undefined, source: Source, expected: boolean, paused: boolean, now: number): Quality {
    if (source === "audio" || !expected) {
      this.#decoded = -1;
      return NO_QUALITY;
    }
    if (paused) {
      this.#decoded = -1;
      return pausedQuality(source);
    }
    const decoded = stats?.framesDecoded ?? 0;
    if (decoded !== this.#decoded) {
      this.#decoded = decoded;
      this.#since = now;
    }
    // Before the first frame there is no picture that could stand still.
    if (decoded === 0) return NO_QUALITY;
    if (now - this.#since >= FROZEN_MS[source]) {
      return { state: "frozen", label: "Frozen", message: "The picture stands still: nothing arrives at the moment." };
    }
    return { state: "good", label: heightOf(stats), message: "" };
  }

  sent(stats: SendStats | undefined): Quality {
    const live = stats?.encodings.filter(({ active }) => active) ?? [];
    const why = live.map(({ limitation }) => limitation).find((reason) => reason === "bandwidth" || reason === "cpu");
    this.#limited = why ? this.#limited + 1 : 0;
    const label = heightOf(stats);
    if (!why || this.#limited < LIMITED_SAMPLES) return { state: label ? "good" : "none", label, message: "" };
    const what = why === "cpu" ? "Your device is too busy" : "Your connection is too slow";
    return { state: "limited", label, message: `${what} to send your picture in full.` };
  }
}

function pausedQuality(source: Exclude<Source, "audio">): Quality {
  if (source === "imaging") {
    return {
      state: "withheld",
      label: "Paused",
      message: "Diagnostic picture paused: it does not fit your connection in full, and is never shown in lower quality.",
    };
  }
  return { state: "paused", label: "Paused", message: "Paused: your connection is too slow for this picture." };
}

function heightOf(stats: { height: number | null } | undefined): string {
  return stats?.height ? `${stats.height}p` : "";
}
