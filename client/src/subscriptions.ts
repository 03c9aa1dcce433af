/**
 * Which remote tracks are wanted, which slot each has, and which the relay says it shows.
 *
 * Three views are kept apart: what the allocator wants, what the relay has acknowledged, and what a
 * slot shows. The last follows the data channel's notices alone, since only those say from when on
 * a slot's media belongs to a track (docs/PROTOCOL.md §8).
 */
import type { Connection } from "./connection.js";
import type { Sealing } from "./e2ee/sealing.js";
import { Emitter } from "./emitter.js";
import { RelayError, SealcastError } from "./errors.js";
import { type MediaSession, slotName } from "./media.js";
import type { Kind, SlotInfo, SlotNotice } from "./protocol.js";
import { SlotAllocator, type SlotRef, type SlotTrack } from "./slots.js";

/** Entries of one `slots` request (docs/PROTOCOL.md §6). */
const MAX_ASSIGNMENTS = 128;

/** When to ask again after the relay said `retry`. */
const RETRY_MS = 1_000;

interface SubscriptionEvents {
  /** A slot shows the track from here on. */
  shown: { track: string; slot: SlotRef };
  hidden: { track: string };
  /** The relay refuses to show this track. */
  refused: { track: string; error: SealcastError };
}

export class Subscriptions extends Emitter<SubscriptionEvents> {
  readonly #connection: Connection;
  readonly #sealing: Sealing;
  readonly #isSealed: (track: string) => boolean;
  readonly #ownerOf: (track: string) => string;
  readonly #allocator: SlotAllocator;
  readonly #acknowledged = new Map<string, string>();
  readonly #shown = new Map<string, string>();
  #revisions = new Map<string, number>();
  #syncing: Promise<void> | undefined;
  #syncAgain = false;

  /**
   * @param isSealed whether frames of a track must open, as opposed to being passed on as they are
   * @param ownerOf the participant that published a track
   */
  constructor(
    connection: Connection,
    sealing: Sealing,
    counts: Readonly<Record<Kind, number>>,
    isSealed: (track: string) => boolean,
    ownerOf: (track: string) => string,
  ) {
    super();
    this.#connection = connection;
    this.#sealing = sealing;
    this.#isSealed = isSealed;
    this.#ownerOf = ownerOf;
    this.#allocator = new SlotAllocator(counts);
  }

  want(track: SlotTrack): void {
    this.#allocator.want(track);
    this.#sync();
  }

  drop(track: string): void {
    const slot = this.#allocator.slotOf(track);
    this.#allocator.drop(track);
    if (slot && this.#shown.get(slotName(slot)) === track) this.#hide(slot);
    this.#sync();
  }

  waiting(): string[] {
    return this.#allocator.waiting();
  }

  /** The slot that shows the track now. */
  slotShowing(track: string): SlotRef | undefined {
    const slot = this.#allocator.slotOf(track);
    return slot && this.#shown.get(slotName(slot)) === track ? slot : undefined;
  }

  onNotice(notice: SlotNotice): void {
    const slot = this.#connection.media?.slotOfMid(notice.mid);
    if (!slot) return;
    // "a lower one than seen is stale"
    if (notice.revision < (this.#revisions.get(notice.mid) ?? -1)) return;
    this.#revisions.set(notice.mid, notice.revision);
    const name = slotName(slot);
    const before = this.#shown.get(name);
    if (before === notice.track) return;
    if (before !== undefined) this.#hide(slot);
    // A notice that a newer wish has overtaken: another one is on its way.
    if (notice.track === null || this.#allocator.trackIn(slot)?.track !== notice.track) return;
    this.#shown.set(name, notice.track);
    this.#sealing.show(name, notice.track, this.#isSealed(notice.track), this.#ownerOf(notice.track));
    this.emit("shown", { track: notice.track, slot });
  }

  /** A new media session: notices start over, assignments stay. */
  onMediaReplaced(): void {
    this.#revisions = new Map();
    for (const [slot, track] of this.#allocator.assignments()) {
      if (track && this.#shown.has(slotName(slot))) this.#hide(slot);
    }
  }

  /** The relay's own view, after joining (nothing assigned) or resuming. */
  reset(assigned: readonly SlotInfo[]): void {
    this.#acknowledged.clear();
    for (const { mid, track } of assigned) {
      const slot = this.#connection.media?.slotOfMid(mid);
      if (slot && track !== null) this.#acknowledged.set(slotName(slot), track);
    }
    this.#sync();
  }

  #hide(slot: SlotRef): void {
    const name = slotName(slot);
    const track = this.#shown.get(name);
    if (track === undefined) return;
    this.#shown.delete(name);
    this.#sealing.show(name, null, true, "");
    this.emit("hidden", { track });
  }

  /** Brings the relay's assignments in line; one request at a time, changes meanwhile coalesce. */
  #sync(): void {
    if (this.#syncing) {
      this.#syncAgain = true;
      return;
    }
    this.#syncing = this.#syncUntilDone().finally(() => {
      this.#syncing = undefined;
    });
  }

  async #syncUntilDone(): Promise<void> {
    // Let the changes of one event come together in one request.
    await Promise.resolve();
    do {
      this.#syncAgain = false;
      const media = this.#connection.media;
      if (!media) return;
      const changes = this.#changes(media);
      if (changes.length === MAX_ASSIGNMENTS) this.#syncAgain = true;
      if (changes.length > 0 && !(await this.#assign(media, changes))) return;
    } while (this.#syncAgain);
  }

  #changes(media: MediaSession): SlotInfo[] {
    const changes: SlotInfo[] = [];
    for (const [slot, wanted] of this.#allocator.assignments()) {
      const mid = media.midOfSlot(slot);
      const track = wanted?.track ?? null;
      if (mid === undefined || (this.#acknowledged.get(slotName(slot)) ?? null) === track) continue;
      changes.push({ mid, track });
    }
    return changes.slice(0, MAX_ASSIGNMENTS);
  }

  /** @returns whether there is a point in going on now */
  async #assign(media: MediaSession, changes: SlotInfo[]): Promise<boolean> {
    try {
      await this.#connection.request("slots", { assign: changes });
    } catch (error) {
      if (!(error instanceof RelayError)) return false; // the next snapshot resets everything
      if (changes.length === 1) return this.#onRefused(changes[0], error);
      // All or nothing: a track that has just gone must not keep the others from their slots.
      for (const change of changes) {
        if (!(await this.#assign(media, [change]))) return false;
      }
      return true;
    }
    for (const { mid, track } of changes) {
      const slot = media.slotOfMid(mid);
      if (!slot) continue;
      if (track === null) this.#acknowledged.delete(slotName(slot));
      else this.#acknowledged.set(slotName(slot), track);
    }
    return true;
  }

  #onRefused(change: SlotInfo | undefined, error: RelayError): boolean {
    if (error.retry) {
      setTimeout(() => this.#sync(), RETRY_MS);
      return false;
    }
    if (!change || change.track === null) return false;
    this.#allocator.drop(change.track);
    this.#syncAgain = true;
    this.emit("refused", { track: change.track, error });
    return true;
  }
}
