/**
 * Calls over a bad network, with real browsers and real sockets: the relay and two people with good
 * connections at one end of an impaired path, a third person at the other. Needs root.
 *
 * Figures are printed. What is demanded holds on any machine: the call goes on, losses are repaired
 * by retransmission, nothing fails to open or decode, and nobody else notices.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as joinPath } from "node:path";
import { after, before, test } from "node:test";
import { addresses, openNetlab } from "../lib/netlab.mjs";
import { launchChromium } from "./lib/browsers.mjs";
import { counts, join, newConsult, stats, waitConnected, waitOpened } from "./lib/consult.mjs";
import { arrival, gaps, longest, recordTile, recordedFrames, waitWidth } from "./lib/frames.mjs";
import { writeNoise } from "./lib/noise.mjs";
import { startRelay } from "./lib/relay.mjs";

/** Of the fake camera: three encodings of up to 150, 500 and 1,700 kbit/s. */
const CAMERA = { width: 960, height: 540, fps: 15 };
const DELAY_MS = 25;
const MAX_FREEZE_MS = 300;

const lossy = (probability) => ({ delay: DELAY_MS, loss: { model: "uniform", probability } });
const capped = (mbits) => ({
  delay: DELAY_MS,
  // A queue of 200 ms: a home router's.
  rate: { bits_per_second: mbits * 1e6, queue_bytes: (mbits * 1e6 * 0.2) / 8 },
});

let directory;
let lab;
let relay;
let near;
let far;

before(async () => {
  directory = mkdtempSync(joinPath(tmpdir(), "sealcast-network-"));
  const noise = joinPath(directory, "noise.y4m");
  writeNoise(noise, CAMERA);
  lab = await openNetlab({ seed: 7, seconds: 600 });
  relay = await startRelay({ address: addresses.b, lab, rooms: `keys = "link"` });
  // Cameras exist on secure origins only; the address in the namespace counts as one here.
  const trust = `--unsafely-treat-insecure-origin-as-secure=${relay.url}`;
  near = await launchChromium([trust, `--use-file-for-fake-video-capture=${noise}`], { inside: lab.names.b });
  far = await launchChromium([trust], { inside: lab.names.a });
});

after(async () => {
  await near?.close();
  await far?.close();
  await relay?.stop();
  const links = await lab?.close();
  if (links) console.log(`paths: ${JSON.stringify(links)}`);
  rmSync(directory, { recursive: true, force: true });
});

test("loss, and a path that narrows and widens again", async () => {
  const call = await openCall();
  try {
    const { publisher, viewer, remote } = call;
    let uplinkRepairs = 0;
    for (const probability of [0.02, 0.1]) {
      both(lossy(probability));
      const phase = await watch(call, `${probability * 100} % loss each way, 50 ms RTT`, () => seconds(8));
      assert.ok(phase.far.nacks > 0 && phase.far.repaired > 0, "losses were asked for and repaired");
      assert.ok(phase.resent > 0, "the relay sent again");
      uplinkRepairs += phase.uplinkRepairs;
      assert.ok(phase.saved > 0, "redundancy saved words");
      assert.equal(phase.near.width, CAMERA.width, "others get the best there is");
    }

    assert.ok(uplinkRepairs > 0, "the far publisher's losses were repaired on the way to the relay");

    both(capped(3));
    await watch(call, "3 Mbit/s", () => waitWidth(remote, publisher.participant, CAMERA.width, 30));
    both(capped(0.5));
    const narrow = await watch(call, "0.5 Mbit/s", async () => {
      await remote.waitFor("a smaller picture", isNarrower, { tile: publisher.participant, width: CAMERA.width });
      await seconds(6);
    });
    assert.ok(narrow.far.width < CAMERA.width, "a layer that fits");
    assert.equal(narrow.near.width, CAMERA.width, "the publisher did not lower its best for the rest");
    both(capped(3));
    await watch(call, "3 Mbit/s again", () => waitWidth(remote, publisher.participant, CAMERA.width, 30));

    await assertAllOpened(viewer, [publisher, remote]);
    await assertAllOpened(remote, [publisher]);
    const ofNear = await recordedFrames(viewer, publisher.participant);
    const camera = longest(gaps(await recordedFrames(publisher, "self"), arrival));
    const gap = longest(gaps(ofNear));
    console.log(`throughout, near to near: ${ofNear.length} frames, longest gap ${gap.toFixed(0)} ms (camera: ${camera.toFixed(0)} ms)`);
    assert.ok(gap - camera < MAX_FREEZE_MS, "those with good connections notice nothing");
    assert.ok(ofNear.every(({ width }) => width === CAMERA.width), "and get nothing smaller");
  } finally {
    await call.close();
  }
});

test("a diagnostic picture that does not fit is paused, said to be, and comes back whole", async () => {
  const call = await openCall();
  try {
    const { publisher, viewer, remote } = call;
    const track = await publishImaging(publisher);
    for (const page of [viewer, remote]) {
      await page.waitFor("the diagnostic picture", showsLive, track);
      await recordTile(page, track);
      await waitWidth(page, track, CAMERA.width);
    }
    both(capped(0.5));
    await remote.waitFor("the word that it is paused", (tile) => {
      const element = document.querySelector(`[data-tile="${tile}"]`);
      return element?.dataset.quality === "withheld" && /never shown in lower quality/.test(element.textContent);
    }, track);
    assert.ok((await relay.metric("sealcast_diagnostic_pauses_total")) > 0, "operators see it");
    assert.ok(await remote.evaluate(pausedBy, track), "the SDK tells");
    const atPause = (await recordedFrames(remote, track)).length;
    const elsewhere = (await recordedFrames(viewer, track)).length;
    await seconds(3);
    assert.ok((await recordedFrames(remote, track)).length - atPause <= 2, "nothing is shown meanwhile");
    assert.ok((await recordedFrames(viewer, track)).length > elsewhere, "others see it still");

    both({ delay: DELAY_MS });
    await remote.waitFor("the picture again", (tile) => document.querySelector(`[data-tile="${tile}"]`)?.dataset.quality === "good", track);
    await remote.waitFor("new frames", ({ tile, count }) => window.recordings[tile].length > count + 10, { tile: track, count: atPause });
    const widths = new Set((await recordedFrames(remote, track)).map(({ width }) => width));
    assert.deepEqual([...widths], [CAMERA.width], "whole, or not at all");
    console.log(`diagnostic: paused after ${atPause} frames, ${(await recordedFrames(remote, track)).length} at the end, all ${CAMERA.width} wide`);
  } finally {
    await call.close();
  }
});

/** Two at the near end, of whom one sends a large picture, and one at the far end, who sends a small one. */
async function openCall() {
  both({});
  const pages = [];
  const close = async () => {
    for (const page of pages) await page.close();
  };
  try {
    const consult = newConsult({ options: { video: `${CAMERA.width}x${CAMERA.height}@${CAMERA.fps}` } });
    const onlooker = newConsult({ ...consult, options: { video: "160x90@5" } });
    const small = newConsult({ ...consult, options: { video: "320x180@15" } });
    pages.push(await join(near, relay, consult), await join(near, relay, onlooker), await join(far, relay, small));
    const [publisher, viewer, remote] = pages;
    for (const page of pages) await waitConnected(page);
    for (const page of [viewer, remote]) await waitOpened(page, [publisher.participant], 10, ["camera"]);
    await waitOpened(viewer, [remote.participant], 10, ["camera"]);
    await recordTile(publisher, "self");
    for (const page of [viewer, remote]) {
      await recordTile(page, publisher.participant);
      await show(page, publisher, [CAMERA.width, CAMERA.height]);
      await waitWidth(page, publisher.participant, CAMERA.width);
    }
    // What came before was smaller while the path was new.
    await viewer.evaluate((tile) => void (window.recordings[tile].length = 0), publisher.participant);
    return { publisher, viewer, remote, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The same impairment both ways. */
function both(config) {
  for (const direction of ["ab", "ba"]) lab.change(direction, config);
}

const seconds = (count) => new Promise((resolve) => setTimeout(resolve, count * 1_000));

/** What happened to everybody's pictures meanwhile; prints it, and demands that all went on. */
async function watch(call, name, meanwhile) {
  const look = async () => ({
    far: await picture(call.remote, call.publisher),
    near: await picture(call.viewer, call.publisher),
    fromFar: await picture(call.viewer, call.remote),
    resent: await relay.metric("sealcast_retransmissions_total", { outcome: "sent" }),
    uplinkRepairs: await relay.metric("sealcast_repairs_received_total"),
    voice: (await counts(call.remote))[call.publisher.participant].audio,
  });
  const before = await look();
  const started = performance.now();
  await meanwhile();
  const passed = (performance.now() - started) / 1_000;
  const after = await look();
  const phase = { resent: after.resent - before.resent, uplinkRepairs: after.uplinkRepairs - before.uplinkRepairs, saved: after.voice.repeated - before.voice.repeated };
  for (const path of ["far", "near", "fromFar"]) phase[path] = difference(before[path], after[path]);
  const { relayEstimate } = (await stats(call.remote)).transport;
  console.log(`${name}, ${passed.toFixed(1)} s: relay sent ${phase.resent} again, publishers ${phase.uplinkRepairs}; ${phase.saved} of ${after.voice.opened - before.voice.opened + phase.saved} frames of voice by redundancy; estimate ${relayEstimate === null ? "-" : `${(relayEstimate / 1e6).toFixed(2)} Mbit/s`}`);
  for (const [path, label] of [["far", "good → bad path"], ["near", "good → good path"], ["fromFar", "bad → good path"]]) {
    const { framesDecoded, freezes, frozenMs, nacks, repaired, keyFrameRequests, width } = phase[path];
    console.log(`  ${label}: ${framesDecoded} frames, ${width} wide, ${freezes} freezes of ${frozenMs.toFixed(0)} ms, ${nacks} NACKs, ${repaired} by RTX, ${keyFrameRequests} PLIs`);
    assert.ok(framesDecoded > 0, `${name}, ${label}: the call goes on`);
  }
  assert.equal(phase.near.keyFrameRequests, 0, "no decoder failed at the good end");
  return phase;
}

function difference(before, after) {
  const counters = ["framesDecoded", "freezes", "frozenMs", "nacks", "repaired", "keyFrameRequests"];
  const grown = Object.fromEntries(counters.map((name) => [name, (after[name] ?? 0) - (before[name] ?? 0)]));
  return { ...grown, width: after.width };
}

async function picture(viewer, publisher) {
  const { receiving } = await stats(viewer);
  return receiving.find(({ source, participant }) => source === "camera" && participant === publisher.participant);
}

async function assertAllOpened(viewer, publishers) {
  const seen = await counts(viewer);
  for (const { participant } of publishers) {
    const { unknownKey, inauthentic, misattributed, malformed } = seen[participant].camera;
    assert.deepEqual({ unknownKey, inauthentic, misattributed, malformed }, { unknownKey: 0, inauthentic: 0, misattributed: 0, malformed: 0 });
  }
}

function show(page, publisher, size) {
  return page.evaluate(
    ({ size, participant }) => {
      const { room } = window.sealcast;
      const tracks = [...room.participants.get(participant).tracks.values()];
      room.setSize(tracks.find(({ source }) => source === "camera"), size);
    },
    { size, participant: publisher.participant },
  );
}

/** Publishes a second take of the camera as imaging; returns the relay's id of the track. */
function publishImaging(page) {
  return page.evaluate(async () => {
    const { room } = window.sealcast;
    const camera = room.publications.find(({ source }) => source === "camera");
    const media = camera.media.clone();
    await media.applyConstraints({ frameRate: 5 });
    return (await room.publish(media, { source: "imaging" })).track;
  });
}

function showsLive(tile) {
  const element = document.querySelector(`[data-tile="${tile}"]`);
  return element?.dataset.seal === "sealed" && element.classList.contains("has-video") && element.dataset.quality === "good";
}

function pausedBy(id) {
  const { room } = window.sealcast;
  const tracks = [...room.participants.values()].flatMap(({ tracks }) => [...tracks.values()]);
  return room.isPaused(tracks.find(({ track }) => track === id));
}

function isNarrower({ tile, width }) {
  return window.recordings[tile].at(-1)?.width < width;
}
