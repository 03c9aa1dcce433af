// SFrame in WebAssembly: the published vectors of all eight suites, and the error codes that the
// E2EE worker tells apart.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import sealcast, { hex, toHex } from "./module.mjs";

const { FrameOpener, FrameSealer, frameContext, groupKid } = sealcast;
const vectors = async (name) =>
  JSON.parse(await readFile(path.join(import.meta.dirname, "../../sframe/vectors", name)));

test("published vectors of suites 1 to 8", async () => {
  const cases = [
    ...(await vectors("sframe-test-vectors.json")).sframe,
    ...(await vectors("sframe-test-vectors-aes256.json")).sframe_aes_256_ctr_hmac,
  ];
  assert.deepEqual(cases.map((c) => c.cipher_suite), [1, 2, 3, 4, 5, 6, 7, 8]);
  for (const { cipher_suite, kid, ctr, base_key, metadata, pt, ct } of cases) {
    const opener = new FrameOpener(cipher_suite);
    opener.addKey(BigInt(kid), hex(base_key));
    assert.equal(toHex(opener.openBytes(hex(metadata), hex(ct))), pt);
    assert.throws(() => opener.openBytes(hex(metadata), hex(ct)), /^Error: replayed: /);

    // A sealer counts from 0, so the vector's frame is one of many.
    const sealer = new FrameSealer(cipher_suite, BigInt(kid), hex(base_key));
    let sealed;
    while (sealer.counter <= ctr) sealed = sealer.sealBytes(hex(metadata), hex(pt));
    assert.equal(toHex(sealed), ct);
  }
});

const baseKey = new Uint8Array(32).fill(3);
const kid = 0x12_3456_789a_bcden;
const linkPair = () => {
  const opener = new FrameOpener(5);
  opener.setLinkKey(baseKey);
  return { sealer: new FrameSealer(5, kid, baseKey), opener };
};

test("frames of each codec pass from sealer to opener", () => {
  const { sealer, opener } = linkPair();
  for (const [codec, first, clear] of [["opus", 0x78, 0], ["vp8", 0x10, 10], ["vp8", 0x11, 3], ["vp9", 0x82, 0]]) {
    const frame = new Uint8Array(1000).fill(0x55);
    frame[0] = first;
    const before = frame.slice();
    const sealed = sealer.seal(codec, frame);
    assert.deepEqual(frame, before);
    assert.deepEqual(sealed.slice(0, clear), frame.slice(0, clear));
    assert.ok(!toHex(sealed.slice(clear)).includes("55555555"));
    assert.deepEqual(opener.open(codec, sealed), frame);
    assert.equal(opener.lastKid(), kid);
  }
  assert.equal(sealer.kid, kid);
  assert.equal(sealer.counter, 4n);
  assert.equal(frameContext(kid), 0x12345678);
  assert.equal(groupKid(0xabcd, 0x1234, 0x156n), 0xab_cd12_3456n);
});

test("AV1 and H.264 frames are wrapped whole", () => {
  const { sealer, opener } = linkPair();
  const frames = {
    av1: hex("12000a03aabbcc3205" + "5555555555"),
    h264: hex("0000000167424200000001" + "68ce000001" + "6588" + "55".repeat(50)),
  };
  for (const [codec, frame] of Object.entries(frames)) {
    const sealed = sealer.seal(codec, frame);
    assert.ok(!toHex(sealed).includes("5555555555555555"));
    assert.deepEqual(opener.open(codec, sealed), frame);
  }
});

test("empty frames pass and seal nothing", () => {
  const { sealer, opener } = linkPair();
  assert.equal(sealer.seal("opus", new Uint8Array()).length, 0);
  assert.equal(sealer.counter, 0n);
  assert.equal(opener.open("opus", new Uint8Array()).length, 0);
});

test("each refusal has its code", () => {
  const { sealer, opener } = linkPair();
  const code = (action) => {
    try {
      action();
    } catch (error) {
      assert.ok(error instanceof Error);
      return error.message.split(":")[0];
    }
    return "opened";
  };
  const sealed = sealer.seal("opus", new Uint8Array(20));
  const forged = sealed.slice();
  forged[forged.length - 1] ^= 1;
  assert.equal(code(() => opener.open("opus", forged)), "auth");
  assert.equal(code(() => opener.open("opus", sealed.slice(0, 12))), "short");
  assert.equal(code(() => opener.open("opus", Uint8Array.of(0x80, 0, ...Array(40)))), "malformed");
  assert.equal(code(() => opener.open("opus", sealed)), "opened");
  assert.equal(code(() => opener.open("opus", sealed)), "replayed");
  assert.equal(code(() => opener.open("mp3", sealed)), "codec");
  assert.equal(code(() => new FrameOpener(5).open("opus", sealed)), "unknown-kid");
  assert.equal(code(() => new FrameOpener(9)), "suite");
  assert.equal(code(() => new FrameSealer(5, 1n, new Uint8Array(15))), "base-key");
  assert.equal(code(() => sealer.seal("vp8", new Uint8Array(9))), "not-this-codec");
});

test("an epoch's keys go with it", () => {
  const opener = new FrameOpener(5);
  opener.addEpoch(0x105n, 3, baseKey);
  const sealer = new FrameSealer(5, groupKid(1, 2, 0x105n), baseKey);
  opener.open("opus", sealer.seal("opus", new Uint8Array(20)));
  assert.ok(opener.removeEpoch(0x105n, 3));
  assert.throws(() => opener.open("opus", sealer.seal("opus", new Uint8Array(20))), /unknown-kid/);
});
