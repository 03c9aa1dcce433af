// Group keys over a real relay: who is in opens, who is not does not, and the relay only carries.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { startRelay as startRestartable } from "../browser/lib/relay.mjs";
import { agreed, GroupPeer, TestIssuer } from "../lib/group.mjs";
import { Signal } from "../lib/client.mjs";
import { binary, sleep, startRelay, until } from "../lib/relay.mjs";

const ALL = { publish: ["audio", "camera"], subscribe: true };
const roomName = () => `group-${randomBytes(6).toString("hex")}`;

describe("group keys", () => {
  let relay;
  before(async () => {
    relay = await startRelay();
  });
  after(async () => {
    const how = await relay?.stop();
    if (how) assert.equal(how.code, 0);
  });

  /** Somebody whom `issuer` vouches for, with slots for one picture. */
  async function person(room, issuer, name, { senders = [] } = {}) {
    const identify = (jwk) => `jwt:${issuer.assert(name, jwk)}`;
    const config = { issuer: issuer.verifier };
    const peer = await GroupPeer.join(relay, await relay.token(room, ALL), { identify, config });
    await peer.client.connect({ senders, slots: 1 });
    return peer;
  }

  test("C opens frames from its own epoch on, and none once it has left", async () => {
    const room = roomName();
    const issuer = new TestIssuer(room);
    const a = await person(room, issuer, "a", { senders: ["video"] });
    const b = await person(room, issuer, "b");
    await agreed([a, b]);
    const secret = randomBytes(64);
    await a.publish(() => secret);
    await b.watch(a.track);
    assert.ok((await b.opens()).includes(secret));
    await until("some frames of before", () => b.wire().length >= 20);

    const c = await person(room, issuer, "c");
    await c.watch(a.track);
    await agreed([a, b, c]);
    const joinedAt = b.wire().length;
    assert.ok((await c.opens()).includes(secret));
    // What B recorded before C's epoch: C has every key it will ever have for it.
    const epoch = c.member.epoch();
    const before = b.wire().slice(0, joinedAt).filter((frame) => epochOf(frame) !== Number(epoch & 0xffn));
    assert.ok(before.length >= 20, `${before.length} frames of earlier epochs`);
    assert.deepEqual(before.filter((frame) => c.open(frame) !== undefined), []);

    const unseen = b.wire().length + 2;
    const last = await until("a frame that C has not opened yet", () => b.wire()[unseen]);
    await c.leave();
    assert.ok(c.open(last)?.includes(secret), "C kept its keys: they open what was sealed while it was in");
    await agreed([a, b]);
    const leftAt = b.wire().length;
    await until("frames of after", () => b.wire().length >= leftAt + 30);
    assert.ok((await b.opens()).includes(secret), "B goes on");
    const later = b.wire().slice(leftAt);
    assert.deepEqual(later.filter((frame) => c.open(frame) !== undefined), []);
    for (const peer of [a, b]) {
      assert.deepEqual(peer.refusals, []);
      await peer.leave();
    }
  });

  test("a ghost that the relay lets in is refused by every member, and shown", async () => {
    const room = roomName();
    const issuer = new TestIssuer(room);
    const a = await person(room, issuer, "a");
    const b = await person(room, issuer, "b");
    await agreed([a, b]);
    const code = a.member.code();
    // One without an identity, one whose identity another issuer made up, one with a stolen one.
    const stolen = issuer.assert("a", JSON.parse('{"kty":"OKP","crv":"Ed25519","x":"AAAA"}'));
    const claims = [
      () => "id:ghost-1",
      (jwk) => `jwt:${new TestIssuer(room).assert("ghost-2", jwk)}`,
      () => `jwt:${stolen}`,
    ];
    const ghosts = [];
    for (const identify of claims) ghosts.push(await GroupPeer.join(relay, await relay.token(room, ALL), { identify }));
    for (const ghost of ghosts) {
      await until("the ghost is told", () => ghost.events.some(({ type }) => type === "not-admitted"));
      assert.equal(ghost.member.epoch(), undefined);
    }
    for (const peer of [a, b]) {
      const declined = peer.events.filter(({ type }) => type === "member-declined").map(({ identity }) => identity);
      assert.deepEqual(new Set(declined), new Set(["ghost-1", "ghost-2", "a"]));
      assert.deepEqual(peer.members().map(({ identity }) => identity.subject).sort(), ["a", "b"]);
    }
    assert.equal(a.member.code(), code, "the group did not move for them");
    for (const peer of [a, b, ...ghosts]) await peer.leave();
  });

  test("sealed messages reach the members, and only they can read them", async () => {
    const room = roomName();
    const issuer = new TestIssuer(room);
    const [a, b, c] = [await person(room, issuer, "a"), await person(room, issuer, "b"), await person(room, issuer, "c")];
    await agreed([a, b, c]);
    await a.sendSealed("Dr. Ada Haas");
    for (const peer of [b, c]) {
      await until("the message", () => peer.sealed.length === 1, 5);
      const [{ participant, data }] = peer.sealed;
      assert.equal(participant, a.client.id);
      const flipped = Buffer.from(data, "base64");
      flipped[flipped.length - 1] ^= 1;
      assert.throws(() => peer.member.openMetadata(flipped), /^Error: auth/);
      const opened = peer.member.openMetadata(Buffer.from(data, "base64"));
      assert.equal(Buffer.from(opened.content).toString(), "Dr. Ada Haas");
      assert.equal(opened.leaf, a.member.leaf());
      assert.throws(() => peer.member.openMetadata(Buffer.from(data, "base64")), /^Error: replayed/);
    }
    assert.deepEqual(a.sealed, [], "nothing comes back to its sender");
    await assert.rejects(a.client.signal.request("sealed", { data: "not base64!" }), { code: "bad_message" });
    const long = Buffer.alloc(16 * 1024 + 1).toString("base64");
    await assert.rejects(a.client.signal.request("sealed", { data: long }), { code: "limit" });
    for (const peer of [a, b, c]) await peer.leave();
  });

  test("a socket that was cut resumes, and so does membership", async () => {
    const room = roomName();
    const issuer = new TestIssuer(room);
    const [a, b] = [await person(room, issuer, "a"), await person(room, issuer, "b")];
    await agreed([a, b]);
    const leaf = b.member.leaf();
    b.client.signal.cut();
    // The others move on meanwhile.
    await until("the relay notices", () => relay.log().includes("socket lost"), 5);
    const epoch = a.member.epoch();
    a.member.requestRotation();
    a.pump();
    await until("a rotation", () => a.member.epoch() > epoch, 10);
    const token = b.client.joined.resume_token;
    b.client.signal = await Signal.open(relay.url);
    await b.client.signal.request("resume", { protocol: 1, resume_token: token });
    b.reconnected();
    await agreed([a, b]);
    assert.equal(b.member.leaf(), leaf, "it kept its place");
    assert.ok(!b.events.some(({ type }) => type === "reset" || type === "removed"));
    for (const peer of [a, b]) await peer.leave();
  });

  test("what is no group message is refused and counted; the group does not notice", async () => {
    const room = roomName();
    const issuer = new TestIssuer(room);
    const [a, b] = [await person(room, issuer, "a"), await person(room, issuer, "b")];
    await agreed([a, b]);
    const code = a.member.code();
    const send = (bytes) => a.client.signal.request("group", { data: Buffer.from(bytes).toString("base64") });
    const refused = () => relay.metric("sealcast_group_messages_total", { result: "wire" });
    const before = await refused();
    for (const bytes of [[], [1], [9, 1], [1, 99], randomBytes(200)]) await assert.rejects(send(bytes), { code: "bad_group" });
    assert.equal((await refused()) - before, 5);
    await assert.rejects(a.client.signal.request("group", { data: "%" }), { code: "bad_message" });
    let limited = 0;
    for (let n = 0; n < 40; n++) await send([1]).catch((error) => (limited += error.code === "rate_limited" ? 1 : 0));
    assert.ok(limited >= 5, `${limited} of 40 in a row were too many`);
    await sleep(500);
    assert.equal(a.member.code(), code);
    assert.equal(await relay.metric("sealcast_group_events_total", { event: "stalled" }), 0);
    for (const peer of [a, b]) await peer.leave();
    await until("the group is gone with its members", async () => (await relay.metric("sealcast_groups")) === 0, 5);
  });

  test("the development issuer vouches for a key and a name", async () => {
    const room = roomName();
    const { issuer } = await (await fetch(`${relay.url}/v1/config`)).json();
    const vouch = async (name, jwk) => {
      const reply = await fetch(`${relay.url}/dev/assertion`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ room, name, jwk }),
      });
      assert.equal(reply.status, 200);
      return reply.json();
    };
    const named = {};
    const join = async (name) => {
      const identify = async (jwk) => {
        const made = await vouch(name, jwk);
        named[name] = made.named;
        return `jwt:${made.assertion}`;
      };
      return GroupPeer.join(relay, await relay.token(room, ALL), { identify, config: { issuer: { ...issuer, room } } });
    };
    const [a, b] = [await join("Ada"), await join("Ben")];
    await agreed([a, b]);
    for (const { identity } of a.members()) {
      assert.equal(identity.status, "verified");
      assert.equal(identity.name, null, "no name where the relay sees it");
    }
    const at = Date.now();
    assert.equal(JSON.parse(a.member.verifyAssertion(b.member.leaf(), named.Ben, at)).name, "Ben");
    assert.equal(a.member.verifyAssertion(b.member.leaf(), named.Ada, at), undefined, "not somebody else's name");
    for (const peer of [a, b]) await peer.leave();
  });
});

test("the relay restarts in mid-call: the group goes on, with the keys it had", async () => {
  process.env.SEALCAST_BIN ??= binary;
  const relay = await startRestartable();
  try {
    const room = roomName();
    const [a, b] = [await GroupPeer.join(relay, relay.token(room)), await GroupPeer.join(relay, relay.token(room))];
    await agreed([a, b]);
    const media = async () => {
      await a.client.connect({ senders: ["video"], slots: 0 });
      await b.client.connect({ slots: 1 });
      await a.publish((number) => Buffer.alloc(100, number & 0xff));
      await b.watch(a.track);
      return b.opens();
    };
    assert.ok(await media());
    const [epoch, code] = [a.member.epoch(), a.member.code()];
    clearInterval(a.frames);
    await relay.restart();
    await Promise.all([a.rejoin(relay.token(room)), b.rejoin(relay.token(room))]);
    assert.ok(await media(), "media resumes");
    await agreed([a, b]);
    assert.ok(a.member.epoch() >= epoch);
    for (const peer of [a, b]) {
      assert.deepEqual(peer.events.filter(({ type }) => type === "reset" || type === "removed"), []);
      assert.deepEqual(peer.members().map(({ leaf }) => leaf), [0, 1]);
    }
    if (a.member.epoch() === epoch) assert.equal(a.member.code(), code);
    // And it still moves: a third one joins the group that was taken up.
    const c = await GroupPeer.join(relay, relay.token(room));
    await agreed([a, b, c]);
    assert.ok(a.member.epoch() > epoch);
    for (const peer of [a, b, c]) await peer.leave();
  } finally {
    await relay.stop();
  }
});

/** The low bits of the epoch in a VP8 frame's key id (§7.2), whose header follows the clear prefix. */
function epochOf(frame) {
  const at = frame[0] & 1 ? 3 : 10;
  const config = frame[at];
  const length = ((config >> 4) & 7) + 1;
  assert.ok(config & 0x80, "a key id of several bytes");
  return frame[at + length];
}
