/**
 * Who is seen and heard where there are more people than places: three publishers, and one who looks
 * on with two slots of each kind, in a room of whose voices the two loudest are forwarded.
 *
 * Whether somebody gets something is judged by counters that go on or stand still together: that one
 * stands still counts only while another goes on, however slow the machine is.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launchChromium, launchChromiumWithTabs } from "./lib/browsers.mjs";
import { counts, join, newConsult, stats, waitConnected, waitOpened } from "./lib/consult.mjs";
import { startRelay } from "./lib/relay.mjs";

const SLOTS = 2;
const LOUDEST = 2;

/** How long a counter must not move to stand still, in ms. */
const STILL_MS = 2_000;
const DEADLINE_MS = 60_000;

/** Amplitudes of a tone: one that is loud, one 26 dB below it that still counts as speaking. */
const LOUD = 0.5;
const SOFT = 0.025;
const SILENT = 0;

let chromium;
let tabs;
let relay;
/** In the order in which they joined. */
let publishers;
let viewer;

before(async () => {
  relay = await startRelay({ rooms: `keys = "link"`, media: `loudest = ${LOUDEST}` });
  [chromium, tabs] = await Promise.all([launchChromium(), launchChromiumWithTabs()]);
  const consult = newConsult();
  publishers = [];
  for (let n = 0; n < 3; n++) {
    const page = await join(chromium, relay, consult);
    await waitConnected(page);
    await speak(page, SILENT);
    publishers.push(page);
  }
  const onlooker = newConsult({ ...consult, options: { video: "160x90@5", slots: SLOTS } });
  viewer = await join(tabs, relay, onlooker);
  await speak(viewer, SILENT);
});

after(async () => {
  for (const page of [...(publishers ?? []), viewer]) await page?.close();
  await tabs?.close();
  await chromium?.close();
  await relay?.stop();
});

test("of three people two are shown, and of the third the page says so", async () => {
  const [first, second, third] = publishers;
  await waitShown(viewer, [first, second]);
  await waitNote(viewer, third, "Not heard: all places are taken");
  await waitOpened(viewer, ids([first, second]), 20, ["camera"]);
  assert.deepEqual((await counts(viewer))[third.participant], { audio: null, camera: null }, "nothing came of the third");
});

test("who speaks takes the place of the last of those who never spoke", async () => {
  const [first, second, third] = publishers;
  await speak(third, LOUD);
  await waitShown(viewer, [first, third]);
  await waitNote(viewer, second, "Not heard: all places are taken");
  await waitOpened(viewer, ids([third]), 20);
  await speak(third, SILENT);
});

test("who is pinned gets a place, and keeps it when others speak", async () => {
  const [first, second, third] = publishers;
  await viewer.click(`[data-tile="${second.participant}"] .tile-pin`);
  await waitShown(viewer, [second, third]);
  // The pinned one has never spoken: without the pin it would go.
  await speak(first, LOUD);
  await waitShown(viewer, [first, second]);
  await speak(first, SILENT);
  const frames = (await counts(viewer))[second.participant].camera.opened;
  await waitOpened(viewer, ids([second]), frames + 20, ["camera"]);
});

test("a tile that is not shown gets nothing, and starts with a key frame when it is", async () => {
  const [first, second] = publishers;
  const before = await picturesOf(viewer);
  const tile = first.participant;
  await viewer.evaluate((tile) => (document.querySelector(`[data-tile="${tile}"]`).style.display = "none"), tile);
  await waitMoves(viewer, picturesOf, { on: [`${second.participant} frames`], still: [`${tile} packets`] });
  await viewer.evaluate((tile) => (document.querySelector(`[data-tile="${tile}"]`).style.display = ""), tile);
  await waitMoves(viewer, picturesOf, { on: [`${second.participant} frames`, `${tile} frames`], still: [] });
  const after = await picturesOf(viewer);
  assert.ok(after[`${tile} keys`] > before[`${tile} keys`], "it goes on with a key frame");
});

test("a page in the background gets no pictures, and all of them again in front", async () => {
  const [first, second] = publishers;
  await speak(first, LOUD);
  const before = await picturesOf(viewer);
  const other = await tabs.open("about:blank");
  await other.toFront();
  assert.equal(await viewer.evaluate(() => document.visibilityState), "hidden");
  const everything = async (page) => ({ ...(await picturesOf(page)), voice: (await counts(page))[first.participant].audio.opened });
  const packets = [first, second].map(({ participant }) => `${participant} packets`);
  await waitMoves(viewer, everything, { on: ["voice"], still: packets });
  await viewer.toFront();
  await waitMoves(viewer, picturesOf, { on: [first, second].map(({ participant }) => `${participant} frames`), still: [] });
  const after = await picturesOf(viewer);
  for (const { participant } of [first, second]) {
    assert.ok(after[`${participant} keys`] > before[`${participant} keys`], "it goes on with a key frame");
  }
  await other.close();
  await speak(first, SILENT);
});

test("of those who speak the loudest are heard", async () => {
  const [first, second, third] = publishers;
  await speak(first, LOUD);
  await speak(second, LOUD);
  await speak(third, SOFT);
  const [a, b, c] = ids(publishers);
  await waitMoves(first, heard, { on: [b], still: [c] });
  await waitMoves(second, heard, { on: [a], still: [c] });
  const pictures = (await counts(first))[c].camera.opened;
  await waitOpened(first, [c], pictures + 20, ["camera"]);

  await speak(first, SILENT);
  await waitMoves(second, heard, { on: [c], still: [a] });
  await waitMoves(first, heard, { on: [b, c], still: [] });
});

const ids = (pages) => pages.map(({ participant }) => participant);

/** Has a page send a steady tone instead of its microphone. */
async function speak(page, amplitude) {
  await page.waitFor("a voice to replace", () => window.sealcast.room.publications.some(({ source, track }) => source === "audio" && track));
  return page.evaluate(async (amplitude) => {
    if (window.tone) {
      window.tone.gain.value = amplitude;
      return;
    }
    const context = new AudioContext();
    await context.resume();
    const [tone, gain, end] = [context.createOscillator(), context.createGain(), context.createMediaStreamDestination()];
    tone.connect(gain).connect(end);
    gain.gain.value = amplitude;
    tone.start();
    window.tone = gain;
    const { room } = window.sealcast;
    const voice = room.publications.find(({ source }) => source === "audio");
    await room.replaceTrack(voice, end.stream.getAudioTracks()[0]);
  }, amplitude);
}

/** Waits until these people's voices and pictures have the slots, and the pictures are there. */
function waitShown(page, people) {
  return page.waitFor(
    "these people in the slots, and no others",
    async (wanted) => {
      const { room } = window.sealcast;
      const waiting = room.waiting().map(({ track }) => track);
      const tracks = [...room.participants.values()].flatMap(({ tracks }) => [...tracks.values()]);
      const placed = tracks.filter(({ track }) => !waiting.includes(track));
      // Voices that are not among the loudest send nothing, and so have no figures.
      const { receiving } = await room.stats();
      const lists = [
        placed.filter(({ source }) => source === "audio"),
        placed.filter(({ source }) => source === "camera"),
        receiving.filter(({ source }) => source === "camera"),
      ];
      return lists.every((list) => list.map(({ participant }) => participant).sort().join() === wanted);
    },
    ids(people).sort().join(),
  );
}

function waitNote(page, { participant }, note) {
  return page.waitFor(
    `a tile that says “${note}”`,
    ({ participant, note }) => document.querySelector(`[data-tile="${participant}"]`)?.textContent.includes(note),
    { participant, note },
  );
}

/** Of each picture that a slot shows: packets that came, frames and key frames that were decoded. */
async function picturesOf(page) {
  const { receiving } = await stats(page);
  const pictures = receiving.filter(({ kind }) => kind === "video");
  return Object.fromEntries(
    pictures.flatMap(({ participant, packets, framesDecoded, keyFramesDecoded }) => [
      [`${participant} packets`, packets],
      [`${participant} frames`, framesDecoded],
      [`${participant} keys`, keyFramesDecoded],
    ]),
  );
}

/** Frames of voice that came, by participant. */
async function heard(page) {
  return Object.fromEntries(Object.entries(await counts(page)).map(([participant, { audio }]) => [participant, audio?.opened ?? 0]));
}

/** Waits until, for a while, the counters `on` have grown and those of `still` have not. */
async function waitMoves(page, read, { on, still }) {
  const deadline = performance.now() + DEADLINE_MS;
  for (let before = await read(page); ; ) {
    await new Promise((resolve) => setTimeout(resolve, STILL_MS));
    const after = await read(page);
    const grown = (name) => after[name] > before[name];
    if (on.every(grown) && still.every((name) => after[name] === before[name])) return;
    assert.ok(performance.now() < deadline, `waited for ${on} to go on and ${still} to stand still: ${JSON.stringify([before, after])}`);
    before = after;
  }
}
