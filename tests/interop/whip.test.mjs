// Standard clients publish and play: aiortc, werift and GStreamer, each through WHIP and WHEP.
// All three SRTP profiles and DTLS 1.2 are exercised here; browsers exercise DTLS 1.3.

import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { paths, startPeer, startRelay, until } from "../lib/relay.mjs";

const grants = { publish: ["audio", "camera"], subscribe: true, unsealed: true };
const script = (name) => path.join(paths.interop, name);
const aiortc = (...args) => startPeer(paths.python, [script("aiortc_peer.py"), ...args]);
const werift = (...args) => startPeer(process.execPath, [script("werift_peer.mjs"), ...args]);
const gstreamer = (...args) => startPeer(paths.systemPython, [script("gst_peer.py"), ...args]);

describe("WHIP and WHEP", () => {
  let relay;
  before(async () => (relay = await startRelay()));
  after(async () => {
    const how = await relay?.stop();
    if (how) assert.equal(how.code, 0, "the relay stops cleanly");
  });

  async function publishAndPlay(room, publish, play) {
    const token = await relay.token(room, grants);
    const publisher = publish(`${relay.url}/whip/${room}`, token);
    try {
      await publisher.line("publishing");
      const player = play(`${relay.url}/whep/${room}`, token);
      const played = await player.line("done", 90);
      assert.ok(played.reached, `${JSON.stringify(played)}\n${player.errors}`);
      assert.equal(await player.exited, 0);
      publisher.closeInput();
      const published = await publisher.line("done", 30);
      assert.equal(published.delete, 200);
      assert.equal(await publisher.exited, 0);
      return { played, published, publisher };
    } finally {
      publisher.kill();
    }
  }

  for (const profile of ["AEAD_AES_256_GCM", "AEAD_AES_128_GCM", "AES128_CM_SHA1_80"]) {
    test(`aiortc to aiortc over ${profile}`, async () => {
      const { played } = await publishAndPlay(
        `aiortc-${profile}`,
        (url, token) => aiortc("publish", url, token, "--profile", profile, "--frames", "1", "--hold"),
        (url, token) => aiortc("play", url, token, "--profile", profile, "--frames", "100"),
      );
      assert.ok(played.seen.video >= 100 && played.seen.audio >= 100);
      assert.ok(played.lumas > 10, "the picture changes");
    });
  }

  test("aiortc, which knows no feedback but REMB, is given it and gives it", async () => {
    const remb = (way) => relay.metric(`sealcast_rtcp_${way}_total`, { type: "remb" });
    const before = { received: await remb("received"), sent: await remb("sent") };
    const { published } = await publishAndPlay(
      "aiortc-remb",
      (url, token) => aiortc("publish", url, token, "--frames", "1", "--hold"),
      (url, token) => aiortc("play", url, token, "--frames", "100"),
    );
    assert.ok((await remb("received")) > before.received, "the player's estimate is heard");
    const told = (await remb("sent")) - before.sent;
    // Of about four seconds, one each.
    assert.ok(told >= 2 && told <= 30, `${told} told to the publisher`);
    // Nothing speaks against what the relay starts with.
    assert.deepEqual(published.targets, [600_000], "the publisher's encoder obeys");
  });

  test("werift to werift: every payload arrives byte for byte", async () => {
    const { played } = await publishAndPlay(
      "werift",
      (url, token) => werift("publish", url, token),
      (url, token) => werift("play", url, token, "150"),
    );
    assert.equal(played.wrong, 0);
  });

  test("GStreamer to aiortc", async () => {
    await publishAndPlay(
      "gst-aiortc",
      (url, token) => gstreamer("publish", url, token),
      (url, token) => aiortc("play", url, token, "--frames", "50"),
    );
  });

  test("GStreamer with redundant audio (RFC 2198) to aiortc, which knows none", async () => {
    const { publisher } = await publishAndPlay(
      "gst-red",
      (url, token) => gstreamer("publish", url, token, "--red"),
      (url, token) => aiortc("play", url, token, "--frames", "50"),
    );
    assert.ok(publisher.lines.find(({ state }) => state === "negotiated").red, "redundancy was negotiated");
  });

  test("aiortc to GStreamer", async () => {
    await publishAndPlay(
      "aiortc-gst",
      (url, token) => aiortc("publish", url, token, "--frames", "1", "--hold"),
      (url, token) => gstreamer("play", url, token, "--frames", "50"),
    );
  });

  test("a killed publisher leaves its room, and the room others", async () => {
    const room = "killed";
    const token = await relay.token(room, grants);
    const publisher = werift("publish", `${relay.url}/whip/${room}`, token);
    await publisher.line("publishing");
    const tracks = await relay.metric("sealcast_tracks");
    assert.ok(tracks >= 2);
    publisher.kill();
    await until("its tracks are gone", async () => (await relay.metric("sealcast_tracks")) <= tracks - 2, 60);
  });
});
