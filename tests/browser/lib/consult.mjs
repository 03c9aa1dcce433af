/** Using the consult page as people do, and reading what its SDK counted. */
import { randomBytes } from "node:crypto";

/** The machine runs several browsers at once: small pictures, few of them. */
const SMALL_VIDEO = "320x180@15";

/**
 * A room and its key; `href(relay)` is the link that one more participant opens.
 *
 * @param options the page's own: `video` (as `640x360@15`) and `codec` (as `VP9`)
 */
export function newConsult({
  room = `test-${randomBytes(6).toString("hex")}`,
  key = randomBytes(32),
  options = {},
} = {}) {
  const query = new URLSearchParams({ video: SMALL_VIDEO, ...options });
  return {
    room,
    key,
    href(relay) {
      const token = relay.token(room);
      const fragment = new URLSearchParams({
        room,
        ...(key ? { key: key.toString("base64url") } : {}),
        ...(token ? { token } : {}),
      });
      return `${relay.url}/?${query}#${fragment}`;
    },
  };
}

/**
 * Opens the consult's link, waits for the devices, joins, and waits until the room is joined.
 *
 * @param prepare a script that runs in the page before it joins
 * @param before a script that runs ahead of the page's own
 */
export async function join(browser, relay, consult, prepare, before) {
  const page = await browser.open(consult.href(relay), before);
  await page.waitFor("the pre-join page with its devices", () => {
    const ready = (id) => document.querySelector(`#${id}`)?.selectedOptions[0]?.value;
    return Boolean(ready("choose-camera") && ready("choose-microphone"));
  });
  if (prepare) await page.evaluate(prepare);
  await page.click("#join");
  await page.waitFor("joining", () => window.sealcast.room?.participant || document.querySelector("[data-code]"));
  const code = await page.evaluate(() => document.querySelector("[data-code]")?.dataset.code);
  if (code) throw new Error(`joining failed with ${code}\n${page.errors.join("\n")}\n${relay.log()}`);
  page.participant = await page.evaluate(() => window.sealcast.room.participant);
  return page;
}

/** For `join`: a network that passes no UDP. The relay's UDP candidates never reach the browser. */
export function withoutUdp() {
  const { setRemoteDescription } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.setRemoteDescription = function (description) {
    const sdp = description.sdp.replace(/^a=candidate:\S+ \d+ udp .*\r\n/gim, "");
    return setRemoteDescription.call(this, { type: description.type, sdp });
  };
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
