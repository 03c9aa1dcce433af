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
import type { Kind, PixelSize, SlotInfo, SlotNotice, SlotRequest } from "./protocol.js";
import { SlotAllocator, type SlotRef, type SlotTrack } from "./slots.js";

/** Entries of one `slots` request (docs/PROTOCOL.md §6). */
const MAX_ASSIGNMENTS = 128;

/** When to ask again after the relay said `retry`. */
const RETRY_MS = 1_000;

/** How long sizes may change, as while a window is dragged, before the relay is told, in ms. */
const SIZE_SETTLE_MS = 250;

/** For a track of which no size is known, in a slot that has one: as large as there is. */
const LARGEST: PixelSize = [16_384, 16_384];

const HIDDEN: PixelSize = [0, 0];

interface SubscriptionEvents {
  /** A slot shows the track from here on. */
  shown: { track: string; slot: SlotRef };
  hidden: { track: string };
  /** The relay paused the track for want of bandwidth, or resumed it. */
  paused: { track: string; paused: boolean };
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
  readonly #paused = new Set<string>();
  /** Wanted sizes by track. */
  readonly #sizes = new Map<string, PixelSize>();
  /** Sizes that the relay has, by slot. */
  readonly #acknowledgedSizes = new Map<string, PixelSize>();
  #sizeTimer: ReturnType<typeof setTimeout> | undefined;
  /** Nothing is looked at: the page is hidden. */
  #invisible = false;
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
    this.#sizes.delete(track);
    if (slot && this.#shown.get(slotName(slot)) === track) this.#hide(slot);
    this.#sync();
  }

  waiting(): string[] {
    return this.#allocator.waiting();
  }

  /** See {@link SlotAllocator.promote}. */
  promote(participant: string): void {
    this.#allocator.promote(participant);
    this.#sync();
  }

  /** See {@link SlotAllocator.pin}. */
  pin(participant: string, pinned: boolean): void {
    this.#allocator.pin(participant, pinned);
    this.#sync();
  }

  /** The pixels that a track is shown at; `[0, 0]`: not at all. Told once it has settled. */
  setSize(track: string, [width, height]: PixelSize): void {
    const before = this.#sizes.get(track);
    const size: PixelSize = width > 0 && height > 0 ? [limited(width), limited(height)] : HIDDEN;
    if (before && sameSize(before, size)) return;
    this.#sizes.set(track, size);
    // What appears is waited for.
    if (before && sameSize(before, HIDDEN)) this.#sync();
    else this.#sizeTimer ??= setTimeout(() => this.#sync(), SIZE_SETTLE_MS);
  }

  /** Stops all pictures while nobody looks at any. */
  setVisible(visible: boolean): void {
    this.#invisible = !visible;
    this.#sync();
  }

  /** Whether the relay withholds the track because the path does not carry it. */
  isPaused(track: string): boolean {
    return this.#paused.has(track);
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
    if (before === notice.track) {
      if (before !== null) this.#setPaused(before, notice.paused === true);
      return;
    }
    if (before !== undefined) this.#hide(slot);
    // A notice that a newer wish has overtaken: another one is on its way.
    if (notice.track === null || this.#allocator.trackIn(slot)?.track !== notice.track) return;
    this.#shown.set(name, notice.track);
    this.#sealing.show(name, notice.track, this.#isSealed(notice.track), this.#ownerOf(notice.track));
    this.emit("shown", { track: notice.track, slot });
    this.#setPaused(notice.track, notice.paused === true);
  }

  /** A new media session: notices and sizes start over, assignments stay. */
  onMediaReplaced(): void {
    this.#revisions = new Map();
    this.#acknowledgedSizes.clear();
    for (const [slot, track] of this.#allocator.assignments()) {
      if (track && this.#shown.has(slotName(slot))) this.#hide(slot);
    }
    this.#sync();
  }

  dispose(): void {
    clearTimeout(this.#sizeTimer);
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
    this.#paused.delete(track);
    this.#sealing.show(name, null, true, "");
    this.emit("hidden", { track });
  }

  #setPaused(track: string, paused: boolean): void {
    if (this.#paused.has(track) === paused) return;
    if (paused) this.#paused.add(track);
    else this.#paused.delete(track);
    this.emit("paused", { track, paused });
  }

  /** Brings the relay's assignments in line; one request at a time, changes meanwhile coalesce. */
  #sync(): void {
    clearTimeout(this.#sizeTimer);
    this.#sizeTimer = undefined;
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

  #changes(media: MediaSession): SlotRequest[] {
    const changes: SlotRequest[] = [];
    for (const [slot, wanted] of this.#allocator.assignments()) {
      const mid = media.midOfSlot(slot);
      if (mid === undefined) continue;
      const name = slotName(slot);
      const track = wanted?.track ?? null;
      const size = slot.kind === "video" && track !== null ? this.#sizeFor(name, track) : undefined;
      const acknowledged = (this.#acknowledged.get(name) ?? null) === track;
      if (acknowledged && !size) continue;
      changes.push(size ? { mid, track, size } : { mid, track });
    }
    return changes.slice(0, MAX_ASSIGNMENTS);
  }

  /** What the relay is to be told of a slot's size; `undefined` where it knows. */
  #sizeFor(slot: string, track: string): PixelSize | undefined {
    const known = this.#acknowledgedSizes.get(slot);
    const wanted = this.#invisible ? HIDDEN : (this.#sizes.get(track) ?? (known && LARGEST));
    return !wanted || (known && sameSize(known, wanted)) ? undefined : wanted;
  }

  /** @returns whether there is a point in going on now */
  async #assign(media: MediaSession, changes: SlotRequest[]): Promise<boolean> {
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
    if (this.#connection.media !== media) return true;
    for (const { mid, track, size } of changes) {
      const slot = media.slotOfMid(mid);
      if (!slot) continue;
      if (size) this.#acknowledgedSizes.set(slotName(slot), size);
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

function sameSize(a: PixelSize, b: PixelSize): boolean {
  return a[0] === b[0] && a[1] === b[1];
}

/** Whole pixels, at least one: what is shown at all is not hidden. */
function limited(pixels: number): number {
  return Math.min(LARGEST[0], Math.max(1, Math.round(pixels)));
}
