import assert from "node:assert/strict";
import { test } from "node:test";
import { OpenTally, SealTally } from "../src/worker/counters.js";
import { type EncodedFrame, openFrame, sealFrame } from "../src/worker/frames.js";
import { RedOpener, RedSealer, parseRed, writeRed } from "../src/worker/red.js";
import { randomFrom } from "./random.js";

const OPUS = 111;
const STEP = 960;

/** Seals by a counter in front, each frame once; opens each counter once, as the crypto module does. */
class Seal {
  readonly kid = 1n;
  #next = 0;
  readonly #seen = new Set<number>();
  calls = 0;

  seal(codec: string, frame: Uint8Array): Uint8Array<ArrayBuffer> {
    assert.equal(codec, "opus");
    return Uint8Array.of(0x55, this.#next++, ...frame);
  }

  open(codec: string, frame: Uint8Array): Uint8Array<ArrayBuffer> {
    assert.equal(codec, "opus");
    this.calls += 1;
    const [mark, counter] = frame;
    if (mark !== 0x55 || counter === undefined) throw new Error("auth: tag");
    if (this.#seen.has(counter)) throw new Error("replayed: counter");
    this.#seen.add(counter);
    return frame.slice(2);
  }

  lastKid(): bigint {
    return this.kid;
  }
}

/** What Chromium's encoder gives for the frame `n`: each packet repeats the `distance` frames before. */
function encoded(n: number, distance: number): EncodedFrame {
  const block = (m: number) => ({ timestamp: timestampOf(m), data: Uint8Array.of(m, m, m) });
  const repeated = Array.from({ length: Math.min(distance, n) }, (_, i) => block(n - Math.min(distance, n) + i));
  return frameOf(writeRed({ payloadType: OPUS, repeated, primary: block(n) }), n);
}

/** Close to where 32 bits end, so that they do. */
function timestampOf(n: number): number {
  return (0xffff_ff00 + n * STEP) >>> 0;
}

function frameOf(data: Uint8Array<ArrayBuffer>, n: number): EncodedFrame {
  return {
    data: data.slice().buffer,
    getMetadata: () => ({ mimeType: "audio/red", rtpTimestamp: timestampOf(n) }),
  };
}

/** The frames that a decoder makes of what was opened. */
function framesOf(frame: EncodedFrame, n: number): number[] {
  const red = parseRed(new Uint8Array(frame.data), timestampOf(n));
  assert.ok(red);
  return [...red.repeated, red.primary].map(({ timestamp, data }) => {
    const [m] = data;
    assert.ok(m !== undefined);
    assert.deepEqual([...data], [m, m, m]);
    assert.equal(timestamp, timestampOf(m));
    return m;
  });
}

test("packets read as RFC 2198 has them", () => {
  const bytes = Uint8Array.of(0x80 | 111, 0x0f, 0x00, 2, 111, 1, 2, 3, 4, 5);
  const red = parseRed(bytes, STEP);
  assert.deepEqual(red, {
    payloadType: 111,
    repeated: [{ timestamp: 0, data: bytes.subarray(5, 7) }],
    primary: { timestamp: STEP, data: bytes.subarray(7) },
  });
  assert.deepEqual(writeRed(red), bytes);
});

test("what is no RED is refused, and nothing is read beyond its end", () => {
  const random = randomFrom(2198);
  for (let round = 0; round < 20_000; round++) {
    const bytes = Uint8Array.from({ length: Math.floor(random() * 24) }, () =>
      random() < 0.5 ? 0x80 | OPUS : Math.floor(random() * 256),
    );
    const red = parseRed(bytes, 0);
    if (red) assert.deepEqual(writeRed(red), Uint8Array.from(bytes));
  }
  for (const bytes of [[], [0xef], [0xef, 0, 0, 1], [0xef, 0, 0, 1, 111], [0xef, 0, 0, 1, 110, 1, 2], [111]]) {
    assert.equal(parseRed(Uint8Array.from(bytes), 0), undefined);
  }
});

test("each frame is sealed once, and what is repeated is what was sent", () => {
  const sealer = new RedSealer();
  const seal = new Seal();
  const tally = new SealTally(0);
  const sent: Uint8Array[] = [];
  for (let n = 0; n < 40; n++) {
    const frame = encoded(n, 2);
    assert.equal(sealFrame(frame, seal, tally, n, 0, sealer), true);
    const red = parseRed(new Uint8Array(frame.data), timestampOf(n));
    assert.ok(red);
    sent.push(red.primary.data);
    assert.deepEqual(red.repeated.map(({ data }) => data), sent.slice(Math.max(0, n - 2), n));
  }
  assert.equal(tally.counters.sealed, 40);
});

test("a frame that was held back is not repeated either", () => {
  const sealer = new RedSealer();
  const seal = new Seal();
  const tally = new SealTally(0);
  assert.equal(sealFrame(encoded(0, 1), undefined, tally, 0, 0, sealer), false);
  const frame = encoded(1, 1);
  assert.equal(sealFrame(frame, seal, tally, 0, 0, sealer), true);
  assert.deepEqual(parseRed(new Uint8Array(frame.data), timestampOf(1))?.repeated, []);
});

test("whatever is lost, doubled or overtaken, each frame opens once, and a single loss costs none", () => {
  for (let seed = 0; seed < 50; seed++) {
    const random = randomFrom(seed);
    const [sealer, opener, seal] = [new RedSealer(), new RedOpener(), new Seal()];
    const [sealed, opened] = [new SealTally(0), new OpenTally(0)];
    const heard: number[] = [];
    const lost: number[] = [];
    const packets: { n: number; frame: EncodedFrame; at: number }[] = [];
    for (let n = 0; n < 200; n++) {
      const frame = encoded(n, 1);
      sealFrame(frame, seal, sealed, n, 0, sealer);
      if (random() < 0.2) lost.push(n);
      else packets.push({ n, frame, at: n + random() * 3 });
      if (random() < 0.05) packets.push({ n, frame: frameOf(new Uint8Array(frame.data.slice(0)), n), at: n + 3 });
    }
    packets.sort((a, b) => a.at - b.at);
    for (const { n, frame } of packets) {
      const outcome = openFrame(frame, seal, opened, n, undefined, opener);
      assert.notEqual(outcome, "failed");
      if (outcome === "pass") heard.push(...framesOf(frame, n));
    }
    const arrived = new Set(packets.map(({ n }) => n));
    const expected = Array.from({ length: 200 }, (_, n) => n).filter((n) => arrived.has(n) || arrived.has(n + 1));
    // Decoders take a frame once; the crypto module opens it once.
    assert.deepEqual([...new Set(heard)].sort((a, b) => a - b), expected);
    assert.ok(opened.counters.repeated > lost.length / 2);
    assert.equal(opened.counters.malformed + opened.counters.inauthentic, 0);
    assert.ok(lost.length > 20);
  }
});

test("on a path that loses nothing, a repetition is not even tried", () => {
  const [sealer, opener, seal] = [new RedSealer(), new RedOpener(), new Seal()];
  for (let n = 0; n < 50; n++) {
    const frame = encoded(n, 2);
    sealFrame(frame, seal, new SealTally(0), n, 0, sealer);
    assert.equal(openFrame(frame, seal, new OpenTally(0), n, undefined, opener), "pass");
    assert.deepEqual(framesOf(frame, n), [n]);
  }
  assert.equal(seal.calls, 50);
});

test("another member's frame does not pass, be it new or repeated", () => {
  const [sealer, seal] = [new RedSealer(), new Seal()];
  const tally = new OpenTally(0);
  for (let n = 0; n < 3; n++) {
    const frame = encoded(n, 1);
    sealFrame(frame, seal, new SealTally(0), n, 0, sealer);
    assert.equal(openFrame(frame, seal, tally, n, 5, new RedOpener()), "failed");
  }
  assert.equal(tally.counters.misattributed + tally.counters.duplicate, 3);
  assert.deepEqual([tally.counters.opened, tally.counters.repeated], [0, 0]);
});
