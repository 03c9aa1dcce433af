/** What becomes of a browser's `getStats` rows. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { StatsSampler } from "../src/stats.js";

const encoding = (rid: string, fields: object): object => ({
  id: `out-${rid}`,
  type: "outbound-rtp",
  kind: "video",
  mid: "1",
  rid,
  timestamp: 1_000,
  bytesSent: 0,
  packetsSent: 0,
  ...fields,
});

test("a line's encodings are listed smallest first, those that were never sent last", () => {
  const rows = [
    encoding("f", { active: false }),
    encoding("h", { active: true, frameWidth: 640, frameHeight: 360 }),
    encoding("q", { active: true, frameWidth: 320, frameHeight: 180 }),
  ];
  const line = new StatsSampler().digest(rows).outbound.get("1");
  assert.deepEqual(line?.encodings.map(({ rid }) => rid), ["q", "h", "f"]);
  assert.deepEqual([line.width, line.height], [640, 360], "the line's figures are those of the largest that is sent");
});

test("an encoding that sends nothing any more is not the line's picture", () => {
  const sampler = new StatsSampler();
  const at = (timestamp: number, bytes: number): object[] => [
    encoding("h", { timestamp, active: true, bytesSent: 5_000, frameWidth: 640, frameHeight: 360 }),
    encoding("q", { timestamp, active: true, bytesSent: bytes, frameWidth: 320, frameHeight: 180 }),
  ];
  sampler.digest(at(1_000, 1_000));
  const line = sampler.digest(at(2_000, 2_000)).outbound.get("1");
  assert.equal(line?.width, 320);
  assert.equal(line.bitrate, 8_000);
});
