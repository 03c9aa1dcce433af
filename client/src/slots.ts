/**
 * Which slot shows which track. Slots come in pairs: the n-th audio slot and the n-th video slot
 * share a stream, so a browser plays what is shown in a pair in sync. A participant's microphone
 * and camera therefore go into one pair wherever that is possible.
 *
 * An assignment stays until its track is dropped: nobody's picture jumps because somebody else came
 * or went. Tracks for which there is no slot wait in order of request.
 */
import type { Kind, Source } from "./protocol.js";
import { kindOf } from "./protocol.js";

export interface SlotRef {
  kind: Kind;
  /** From 0, among the slots of its kind. */
  index: number;
}

export interface SlotTrack {
  track: string;
  participant: string;
  source: Source;
}

export class SlotAllocator {
  readonly #slots: Record<Kind, (SlotTrack | undefined)[]>;
  /** Wanted tracks in order of request, with the slot each has. */
  readonly #wanted = new Map<string, { wanted: SlotTrack; index: number | undefined }>();

  constructor(counts: Readonly<Record<Kind, number>>) {
    this.#slots = {
      audio: new Array<undefined>(counts.audio).fill(undefined),
      video: new Array<undefined>(counts.video).fill(undefined),
    };
  }

  /** Asks for a slot; the track may have to wait. Asking again changes nothing. */
  want(track: SlotTrack): void {
    if (this.#wanted.has(track.track)) return;
    this.#wanted.set(track.track, { wanted: track, index: undefined });
    this.#place(track);
  }

  /** Takes the track off its slot, or off the queue; whoever waited longest takes the slot. */
  drop(track: string): void {
    const entry = this.#wanted.get(track);
    if (!entry) return;
    this.#wanted.delete(track);
    if (entry.index === undefined) return;
    const kind = kindOf(entry.wanted.source);
    this.#slots[kind][entry.index] = undefined;
    for (const { wanted, index } of this.#wanted.values()) {
      if (index === undefined && kindOf(wanted.source) === kind) {
        this.#place(wanted);
        return;
      }
    }
  }

  /** The track's slot; `undefined` while it waits. */
  slotOf(track: string): SlotRef | undefined {
    const entry = this.#wanted.get(track);
    if (entry?.index === undefined) return undefined;
    return { kind: kindOf(entry.wanted.source), index: entry.index };
  }

  trackIn({ kind, index }: SlotRef): SlotTrack | undefined {
    return this.#slots[kind][index];
  }

  /** Every slot of both kinds, in order, with what it should show. */
  *assignments(): IterableIterator<[SlotRef, SlotTrack | undefined]> {
    for (const kind of ["audio", "video"] as const) {
      for (const [index, track] of this.#slots[kind].entries()) yield [{ kind, index }, track];
    }
  }

  /** Wanted tracks that have no slot, longest waiting first. */
  waiting(): string[] {
    return [...this.#wanted].filter(([, { index }]) => index === undefined).map(([track]) => track);
  }

  #place(track: SlotTrack): void {
    const kind = kindOf(track.source);
    const index = this.#choose(track, kind);
    if (index === undefined) return;
    this.#slots[kind][index] = track;
    const entry = this.#wanted.get(track.track);
    if (entry) entry.index = index;
  }

  /** The free slot that breaks the fewest pairs; screens keep away from pairs altogether. */
  #choose(track: SlotTrack, kind: Kind): number | undefined {
    const other = this.#slots[kind === "audio" ? "video" : "audio"];
    let best: { index: number; cost: number } | undefined;
    for (const [index, occupant] of this.#slots[kind].entries()) {
      if (occupant) continue;
      const cost = pairingCost(track, other[index], index < other.length);
      // People fill the pool from the front, screens from the back.
      const wins = !best || cost < best.cost || (cost === best.cost && !isPerson(track));
      if (wins) best = { index, cost };
    }
    return best?.index;
  }
}

/** How badly `track` fits beside `partner`; lower is better. */
function pairingCost(track: SlotTrack, partner: SlotTrack | undefined, hasPartnerSlot: boolean): number {
  const partnerIsPerson = partner !== undefined && isPerson(partner);
  if (!isPerson(track)) {
    // A screen needs no partner: best where no pair can form, worst where it keeps a person's
    // camera from that person's voice.
    if (!hasPartnerSlot) return 0;
    return partner === undefined ? 1 : 2;
  }
  if (partnerIsPerson && partner.participant === track.participant) return 0;
  if (partner === undefined) return hasPartnerSlot ? 1 : 2;
  return partnerIsPerson ? 4 : 3;
}

function isPerson({ source }: SlotTrack): boolean {
  return source === "audio" || source === "camera";
}
