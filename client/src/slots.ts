/**
 * Which slot shows which track. Slots come in pairs: the n-th audio slot and the n-th video slot
 * share a stream, so a browser plays what is shown in a pair in sync. A participant's microphone
 * and camera therefore go into one pair wherever that is possible.
 *
 * An assignment stays until its track is dropped: nobody's picture jumps because somebody else came
 * or went. Tracks for which there is no slot wait in order of request. Where there are more people
 * than slots, whoever speaks takes the slot of whoever has been silent the longest, unless that one
 * is pinned: the last N speakers are seen and heard.
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

interface Entry {
  wanted: SlotTrack;
  /** Of its slot; `undefined` while it waits. */
  index: number | undefined;
  /** When its participant last spoke, by {@link SlotAllocator.promote}; 0 for never. */
  spoke: number;
}

export class SlotAllocator {
  readonly #slots: Record<Kind, (SlotTrack | undefined)[]>;
  /** Wanted tracks in order of request, with the slot each has. */
  readonly #wanted = new Map<string, Entry>();
  /** Participants whose slots nobody takes. */
  readonly #pinned = new Set<string>();
  #turn = 0;

  constructor(counts: Readonly<Record<Kind, number>>) {
    this.#slots = {
      audio: new Array<undefined>(counts.audio).fill(undefined),
      video: new Array<undefined>(counts.video).fill(undefined),
    };
  }

  /** Asks for a slot; the track may have to wait. Asking again changes nothing. */
  want(track: SlotTrack): void {
    if (this.#wanted.has(track.track)) return;
    this.#wanted.set(track.track, { wanted: track, index: undefined, spoke: 0 });
    this.#place(track);
  }

  /** A participant speaks: where its voice and camera wait, they take others' slots. */
  promote(participant: string): void {
    this.#turn += 1;
    for (const entry of this.#wanted.values()) {
      if (entry.wanted.participant !== participant || !isPerson(entry.wanted)) continue;
      entry.spoke = this.#turn;
      if (entry.index === undefined) this.#displace(entry);
    }
  }

  /** Gives a participant slots that nobody takes, or gives that up. */
  pin(participant: string, pinned: boolean): void {
    if (!pinned) {
      this.#pinned.delete(participant);
      return;
    }
    this.#pinned.add(participant);
    for (const entry of this.#wanted.values()) {
      if (entry.wanted.participant === participant && entry.index === undefined) this.#displace(entry);
    }
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

  /** Puts a waiting track where a person's is that was silent the longest. */
  #displace(entry: Entry): void {
    const kind = kindOf(entry.wanted.source);
    let longest: Entry | undefined;
    for (const other of this.#wanted.values()) {
      const { wanted, index } = other;
      if (index === undefined || kindOf(wanted.source) !== kind) continue;
      if (!isPerson(wanted) || this.#pinned.has(wanted.participant)) continue;
      // Of those who never spoke, whoever was asked for last.
      if (!longest || other.spoke <= longest.spoke) longest = other;
    }
    if (longest?.index === undefined) return;
    this.#slots[kind][longest.index] = undefined;
    longest.index = undefined;
    this.#place(entry.wanted);
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
