/**
 * What a tile's mark says. It is derived from counts of frames that the sealing worker really
 * opened or sealed, never from what anybody claims.
 */
import type { OpenCounters, SealCounters } from "../src/index.js";
import type { IconName } from "./icons.js";

export type MarkState = "sealed" | "waiting" | "broken" | "clear";

export interface Mark {
  state: MarkState;
  label: string;
  /** One sentence for the details and for screen readers. */
  explanation: string;
}

export const MARK_ICONS: Record<MarkState, IconName> = {
  sealed: "lock",
  waiting: "wait",
  broken: "alert",
  clear: "unlock",
};

/** A participant whom the relay let in, and who is not, or not yet, a member of the group. */
export const OUTSIDE: Mark = {
  state: "waiting",
  label: "Not in",
  explanation: "This participant has none of the consult's keys: they can neither open nor seal anything.",
};

export interface SealedTrack {
  seal: OpenCounters | undefined;
  muted: boolean;
  /** No slot shows it, or the relay withholds it: no frames are due. */
  withheld?: boolean;
  blocked?: string;
}

/** Without a frame for this long, what is on screen is not called live. */
export const STALLED_MS = 8_000;

/**
 * The mark of somebody else's tile: the worst that holds for any of its tracks.
 *
 * @param now ms since the epoch
 * @param keys where keys come from
 */
export function markOf(
  tracks: readonly SealedTrack[],
  hasKey: boolean,
  now: number,
  keys: "group" | "link" | "none" = "link",
): Mark {
  const live = tracks.filter(({ muted }) => !muted);
  const states = live.map(({ seal }) => seal?.state ?? "waiting");
  if (states.includes("clear")) {
    return {
      state: "clear",
      label: "Not sealed",
      explanation: "This is not sealed: the relay can see and hear it.",
    };
  }
  if (live.some(({ blocked }) => blocked !== undefined)) {
    return {
      state: "broken",
      label: "Blocked",
      explanation: "The relay stopped forwarding this, because it did not look sealed.",
    };
  }
  if (states.includes("failing")) {
    return {
      state: "broken",
      label: "Cannot open",
      explanation: failureOf(live, hasKey, keys),
    };
  }
  const open = live.filter(({ seal }) => seal?.state === "open");
  if (open.length > 0 && open.every(({ seal }) => now - (seal?.lastOpened ?? 0) > STALLED_MS)) {
    if (open.every(({ withheld }) => withheld)) {
      return {
        state: "waiting",
        label: "Not received",
        explanation: "Frames opened before. At the moment the relay sends you none of this.",
      };
    }
    return {
      state: "waiting",
      label: "Stalled",
      explanation: "Frames opened before, but none has arrived for a while.",
    };
  }
  // Somebody muted throughout has shown once that their frames open; that stays true.
  const opened = tracks.some(({ seal }) => seal?.state === "open");
  if (states.includes("open") || (live.length === 0 && opened)) {
    return {
      state: "sealed",
      label: "Sealed",
      explanation: "What you see and hear was sealed on their device and opened on yours. The relay cannot open it.",
    };
  }
  return { state: "waiting", label: "Waiting", explanation: "No frame has arrived yet." };
}

/** Which party cannot be opened, since when, and what follows from it. */
function failureOf(live: readonly SealedTrack[], hasKey: boolean, keys: "group" | "link" | "none"): string {
  if (!hasKey) return "Frames arrive, but your link has no key to open them with.";
  const failing = live.flatMap(({ seal }) => (seal?.state === "failing" ? [seal] : []));
  const since = `since ${timeOfDay(Math.min(...failing.map((seal) => seal.since)))}`;
  if (failing.some(({ misattributed }) => misattributed > 0)) {
    return `The relay has been sending frames of somebody else under this name ${since}. They are not shown.`;
  }
  return keys === "group"
    ? `Their frames cannot be opened ${since}. This device is asking for the current keys again.`
    : `Their frames cannot be opened ${since}: your key is another one. One of you may have an outdated link.`;
}

/** `14:03:27`. */
export function timeOfDay(ms: number): string {
  return new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

/** The mark of one's own tile. */
export function ownMark(seals: readonly (SealCounters | null)[], hasKey: boolean): Mark {
  if (!hasKey) {
    return {
      state: "broken",
      label: "No key",
      explanation: "Your link has no key, so nothing of yours is sent.",
    };
  }
  const states = seals.map((seal) => seal?.state ?? "waiting");
  if (states.includes("withheld")) {
    return {
      state: "broken",
      label: "Not sent",
      explanation: "Frames could not be sealed and were therefore not sent.",
    };
  }
  if (states.includes("sealing")) {
    return {
      state: "sealed",
      label: "Sealed",
      explanation: "Every frame of yours is sealed on this device before it is sent.",
    };
  }
  return { state: "waiting", label: "Waiting", explanation: "Nothing of yours has been sent yet." };
}

/** The mark of the whole call, for the header. */
export function callMark(marks: readonly Mark[]): { state: MarkState; label: string } {
  const count = (state: MarkState): number => marks.filter((mark) => mark.state === state).length;
  if (count("clear") > 0) return { state: "clear", label: "Not everything is sealed" };
  if (count("broken") > 0) {
    const broken = count("broken");
    return { state: "broken", label: broken === 1 ? "1 tile cannot be opened" : `${broken} tiles cannot be opened` };
  }
  if (count("sealed") > 0) return { state: "sealed", label: "Sealed end to end" };
  return { state: "waiting", label: "Waiting for others" };
}

/** A key id for people to compare: groups of four hex digits. */
export function formatKeyId(keyId: string | null): string {
  if (keyId === null) return "none yet";
  const padded = keyId.padStart(Math.ceil(keyId.length / 4) * 4, "0");
  return padded.replace(/(.{4})(?=.)/g, "$1 ");
}
