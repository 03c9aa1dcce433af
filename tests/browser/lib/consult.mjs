/** Using the consult page as people do, and reading what its SDK counted. */
import { randomBytes } from "node:crypto";

/** The machine runs several browsers at once: small pictures, few of them. */
const SMALL_VIDEO = "?video=320x180@15";

export function newLink(url, { room = `test-${randomBytes(6).toString("hex")}`, key = randomBytes(32) } = {}) {
  const fragment = key === null ? `room=${room}` : `room=${room}&key=${key.toString("base64url")}`;
  return { room, key, href: `${url}/${SMALL_VIDEO}#${fragment}` };
}

/** The same room, without the key or with another one. */
export function withKey(url, link, key) {
  return newLink(url, { room: link.room, key });
}

/** Opens the link, waits for the devices, joins, and waits until the room is joined. */
export async function join(browser, link) {
  const page = await browser.open(link.href);
  await page.waitFor("the pre-join page with its devices", () => {
    const ready = (id) => document.querySelector(`#${id}`)?.selectedOptions[0]?.value;
    return Boolean(ready("choose-camera") && ready("choose-microphone"));
  });
  await page.click("#join");
  await page.waitFor("joining", () => window.sealcast.room?.participant || document.querySelector("[data-code]"));
  const code = await page.evaluate(() => document.querySelector("[data-code]")?.dataset.code);
  if (code) throw new Error(`joining failed with ${code}\n${page.errors.join("\n")}`);
  page.participant = await page.evaluate(() => window.sealcast.room.participant);
  return page;
}

export function waitConnected(page) {
  return page.waitFor("media", () => window.sealcast.room?.state === "connected");
}

/** Frames by participant and source: `{ PA_…: { audio: {opened, …}, camera: {…} } }`. */
export function counts(page) {
  return page.evaluate(() => {
    const { room } = window.sealcast;
    const all = {};
    for (const { participant, tracks } of room.participants.values()) {
      all[participant] = {};
      for (const { track, source } of tracks.values()) all[participant][source] = room.sealOf(track) ?? null;
    }
    return all;
  });
}

/** Waits until `page` opened at least `frames` of each source of each of `others`. */
export async function waitOpened(page, others, frames, sources = ["audio", "camera"]) {
  return page.waitFor(
    `${frames} opened frames of each of ${others.length} others`,
    ({ others, frames, sources }) => {
      const room = window.sealcast.room;
      return others.every((other) => {
        const tracks = [...(room?.participants.get(other)?.tracks.values() ?? [])];
        return sources.every((source) => {
          const track = tracks.find((candidate) => candidate.source === source);
          return track && (room.sealOf(track.track)?.opened ?? 0) >= frames;
        });
      });
    },
    { others, frames, sources },
    120_000,
  );
}

export function stats(page) {
  return page.evaluate(() => window.sealcast.room.stats());
}

/** The state of each tile's mark, by tile. */
export function marks(page) {
  return page.evaluate(() =>
    Object.fromEntries([...document.querySelectorAll("[data-tile]")].map(({ dataset }) => [dataset.tile, dataset.seal])),
  );
}
