// docs/PROTOCOL.md as a second client sees it: joining, slots, mute, moderation, resume, the
// structural check, and both shards at work.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { Client, loadWasm, Signal, vp8Frame } from "../lib/client.mjs";
import { sleep, startRelay, until } from "../lib/relay.mjs";

const ALL = { publish: ["audio", "camera"], subscribe: true };

describe("protocol", () => {
  let relay, wasm;
  before(async () => {
    wasm = await loadWasm();
    relay = await startRelay();
  });
  after(async () => {
    const how = await relay?.stop();
    if (how) assert.equal(how.code, 0);
  });

  const newSealer = () => new wasm.FrameSealer(5, BigInt(`0x${randomBytes(7).toString("hex")}`), randomBytes(32));

  async function sealedPublisher(room) {
    const client = await Client.join(relay, await relay.token(room, ALL));
    await client.connect({ senders: ["video"], slots: 1 });
    const sealer = newSealer();
    client.trackId = await client.publish("video", "camera", [Number(wasm.frameContext(sealer.kid))]);
    let number = 0;
    const timer = setInterval(() => {
      const frame = vp8Frame(number++ % 5 === 0, Buffer.alloc(100, number & 0xff));
      client.send("video", client.cleartext ? frame : Buffer.from(sealer.seal("vp8", frame)));
    }, 20);
    const close = client.close.bind(client);
    client.close = () => (clearInterval(timer), close());
    return client;
  }

  async function viewer(room, track) {
    const client = await Client.join(relay, await relay.token(room, ALL));
    await client.connect({ slots: 1 });
    client.mid = await client.show("video", 0, track);
    client.frames = () => client.received.get(client.mid)?.length ?? 0;
    await until("frames arrive", () => client.frames() >= 20, 20);
    return client;
  }

  test("the slot notice names the track, and a new one follows a change", async () => {
    const a = await sealedPublisher("slots");
    const b = await sealedPublisher("slots");
    const c = await viewer("slots", a.trackId);
    assert.equal(c.slots.get(c.mid), a.trackId);
    await c.show("video", 0, b.trackId);
    await until("the notice of the change", () => c.slots.get(c.mid) === b.trackId, 10);
    const seen = c.frames();
    await until("frames of the new track", () => c.frames() >= seen + 20, 20);
    await c.show("video", 0, null);
    await until("the notice of nothing", () => c.slots.get(c.mid) === null, 10);
    await Promise.all([a, b, c].map((x) => x.close()));
  });

  test("a muted track is not forwarded, and others may not mute it without the grant", async () => {
    const a = await sealedPublisher("mute");
    const b = await viewer("mute", a.trackId);
    await assert.rejects(b.signal.request("mute", { track: a.trackId, muted: true }), { code: "forbidden" });
    await a.signal.request("mute", { track: a.trackId, muted: true });
    await b.signal.event("track_muted", (e) => e.track === a.trackId && e.muted);
    const dropped = () => relay.metric("sealcast_dropped_total", { reason: "muted" });
    const before = await dropped();
    await until("the relay drops muted packets", async () => (await dropped()) > before + 20, 10);
    const quiet = b.frames();
    await sleep(300);
    assert.equal(b.frames(), quiet, "nothing arrives while muted");
    await a.signal.request("mute", { track: a.trackId, muted: false });
    await until("frames arrive again", () => b.frames() > quiet + 20, 20);
    await Promise.all([a, b].map((x) => x.close()));
  });

  test("a cut socket resumes without renegotiating media", async () => {
    const a = await sealedPublisher("resume");
    const b = await viewer("resume", a.trackId);
    b.signal.cut();
    const during = b.frames();
    await until("media flows while signalling is down", () => b.frames() > during + 20, 20);
    const signal = await Signal.open(relay.url);
    const resumed = await signal.request("resume", { protocol: 1, resume_token: b.joined.resume_token });
    assert.equal(resumed.participant, b.id);
    assert.equal(resumed.session, true);
    assert.deepEqual(resumed.slots.filter((s) => s.track), [{ mid: b.mid, track: a.trackId }]);
    const again = await Signal.open(relay.url);
    await assert.rejects(again.request("resume", { protocol: 1, resume_token: b.joined.resume_token }), { code: "resume_unknown" });
    signal.close();
    await Promise.all([a, b].map((x) => x.close()));
  });

  test("cleartext where sealed media is demanded is blocked, and only that", async () => {
    const a = await sealedPublisher("structure");
    const bad = await sealedPublisher("structure");
    const b = await viewer("structure", a.trackId);
    bad.cleartext = true;
    const blocked = await b.signal.event("track_blocked", (e) => e.track === bad.trackId);
    assert.equal(blocked.reason, "unsealed");
    assert.ok((await relay.metric("sealcast_tracks_blocked_total")) >= 1);
    const seen = b.frames();
    await until("the other publisher goes on", () => b.frames() > seen + 20, 20);
    await Promise.all([a, bad, b].map((x) => x.close()));
  });

  test("publishing without contexts in a sealed room is refused", async () => {
    const a = await Client.join(relay, await relay.token("nocontext", ALL));
    await a.connect({ senders: ["video"] });
    await assert.rejects(a.publish("video", "camera"), { code: "unsealed" });
    await a.close();
  });

  test("leaving and removal are seen by the others", async () => {
    const a = await sealedPublisher("leave");
    const b = await viewer("leave", a.trackId);
    const moderator = await Client.join(relay, await relay.token("leave", { ...ALL, moderate: true }));
    await a.signal.request("leave");
    await b.signal.event("track_unpublished", (e) => e.track === a.trackId);
    const left = await b.signal.event("participant_left", (e) => e.participant === a.id);
    assert.equal(left.reason, "left");
    await until("the slot falls empty", () => b.slots.get(b.mid) === null, 10);
    await moderator.signal.request("remove", { participant: b.id });
    await b.signal.event("removed");
    await until("the socket closes", () => b.signal.closed !== null, 10);
    assert.equal(b.signal.closed, 4410);
    await Promise.all([a, b, moderator].map((x) => x.close()));
  });

  test("two shards forward at once", async () => {
    const shards = async () => {
      const text = await relay.metrics();
      const ids = [...text.matchAll(/^sealcast_rtp_packets_sent_total\{[^}]*shard="(\d+)"[^}]*\} (\d+)/gm)];
      return new Set(ids.filter((m) => Number(m[2]) > 0).map((m) => m[1]));
    };
    const calls = [];
    for (const room of ["shard-a", "shard-b", "shard-c", "shard-d"]) {
      const a = await sealedPublisher(room);
      calls.push(a, await viewer(room, a.trackId));
    }
    assert.ok((await shards()).size >= 2, `shards at work: ${[...(await shards())]}`);
    await Promise.all(calls.map((x) => x.close()));
  });
});
