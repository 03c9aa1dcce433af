import assert from "node:assert/strict";
import { test } from "node:test";
import { VIDEO_CODECS, adjust, encodingsOf } from "../src/encodings.js";

const SOURCES = ["camera", "screen", "imaging"] as const;
const HD = { width: 1280, height: 720 };

/** What a sender has after `addTransceiver`: everything active. */
const sender = (source: (typeof SOURCES)[number], codec = "video/VP8") =>
  encodingsOf(source, codec).map((encoding) => ({ active: true, ...encoding }));

const summary = (encodings: ReturnType<typeof sender>): string =>
  encodings.map(({ active, scaleResolutionDownBy }) => (active ? `1/${scaleResolutionDownBy}` : "-")).join(" ");

test("VP8 and H264 are sent as simulcast, VP9 and AV1 as one stream with layers", () => {
  for (const codec of VIDEO_CODECS) {
    const svc = codec === "video/VP9" || codec === "video/AV1";
    const camera = encodingsOf("camera", codec);
    assert.deepEqual(
      camera.map(({ rid }) => rid),
      svc ? [undefined] : ["q", "h", "f"],
    );
    if (svc) assert.equal(camera[0]?.scalabilityMode, "L3T3_KEY");
  }
  assert.equal(encodingsOf("screen", "video/VP8").length, 2);
});

test("encodings come smallest first, the last one whole, with distinct RIDs", () => {
  for (const source of SOURCES) {
    for (const codec of VIDEO_CODECS) {
      const encodings = encodingsOf(source, codec);
      const scales = encodings.map(({ scaleResolutionDownBy = 1 }) => scaleResolutionDownBy);
      assert.deepEqual(scales, [...scales].sort((a, b) => b - a));
      assert.equal(scales.at(-1), 1);
      const rates = encodings.map(({ maxBitrate = 0 }) => maxBitrate);
      assert.deepEqual(rates, [...rates].sort((a, b) => a - b));
      assert.equal(new Set(encodings.map(({ rid }) => rid)).size, encodings.length);
    }
  }
});

test("imaging has one layer in every codec: there is nothing to degrade it to", () => {
  for (const codec of VIDEO_CODECS) {
    assert.deepEqual(
      encodingsOf("imaging", codec).map(({ scalabilityMode }) => scalabilityMode),
      ["L1T1"],
    );
  }
});

test("what nobody gets is not sent, and sent again when it is wanted", () => {
  const encodings = sender("camera");
  const configured = encodingsOf("camera", "video/VP8");
  assert.equal(adjust(encodings, { configured, active: [], picture: HD }), false);
  assert.equal(adjust(encodings, { configured, active: [true, true, false], picture: HD }), true);
  assert.equal(summary(encodings), "1/4 1/2 -");
  assert.equal(adjust(encodings, { configured, active: [true, true, false], picture: HD }), false);
  assert.equal(adjust(encodings, { configured, active: [true, false, true], picture: HD }), true);
  assert.equal(summary(encodings), "1/4 - 1/1");
});

test("small pictures are sent whole, in fewer encodings", () => {
  const configured = encodingsOf("camera", "video/VP8");
  for (const [width, height, expected] of [
    [1920, 1080, "1/4 1/2 1/1"],
    [960, 540, "1/4 1/2 1/1"],
    [640, 360, "1/2 1/1 -"],
    [360, 640, "1/2 1/1 -"],
    [320, 180, "1/1 - -"],
    [0, 0, "1/4 1/2 1/1"],
  ] as const) {
    const encodings = sender("camera");
    adjust(encodings, { configured, active: [], picture: { width, height } });
    assert.equal(summary(encodings), expected, `${width}x${height}`);
  }
});

test("the only encoding is always sent, whatever the relay says of more", () => {
  const encodings = sender("camera");
  const configured = encodingsOf("camera", "video/VP8");
  adjust(encodings, { configured, active: [false, false, false], picture: { width: 320, height: 180 } });
  assert.equal(summary(encodings), "1/1 - -");
});

test("where the relay takes no simulcast, the encoding that is left is the whole picture", () => {
  const configured = encodingsOf("camera", "video/VP8");
  const encodings = sender("camera").slice(0, 1);
  assert.equal(adjust(encodings, { configured, active: [], picture: HD }), true);
  assert.equal(summary(encodings), "1/1");
  assert.equal(encodings[0]?.maxBitrate, configured.at(-1)?.maxBitrate);
  assert.equal(adjust(encodings, { configured, active: [], picture: HD }), false);
});

test("streams with layers are left as they are", () => {
  for (const source of SOURCES) {
    const encodings = sender(source, "video/AV1");
    const configured = encodingsOf(source, "video/AV1");
    assert.equal(adjust(encodings, { configured, active: [false], picture: { width: 64, height: 64 } }), false);
    assert.ok(encodings.every(({ active }) => active));
  }
});
