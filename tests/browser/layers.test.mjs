/**
 * Layers of sealed pictures through a real browser's decoder: VP8 and H264 as simulcast, VP9 and AV1
 * as one stream with spatial layers. The receiver says again and again that it shows the picture small,
 * then large; the relay, which has no key, changes what it forwards. Nothing may fail to open or to
 * decode, and the picture may not stand still.
 *
 * A browser that cannot decode a frame asks for a key frame, so that none asked for means none
 * failed. Standing still is judged by RTP timestamps and not by the clock of a busy machine.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launchChromium } from "./lib/browsers.mjs";
import { counts, join, newConsult, stats, waitConnected, waitOpened } from "./lib/consult.mjs";
import { arrival, gaps, longest, recordTile, recordedFrames, waitWidth } from "./lib/frames.mjs";
import { startRelay } from "./lib/relay.mjs";

const MAX_FREEZE_MS = 300;
/** A key frame in 500 ms is what the relay asks for at most; changes are at least this far apart. */
const PLI_PER_CHANGE = 2;

/** How long an encoding must send nothing, while others send, to have ceased, in ms. */
const CEASED_MS = 2_000;
/** An encoding is unwanted after five seconds (docs/LIMITS.md); the rest is for slow machines. */
const SENDING_DEADLINE_MS = 60_000;

/** Sizes that the receiver asks for in turn, and the width that it must get. */
const SIMULCAST = [
  [[200, 120], 240],
  [[900, 500], 960],
  [[400, 240], 480],
  [[200, 120], 240],
  [[900, 500], 960],
];
const SVC = [
  [[200, 120], 320],
  [[640, 360], 640],
  [[200, 120], 320],
  [[640, 360], 640],
];

let chromium;
let relay;

before(async () => {
  [chromium, relay] = await Promise.all([launchChromium(), startRelay({ rooms: `keys = "link"` })]);
});

after(async () => {
  await chromium?.close();
  await relay?.stop();
});

test("VP8 simulcast through forced changes of encoding", () => throughChanges("VP8", "960x540@15", SIMULCAST));
test("H264 simulcast through forced changes of encoding", () => throughChanges("H264", "960x540@15", SIMULCAST));
test("VP9 SVC through forced changes of layer", () => throughChanges("VP9", "640x360@15", SVC));
test("AV1 SVC through forced changes of layer", () => throughChanges("AV1", "640x360@15", SVC));

test("encodings that no window needs are not sent, and are for one that does, through a restart of the relay", async () => {
  const pages = [];
  try {
    const [publisher, viewer] = await callOfTwo(pages, { codec: "VP8", video: "960x540@15" });
    // The smallest is always sent: a picture is there as soon as somebody looks.
    await waitSending(publisher, { sent: ["q", "f"], ceased: ["h"] });
    await viewer.resize(180, 400);
    await waitSending(publisher, { sent: ["q"], ceased: ["h", "f"] });

    const former = pages.map(({ participant }) => participant);
    await relay.restart();
    for (const page of pages) page.participant = await page.waitFor("joining afresh", rejoined, former);
    await waitOpened(viewer, [publisher.participant], 10, ["camera"]);
    await waitSending(publisher, { sent: ["q"], ceased: ["h", "f"] });
    await recordTile(viewer, publisher.participant);
    await waitWidth(viewer, publisher.participant, 240);

    await viewer.resize(1280, 800);
    await waitSending(publisher, { sent: ["q", "f"], ceased: ["h"] });
    await waitWidth(viewer, publisher.participant, 960);
  } finally {
    for (const page of pages) await page.close();
  }
});

/** In the page: its pseudonym, once it has a new one. */
function rejoined(former) {
  const { room } = window.sealcast;
  return room?.state === "connected" && !former.includes(room.participant) && room.participant;
}

async function throughChanges(codec, video, changes) {
  const pages = [];
  try {
    const [publisher, viewer] = await callOfTwo(pages, { codec, video });
    const initial = changes.at(-1)[1];
    const tile = publisher.participant;
    await recordTile(publisher, "self");
    await recordTile(viewer, tile);
    await waitWidth(viewer, tile, initial);
    const before = await received(viewer, publisher);
    const upstream = await relay.metric("sealcast_rtcp_sent_total", { type: "pli" });
    const first = (await recordedFrames(viewer, tile)).length - 1;

    for (const [size, width] of changes) {
      await setSize(viewer, publisher, size);
      await waitWidth(viewer, tile, width);
    }

    const frames = (await recordedFrames(viewer, tile)).slice(first);
    const after = await received(viewer, publisher);
    const asked = (await relay.metric("sealcast_rtcp_sent_total", { type: "pli" })) - upstream;
    const freeze = longest(gaps(frames));
    const captured = longest(gaps(await recordedFrames(publisher, "self"), arrival));
    console.log(
      `${codec}: ${changes.length} changes of layer, ${frames.length} frames decoded, ` +
        `${after.framesDropped - before.framesDropped} dropped, ` +
        `${after.keyFrameRequests - before.keyFrameRequests} failed; longest gap ${freeze.toFixed(0)} ms ` +
        `(camera: ${captured.toFixed(0)} ms; on the clock ${longest(gaps(frames, arrival)).toFixed(0)} ms); ` +
        `${asked} key frames asked of the publisher`,
    );
    const seal = (await counts(viewer))[publisher.participant].camera;
    const { unknownKey, inauthentic, misattributed, malformed } = seal;
    assert.deepEqual({ unknownKey, inauthentic, misattributed, malformed }, NO_FAILURES, "every frame opened");
    assert.equal(after.codec, codec);
    assert.equal(after.keyFrameRequests, before.keyFrameRequests, "the decoder failed at no frame");
    assert.ok(after.framesDecoded - before.framesDecoded >= frames.length - 1, "what is shown was decoded");
    assert.ok(frames.every(({ rtp }) => rtp !== null), "frames have RTP timestamps");
    assert.ok(gaps(frames).every((gap) => gap > 0), "time runs forward across the changes");
    assert.ok(freeze - captured < MAX_FREEZE_MS, `stood still for ${freeze} ms, the camera for ${captured} ms`);
    assert.ok(asked <= PLI_PER_CHANGE * changes.length, `${asked} key frames for ${changes.length} changes`);
    await assertKeys(publisher, codec);
  } finally {
    for (const page of pages) await page.close();
  }
}

const NO_FAILURES = { unknownKey: 0, inauthentic: 0, misattributed: 0, malformed: 0 };

/** One who sends in this codec, and one who looks. */
async function callOfTwo(pages, options) {
  const consult = newConsult({ options });
  const small = newConsult({ ...consult, options: { video: "160x90@5" } });
  for (const link of [consult, small]) pages.push(await join(chromium, relay, link, undefined, keepConnections));
  const [publisher, viewer] = pages;
  for (const page of pages) await waitConnected(page);
  await waitOpened(viewer, [publisher.participant], 10, ["camera"]);
  return [publisher, viewer];
}

/** Ahead of the page's own scripts: keeps its peer connections where the test can ask them. */
function keepConnections() {
  window.connections = [];
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...options) {
      super(...options);
      window.connections.push(this);
    }
  };
}

/** Bytes that each of the camera's encodings has sent, by RID. */
function bytesSent(publisher) {
  return publisher.evaluate(async () => {
    const { sending } = await window.sealcast.room.stats();
    const camera = sending.find(({ source }) => source === "camera")?.mid;
    const rows = [...(await window.connections.at(-1).getStats()).values()];
    const encodings = rows.filter(({ type, mid, rid }) => type === "outbound-rtp" && mid === camera && rid);
    return Object.fromEntries(encodings.map(({ rid, bytesSent }) => [rid, bytesSent]));
  });
}

/** Waits until, for a while, the encodings `sent` grow and those that have `ceased`, after they were sent, do not. */
async function waitSending(publisher, { sent, ceased }) {
  const deadline = performance.now() + SENDING_DEADLINE_MS;
  for (let before = await bytesSent(publisher); ; ) {
    await new Promise((resolve) => setTimeout(resolve, CEASED_MS));
    const after = await bytesSent(publisher);
    const grown = (rid) => after[rid] > before[rid];
    const stands = (rid) => after[rid] > 0 && after[rid] === before[rid];
    if (sent.every(grown) && ceased.every(stands)) return;
    const seen = JSON.stringify([before, after]);
    assert.ok(performance.now() < deadline, `waited for ${sent} to be sent and ${ceased} not to be: ${seen}`);
    before = after;
  }
}

/** Each encoding that sent was sealed under a key of its own, and was announced as such. */
async function assertKeys(publisher, codec) {
  const { sending } = await stats(publisher);
  const { encodings } = sending.find(({ source }) => source === "camera");
  const keyIds = await publisher.evaluate(
    () => window.sealcast.room.publications.find(({ source }) => source === "camera").seal.keyIds,
  );
  assert.equal(encodings.length, codec === "VP8" || codec === "H264" ? 3 : 1);
  assert.equal(keyIds.length, encodings.length);
  assert.equal(new Set(keyIds).size, keyIds.length);
}

async function received(viewer, publisher) {
  const { receiving } = await stats(viewer);
  return receiving.find(({ source, participant }) => source === "camera" && participant === publisher.participant);
}

function setSize(viewer, publisher, size) {
  return viewer.evaluate(
    ({ size, participant }) => {
      const { room } = window.sealcast;
      const tracks = [...room.participants.get(participant).tracks.values()];
      room.setSize(tracks.find(({ source }) => source === "camera"), size);
    },
    { size, participant: publisher.participant },
  );
}
