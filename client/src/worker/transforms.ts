/**
 * The encoded transforms of one room: a sealer for each sending m-line, one opener for all slots,
 * and the tallies of both. Keys come from the join link or from the room's group.
 *
 * One opener serves the whole room because its replay windows belong to keys, not to slots: a frame
 * that was opened in one slot must not open again in another.
 */
import { FrameOpener, FrameSealer, frameContext } from "sealcast-wasm";
import type { OpenCounters, SealCounters, TransformOptions } from "../e2ee/messages.js";
import { OpenTally, SealTally } from "./counters.js";
import { type Sealer, openFrame, sealFrame } from "./frames.js";
import type { GroupKeys } from "./group.js";
import { EncodingIndex } from "./encoding-index.js";
import { KidSource } from "./kid.js";
import { RedOpener, RedSealer } from "./red.js";

/** Key frames are asked for at most this often per slot, in ms: the relay coalesces, we help. */
const KEY_FRAME_INTERVAL_MS = 1_000;

/** Tallies of tracks that no slot shows are kept up to this many, the oldest go first. */
const MAX_TALLIES = 1_024;

interface Shown {
  track: string | null;
  sealed: boolean;
  /** The participant whose track it is, by the relay's word. */
  owner: string;
}

const NOTHING: Shown = { track: null, sealed: true, owner: "" };

type EncodedFrame = RTCEncodedVideoFrame | RTCEncodedAudioFrame;

export class RoomTransforms {
  readonly #suite: number;
  readonly #opener: FrameOpener;
  readonly #kids = new KidSource();
  /** By line, for each of its encodings. */
  readonly #sealers = new Map<string, FrameSealer[]>();
  /** Contexts of the lines that seal with the group's keys, for each encoding. */
  readonly #groupLines = new Map<string, number[]>();
  readonly #shown = new Map<string, Shown>();
  readonly #openTallies = new Map<string, OpenTally>();
  readonly #sealTallies = new Map<string, SealTally>();
  #linkKey: Uint8Array | undefined;
  #group: GroupKeys | undefined;

  constructor(suite: number) {
    this.#suite = suite;
    this.#opener = new FrameOpener(suite);
  }

  setLinkKey(key: Uint8Array): void {
    this.#linkKey = key;
    this.#opener.setLinkKey(key);
  }

  /** From here on, keys are the group's. */
  setGroup(group: GroupKeys): void {
    this.#group = group;
  }

  /**
   * Gives `line` a sealer for each of its encodings: under fresh key ids, or the group's for them,
   * once there is one.
   *
   * @returns the contexts to announce to the relay
   */
  async seal(line: string, encodings: number): Promise<number[]> {
    const indices = Array.from({ length: encodings }, (_, index) => index);
    const group = this.#group;
    if (group) {
      const contexts = indices.map((index) => group.contextOf(`${line}/${index}`));
      await group.ready();
      this.#groupLines.set(line, contexts);
      return contexts;
    }
    const linkKey = this.#linkKey;
    if (!linkKey) throw new Error("there is no key to seal with");
    const kids = indices.map(() => this.#kids.next());
    this.unseal(line);
    this.#sealers.set(
      line,
      kids.map((kid) => new FrameSealer(this.#suite, kid, linkKey)),
    );
    return kids.map((kid) => frameContext(kid));
  }

  unseal(line: string): void {
    for (const sealer of this.#sealers.get(line) ?? []) sealer.free();
    this.#sealers.delete(line);
    this.#groupLines.delete(line);
    this.#sealTallies.delete(line);
  }

  show(slot: string, shown: Shown): void {
    this.#shown.set(slot, shown);
  }

  /** Runs frames through, from here to the end of the transformer's stream. */
  async run(transformer: RTCRtpScriptTransformer): Promise<void> {
    const options = transformer.options as TransformOptions;
    const transform =
      options.role === "sender"
        ? this.#sealing(options.line)
        : this.#opening(options.slot, transformer);
    const stream = new TransformStream<EncodedFrame, EncodedFrame>({
      transform(frame, controller) {
        if (transform(frame)) controller.enqueue(frame);
      },
    });
    await transformer.readable.pipeThrough(stream).pipeTo(transformer.writable);
  }

  counters(): { opened: Record<string, OpenCounters>; sealed: Record<string, SealCounters> } {
    const read = <T>(tallies: Map<string, { counters: T }>): Record<string, T> =>
      Object.fromEntries([...tallies].map(([name, { counters }]) => [name, counters]));
    return { opened: read(this.#openTallies), sealed: read(this.#sealTallies) };
  }

  #sealing(line: string): (frame: EncodedFrame) => boolean {
    const index = new EncodingIndex();
    const red = new RedSealer();
    return (frame) => {
      let tally = this.#sealTallies.get(line);
      if (!tally) {
        tally = new SealTally(Date.now());
        this.#sealTallies.set(line, tally);
      }
      const { synchronizationSource = 0 } = frame.getMetadata();
      const encoding = index.of(synchronizationSource, this.#encodingsOf(line));
      return sealFrame(frame, this.#sealerOf(line, encoding), tally, Date.now(), encoding, red);
    };
  }

  #encodingsOf(line: string): number {
    return (this.#groupLines.get(line) ?? this.#sealers.get(line))?.length ?? 0;
  }

  #sealerOf(line: string, encoding: number): Sealer | undefined {
    const contexts = this.#groupLines.get(line);
    if (!contexts) return this.#sealers.get(line)?.[encoding];
    const context = contexts[encoding];
    return context === undefined ? undefined : this.#group?.sealer(context);
  }

  #opening(slot: string, transformer: RTCRtpScriptTransformer): (frame: EncodedFrame) => boolean {
    const red = new RedOpener();
    let nextKeyFrameRequest = 0;
    return (frame) => {
      const { track, sealed, owner } = this.#shown.get(slot) ?? NOTHING;
      // Frames of a slot that shows nothing are the tail of its former track.
      if (track === null) return false;
      const now = Date.now();
      const tally = this.#openTally(track, now);
      if (!sealed) {
        tally.onClear(now);
        return true;
      }
      const leaf = this.#group?.leafOf(owner);
      if (this.#group && leaf === undefined) {
        tally.onHeld(now);
        return false;
      }
      const outcome = openFrame(frame, this.#group ?? this.#opener, tally, now, leaf, red);
      if (outcome !== "ignore") this.#group?.onOpening(outcome === "failed");
      if (outcome === "failed" && "type" in frame && now >= nextKeyFrameRequest) {
        nextKeyFrameRequest = now + KEY_FRAME_INTERVAL_MS;
        // Refused where the receiver has stopped meanwhile, and then nobody needs the frame.
        transformer.sendKeyFrameRequest().catch(() => undefined);
      }
      return outcome === "pass";
    };
  }

  #openTally(track: string, now: number): OpenTally {
    let tally = this.#openTallies.get(track);
    if (!tally) {
      tally = new OpenTally(now);
      this.#openTallies.set(track, tally);
      this.#forgetOldTallies();
    }
    return tally;
  }

  #forgetOldTallies(): void {
    const shown = new Set([...this.#shown.values()].map(({ track }) => track));
    for (const track of this.#openTallies.keys()) {
      if (this.#openTallies.size <= MAX_TALLIES) return;
      if (!shown.has(track)) this.#openTallies.delete(track);
    }
  }
}
