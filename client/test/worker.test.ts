import assert from "node:assert/strict";
import { test } from "node:test";
import { FAILURES_BEFORE_FAILING, OpenTally, SealTally } from "../src/worker/counters.js";
import { EncodingIndex } from "../src/worker/encoding-index.js";
import { type EncodedFrame, type Opener, openFrame, sealFrame } from "../src/worker/frames.js";
import { KidSource } from "../src/worker/kid.js";
import { randomFrom } from "./random.js";

const frameOf = (bytes: number[], mimeType = "video/VP8"): EncodedFrame => ({
  data: new Uint8Array(bytes).buffer,
  getMetadata: () => ({ mimeType }),
});

/** Stands in for the crypto module: "seals" by a prefix, and fails as told. */
class DoubleOpener implements Opener {
  failWith: string | undefined;
  readonly codecs: string[] = [];

  open(codec: string, frame: Uint8Array): Uint8Array<ArrayBuffer> {
    this.codecs.push(codec);
    if (this.failWith !== undefined) throw new Error(this.failWith);
    return frame.slice(1);
  }

  lastKid(): bigint {
    return 0xabcdn;
  }
}

test("key ids have 56 bits and never share a context", () => {
  const kids = new KidSource();
  const seen = new Set<bigint>();
  const contexts = new Set<bigint>();
  for (let n = 0; n < 10_000; n++) {
    const kid = kids.next();
    assert.ok(kid >= 0n && kid < 1n << 56n);
    seen.add(kid);
    contexts.add(kid >> 24n);
  }
  assert.equal(seen.size, 10_000);
  assert.equal(contexts.size, 10_000);
});

test("a source of randomness that repeats itself does not make a key id repeat", () => {
  const random = randomFrom(7);
  let repeats = 0;
  let last = new Uint8Array(7);
  const kids = new KidSource((into) => {
    if (repeats++ % 3 === 0) last = Uint8Array.from(last, () => Math.floor(random() * 256));
    into.set(last);
  });
  const contexts = new Set(Array.from({ length: 500 }, () => kids.next() >> 24n));
  assert.equal(contexts.size, 500);
});

test("nothing leaves without a sealer, and nothing leaves when sealing fails", () => {
  const tally = new SealTally(0);
  const frame = frameOf([1, 2, 3]);
  assert.equal(sealFrame(frame, undefined, tally, 5), false);
  const broken = {
    kid: 1n,
    seal: (): Uint8Array<ArrayBuffer> => {
      throw new Error("exhausted");
    },
  };
  const silenced = console.error;
  console.error = () => undefined;
  try {
    assert.equal(sealFrame(frame, broken, tally, 6), false);
  } finally {
    console.error = silenced;
  }
  assert.deepEqual(
    { ...tally.counters },
    { sealed: 0, withheld: 2, keyIds: [], state: "withheld", since: 5 },
  );
});

test("a sealed frame replaces the clear one, and is counted with its key id", () => {
  const tally = new SealTally(0);
  const frame = frameOf([1, 2]);
  const sealer = { kid: 0x2an, seal: (_codec: string, bytes: Uint8Array) => Uint8Array.of(9, ...bytes) };
  assert.equal(sealFrame(frame, sealer, tally, 3), true);
  assert.deepEqual([...new Uint8Array(frame.data)], [9, 1, 2]);
  assert.deepEqual({ ...tally.counters }, { sealed: 1, withheld: 0, keyIds: ["2a"], state: "sealing", since: 3 });
});

test("each encoding shows its key id, of the newest frame", () => {
  const tally = new SealTally(0);
  for (const [kid, encoding] of [[0xa1n, 0], [0xb1n, 1], [0xa1n, 0], [0xa2n, 0]] as const) tally.onSealed(1, kid, encoding);
  assert.deepEqual(tally.counters.keyIds, ["a2", "b1"]);
  assert.equal(tally.counters.sealed, 4);
});

test("encodings are told apart by SSRC, and each keeps its index", () => {
  const index = new EncodingIndex();
  assert.deepEqual([700, 7, 70, 7, 700, 70].map((ssrc) => index.of(ssrc, 3)), [0, 1, 2, 1, 0, 2]);
  // 7 has been silent the longest.
  assert.equal(index.of(9, 3), 1);
  assert.deepEqual([700, 70, 9].map((ssrc) => index.of(ssrc, 3)), [0, 2, 1]);
});

test("no two encodings that send at the same time share an index, whatever SSRCs come", () => {
  const random = randomFrom(11);
  for (let round = 0; round < 200; round++) {
    const count = 1 + Math.floor(random() * 4);
    const index = new EncodingIndex();
    let live = Array.from({ length: count }, (_, n) => round * 100 + n);
    for (let step = 0; step < 50; step++) {
      // A conflict renames one encoding, the others go on.
      if (random() < 0.1) live = live.map((ssrc, n) => (n === step % count ? ssrc + 10_000 : ssrc));
      live.forEach((ssrc) => index.of(ssrc, count));
      const indices = live.map((ssrc) => index.of(ssrc, count));
      assert.equal(new Set(indices).size, count);
      assert.ok(indices.every((n) => n >= 0 && n < count));
    }
  }
});

test("empty frames pass out as they are, and are ignored coming in", () => {
  const seal = new SealTally(0);
  assert.equal(sealFrame(frameOf([]), undefined, seal, 1), true);
  assert.equal(seal.counters.state, "waiting");
  const open = new OpenTally(0);
  assert.equal(openFrame(frameOf([], "audio/opus"), new DoubleOpener(), open, 1), "ignore");
  assert.equal(open.counters.empty, 1);
  assert.equal(open.counters.state, "waiting");
});

test("a copy of a frame is ignored and no failure", () => {
  const tally = new OpenTally(0);
  const opener = new DoubleOpener();
  assert.equal(openFrame(frameOf([7, 1]), opener, tally, 1), "pass");
  opener.failWith = "replayed: counter 4";
  for (let n = 0; n < 10; n++) assert.equal(openFrame(frameOf([7, 1]), opener, tally, 2), "ignore");
  assert.equal(tally.counters.state, "open");
  assert.equal(tally.counters.duplicate, 10);
});

test("each failure is counted under its reason, and several in a row are a state", () => {
  const tally = new OpenTally(0);
  const opener = new DoubleOpener();
  assert.equal(openFrame(frameOf([7, 1], "audio/opus"), opener, tally, 1), "pass");
  assert.deepEqual(opener.codecs, ["opus"]);
  const reasons = ["unknown-kid: 12", "auth: tag", "short: 3 bytes", "malformed: header"];
  for (const [index, reason] of reasons.entries()) {
    opener.failWith = reason;
    assert.equal(openFrame(frameOf([7, 1]), opener, tally, 10 + index), "failed");
    assert.equal(tally.counters.state, index + 1 < FAILURES_BEFORE_FAILING ? "open" : "failing");
  }
  const { opened, unknownKey, inauthentic, malformed, since, keyId } = tally.counters;
  assert.deepEqual([opened, unknownKey, inauthentic, malformed, since], [1, 1, 1, 2, 10 + FAILURES_BEFORE_FAILING - 1]);
  assert.equal(keyId, "abcd");
  opener.failWith = undefined;
  openFrame(frameOf([7, 1]), opener, tally, 99);
  assert.equal(tally.counters.state, "open");
  assert.equal(tally.counters.since, 99);
});
