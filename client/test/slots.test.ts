import assert from "node:assert/strict";
import { test } from "node:test";
import type { Kind, Source } from "../src/protocol.js";
import { kindOf } from "../src/protocol.js";
import { SlotAllocator, type SlotTrack } from "../src/slots.js";
import { randomFrom } from "./random.js";

const track = (participant: string, source: Source): SlotTrack => ({
  track: `${participant}-${source}`,
  participant,
  source,
});

test("a participant's microphone and camera share a pair, whoever came first", () => {
  const slots = new SlotAllocator({ audio: 4, video: 4 });
  slots.want(track("a", "audio"));
  slots.want(track("b", "camera"));
  slots.want(track("c", "screen"));
  slots.want(track("b", "audio"));
  slots.want(track("a", "camera"));
  assert.equal(slots.slotOf("a-audio")?.index, slots.slotOf("a-camera")?.index);
  assert.equal(slots.slotOf("b-audio")?.index, slots.slotOf("b-camera")?.index);
});

test("a screen does not take the place beside a person's voice while others are free", () => {
  const slots = new SlotAllocator({ audio: 3, video: 3 });
  slots.want(track("a", "audio"));
  slots.want(track("b", "screen"));
  slots.want(track("c", "screen"));
  slots.want(track("a", "camera"));
  assert.deepEqual(slots.slotOf("a-camera"), { kind: "video", index: 0 });
});

test("nobody's slot changes because somebody else comes or goes", () => {
  const slots = new SlotAllocator({ audio: 3, video: 3 });
  for (const name of ["a", "b", "c"]) slots.want(track(name, "camera"));
  const before = [slots.slotOf("a-camera"), slots.slotOf("c-camera")];
  slots.drop("b-camera");
  slots.want(track("d", "camera"));
  assert.deepEqual([slots.slotOf("a-camera"), slots.slotOf("c-camera")], before);
});

test("who waited longest takes the slot that becomes free", () => {
  const slots = new SlotAllocator({ audio: 1, video: 1 });
  for (const name of ["a", "b", "c"]) slots.want(track(name, "camera"));
  slots.want(track("d", "audio"));
  assert.deepEqual(slots.waiting(), ["b-camera", "c-camera"]);
  slots.drop("a-camera");
  assert.deepEqual(slots.slotOf("b-camera"), { kind: "video", index: 0 });
  assert.deepEqual(slots.waiting(), ["c-camera"]);
  slots.drop("c-camera");
  assert.deepEqual(slots.waiting(), []);
});

/** The same promises, kept without cleverness: a set of holders and a queue for each kind. */
class NaiveShadow {
  readonly holders: Record<Kind, Set<string>> = { audio: new Set(), video: new Set() };
  readonly queues: Record<Kind, string[]> = { audio: [], video: [] };

  constructor(readonly counts: Record<Kind, number>) {}

  want({ track, source }: SlotTrack): void {
    const kind = kindOf(source);
    if (this.holders[kind].has(track) || this.queues[kind].includes(track)) return;
    this.queues[kind].push(track);
    this.#fill(kind);
  }

  drop(track: string): void {
    for (const kind of ["audio", "video"] as const) {
      this.holders[kind].delete(track);
      this.queues[kind] = this.queues[kind].filter((queued) => queued !== track);
      this.#fill(kind);
    }
  }

  #fill(kind: Kind): void {
    while (this.holders[kind].size < this.counts[kind]) {
      const next = this.queues[kind].shift();
      if (next === undefined) return;
      this.holders[kind].add(next);
    }
  }
}

test("agrees with a naive shadow over random comings and goings", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = randomFrom(seed);
    const counts = { audio: 1 + Math.floor(random() * 5), video: 1 + Math.floor(random() * 5) };
    const slots = new SlotAllocator(counts);
    const shadow = new NaiveShadow(counts);
    for (let step = 0; step < 60; step++) {
      const sources: Source[] = ["audio", "camera", "screen"];
      const source = sources[Math.floor(random() * sources.length)] ?? "audio";
      const someTrack = track(`p${Math.floor(random() * 6)}`, source);
      const before = new Map([...slots.assignments()].map(([slot, held]) => [held?.track, slot]));
      if (random() < 0.6) {
        slots.want(someTrack);
        shadow.want(someTrack);
      } else {
        slots.drop(someTrack.track);
        shadow.drop(someTrack.track);
      }
      for (const kind of ["audio", "video"] as const) {
        const held = [...slots.assignments()].flatMap(([slot, holder]) =>
          slot.kind === kind && holder ? [holder.track] : [],
        );
        assert.equal(new Set(held).size, held.length, `seed ${seed}: a track in two slots`);
        assert.deepEqual(new Set(held), shadow.holders[kind], `seed ${seed}, step ${step}: holders`);
      }
      const queued = new Set([...shadow.queues.audio, ...shadow.queues.video]);
      assert.deepEqual(new Set(slots.waiting()), queued, `seed ${seed}, step ${step}: queue`);
      for (const [slot, holder] of slots.assignments()) {
        if (!holder) continue;
        assert.deepEqual(slots.slotOf(holder.track), slot);
        assert.deepEqual(before.get(holder.track) ?? slot, slot, `seed ${seed}: a track moved`);
      }
    }
  }
});

test("whoever speaks takes the slots of whoever was silent the longest", () => {
  const slots = new SlotAllocator({ audio: 2, video: 2 });
  for (const name of ["a", "b", "c", "d"]) {
    slots.want(track(name, "audio"));
    slots.want(track(name, "camera"));
  }
  const shown = (): string[] => ["a", "b", "c", "d"].filter((name) => slots.slotOf(`${name}-camera`));
  assert.deepEqual(shown(), ["a", "b"]);
  slots.promote("c");
  assert.deepEqual(shown(), ["a", "c"], "of those who never spoke, the one asked for last gives way");
  assert.equal(slots.slotOf("c-audio")?.index, slots.slotOf("c-camera")?.index, "a pair");
  slots.promote("a");
  slots.promote("d");
  assert.deepEqual(shown(), ["a", "d"]);
  slots.promote("a");
  assert.deepEqual(shown(), ["a", "d"], "who is shown stays");
  assert.deepEqual(slots.waiting(), ["b-audio", "b-camera", "c-audio", "c-camera"]);
});

test("nobody takes a pinned participant's slots, and pinning gets them", () => {
  const slots = new SlotAllocator({ audio: 2, video: 2 });
  for (const name of ["a", "b", "c", "d"]) slots.want(track(name, "camera"));
  slots.pin("d", true);
  slots.pin("a", true);
  const shown = (): string[] => ["a", "b", "c", "d"].filter((name) => slots.slotOf(`${name}-camera`));
  assert.deepEqual(shown(), ["a", "d"]);
  slots.promote("b");
  slots.promote("c");
  assert.deepEqual(shown(), ["a", "d"]);
  slots.pin("a", false);
  slots.promote("b");
  assert.deepEqual(shown(), ["b", "d"]);
});

test("no speaker takes a shared screen's slot", () => {
  const slots = new SlotAllocator({ audio: 1, video: 2 });
  slots.want(track("a", "imaging"));
  slots.want(track("a", "camera"));
  slots.want(track("b", "camera"));
  slots.promote("b");
  slots.promote("a");
  slots.promote("b");
  assert.ok(slots.slotOf("a-imaging"));
  assert.ok(slots.slotOf("b-camera"));
});

test("speaking and pinning keep every slot to one track and every track to one slot", () => {
  const random = randomFrom(23);
  for (let round = 0; round < 100; round++) {
    const slots = new SlotAllocator({ audio: 3, video: 4 });
    const wanted = new Set<string>();
    for (let step = 0; step < 60; step++) {
      const name = "abcdefgh".charAt(Math.floor(random() * 8));
      const source = (["audio", "camera", "screen"] as const)[Math.floor(random() * 3)] ?? "audio";
      const id = `${name}-${source}`;
      switch (Math.floor(random() * 4)) {
        case 0:
          slots.want(track(name, source));
          wanted.add(id);
          break;
        case 1:
          slots.drop(id);
          wanted.delete(id);
          break;
        case 2:
          slots.promote(name);
          break;
        default:
          slots.pin(name, random() < 0.5);
      }
      const inSlots = [...slots.assignments()].flatMap(([slot, occupant]) => (occupant ? [[occupant.track, slot] as const] : []));
      assert.equal(new Set(inSlots.map(([t]) => t)).size, inSlots.length);
      for (const [t, slot] of inSlots) assert.deepEqual(slots.slotOf(t), slot);
      assert.deepEqual(new Set([...slots.waiting(), ...inSlots.map(([t]) => t)]), wanted);
      for (const kind of ["audio", "video"] as const) {
        const waits = slots.waiting().some((t) => kindOf(t.split("-")[1] as Source) === kind);
        const free = [...slots.assignments()].some(([slot, occupant]) => slot.kind === kind && !occupant);
        assert.ok(!(waits && free), `a slot is free while somebody waits`);
      }
    }
  }
});
