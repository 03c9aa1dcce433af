import assert from "node:assert/strict";
import { test } from "node:test";
import { FROZEN_MS, LIMITED_SAMPLES, QualityMeter } from "../page/quality.js";
import type { EncodingStats, ReceiveStats, SendStats } from "../src/index.js";

const received = (framesDecoded: number, height = 360) => ({ framesDecoded, height }) as ReceiveStats;
const sent = (...limitations: (string | null)[]) =>
  ({
    height: 720,
    encodings: limitations.map((limitation) => ({ active: limitation !== null, limitation }) as EncodingStats),
  }) as SendStats;

test("a picture that moves shows its height", () => {
  const meter = new QualityMeter();
  for (let second = 0; second < 20; second++) {
    const { state, label, message } = meter.received(received(second * 15 + 1), "camera", true, false, second * 1_000);
    assert.deepEqual([state, label, message], ["good", "360p", ""]);
  }
});

test("a picture that stands still is called frozen, and no longer when it moves", () => {
  const meter = new QualityMeter();
  const at = (now: number, frames: number): string => meter.received(received(frames), "camera", true, false, now).state;
  assert.equal(at(0, 30), "good");
  assert.equal(at(FROZEN_MS.camera - 1, 30), "good");
  assert.equal(at(FROZEN_MS.camera, 30), "frozen");
  assert.equal(at(FROZEN_MS.camera + 1, 31), "good");
});

test("a shared screen may be still for longer than a face", () => {
  const meter = new QualityMeter();
  meter.received(received(5), "screen", true, false, 0);
  assert.equal(meter.received(received(5), "screen", true, false, FROZEN_MS.camera).state, "good");
});

test("paused imaging says that it is not shown in less; nothing counts as frozen after it", () => {
  const meter = new QualityMeter();
  meter.received(received(9), "imaging", true, false, 0);
  const paused = meter.received(received(9), "imaging", true, true, 60_000);
  assert.equal(paused.state, "withheld");
  assert.match(paused.message, /never shown in lower quality/);
  assert.equal(meter.received(received(9), "camera", true, true, 60_000).state, "paused");
  assert.equal(meter.received(received(9), "imaging", true, false, 61_000).state, "good");
});

test("nothing is said of what is muted, hidden, or has not begun", () => {
  const meter = new QualityMeter();
  assert.equal(meter.received(undefined, "camera", true, false, 0).state, "none");
  assert.equal(meter.received(undefined, "camera", true, false, 99_000).state, "none");
  assert.equal(meter.received(received(7), "camera", false, false, 99_000).state, "none");
  assert.equal(meter.received(received(7), "camera", true, false, 199_000).state, "good", "shown again");
});

test("one's own picture is called limited after a while, for encodings that are sent", () => {
  const meter = new QualityMeter();
  assert.equal(meter.sent(undefined).state, "none");
  for (let n = 1; n < LIMITED_SAMPLES; n++) assert.equal(meter.sent(sent("none", "bandwidth")).state, "good");
  const limited = meter.sent(sent("none", "bandwidth"));
  assert.equal(limited.state, "limited");
  assert.match(limited.message, /connection/);
  assert.match(meter.sent(sent("cpu")).message, /device/);
  assert.equal(meter.sent(sent("none", null)).state, "good");
});
