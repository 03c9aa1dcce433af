// The relay never holds what it must not: neither media plaintext nor keys, in its memory, its log
// or its metrics. The same search finds a canary that is planted where the relay can see it.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { Client, loadWasm, vp8Frame } from "../lib/client.mjs";
import { agreed, GroupPeer, TestIssuer } from "../lib/group.mjs";
import { scanMemory } from "../lib/memory.mjs";
import { sleep, startRelay, until } from "../lib/relay.mjs";

const SUITE = 5;

describe("canary", () => {
  let relay, wasm;
  before(async () => {
    wasm = await loadWasm();
    relay = await startRelay();
  });
  after(() => relay?.stop());

  /** Publishes `frames` sealed (or not) to a receiver and returns what arrived. */
  async function call(room, { sealer, plaintext, grants }) {
    const token = await relay.token(room, grants);
    const sender = await Client.join(relay, token);
    const receiver = await Client.join(relay, await relay.token(room, { publish: [], subscribe: true }));
    try {
      await sender.connect({ senders: ["video"] });
      await receiver.connect({ slots: 1 });
      const contexts = sealer && [Number(wasm.frameContext(sealer.kid))];
      const track = await sender.publish("video", "camera", contexts);
      const mid = await receiver.show("video", 0, track);
      const frames = () => receiver.received.get(mid) ?? [];
      for (let i = 0; frames().length < 100 && i < 1000; i++) {
        const frame = vp8Frame(i % 5 === 0, plaintext);
        sender.send("video", sealer ? Buffer.from(sealer.seal("vp8", frame)) : frame);
        await sleep(10);
      }
      await until("100 frames arrive", () => frames().length >= 100, 10);
      return frames();
    } finally {
      await sender.close();
      await receiver.close();
    }
  }

  test("sealed media leaves no trace of plaintext or key", async () => {
    const key = randomBytes(32);
    const plaintext = Buffer.concat([Buffer.from("CANARY-MEDIA-"), randomBytes(200)]);
    const kid = BigInt(`0x${randomBytes(7).toString("hex")}`);
    const sealer = new wasm.FrameSealer(SUITE, kid, key);
    const arrived = await call("sealed", { sealer, plaintext, grants: { publish: ["camera"] } });

    const opener = new wasm.FrameOpener(SUITE);
    opener.setLinkKey(key);
    let opened = 0;
    for (const frame of arrived) {
      const plain = Buffer.from(opener.open("vp8", frame));
      assert.ok(plain.includes(plaintext), "what was opened is what was sealed");
      opened++;
    }
    assert.ok(opened >= 100);

    const needles = { media: plaintext, prefix: plaintext.subarray(0, 32), key, keyHex: Buffer.from(key.toString("hex")), keyText: Buffer.from(key.toString("base64url")) };
    const { counts, scanned } = scanMemory(relay.pid, needles);
    assert.ok(scanned > 1_000_000, `scanned ${scanned} bytes`);
    assert.deepEqual(counts, { media: 0, prefix: 0, key: 0, keyHex: 0, keyText: 0 });
    const written = Buffer.from(relay.log() + (await relay.metrics()), "latin1");
    for (const needle of Object.values(needles)) assert.equal(written.indexOf(needle), -1);
  });

  test("a group leaves no trace of names, chat, identities' names or the group's secrets", async () => {
    const room = `canary-${randomBytes(6).toString("hex")}`;
    const issuer = new TestIssuer(room);
    const name = `Dr. Canary ${randomBytes(12).toString("hex")}`;
    const chat = `CANARY-CHAT-${randomBytes(16).toString("hex")}`;
    const subject = `subject-${randomBytes(12).toString("hex")}`;
    const named = [];
    const credentials = [];
    const join = async (sub) =>
      GroupPeer.join(relay, await relay.token(room, { publish: ["camera"], subscribe: true }), {
        identify: (jwk) => {
          named.push(issuer.assert(sub, jwk, { name }));
          credentials.push(`jwt:${issuer.assert(sub, jwk)}`);
          return credentials.at(-1);
        },
        config: { issuer: issuer.verifier },
      });
    const [a, b] = [await join(subject), await join(`${subject}-b`)];
    await agreed([a, b]);
    const keys = { first: Buffer.from(a.member.exportBaseKey()) };
    const media = Buffer.concat([Buffer.from("CANARY-GROUP-"), randomBytes(200)]);
    await a.client.connect({ senders: ["video"] });
    await b.client.connect({ slots: 1 });
    await a.publish(() => media);
    await b.watch(a.track);
    assert.ok((await b.opens()).includes(media), "what was opened is what was sealed");
    for (const content of [JSON.stringify({ type: "presence", participant: a.client.id, name, assertion: named[0] }), chat]) {
      await a.sendSealed(content);
    }
    await until("both messages", () => b.sealed.length === 2, 5);
    const said = b.sealed.map(({ data }) => Buffer.from(b.member.openMetadata(Buffer.from(data, "base64")).content).toString());
    assert.ok(said[0].includes(name) && said[1] === chat, "they were sent and could be read");
    const epoch = a.member.epoch();
    a.member.requestRotation();
    a.pump();
    await until("new keys", () => a.member.epoch() > epoch, 10);
    await agreed([a, b]);
    keys.second = Buffer.from(a.member.exportBaseKey());
    assert.notDeepEqual(keys.first, keys.second);

    const needles = { name: Buffer.from(name), chat: Buffer.from(chat), named: Buffer.from(named[0].split(".")[1]), media };
    for (const [epochKey, key] of Object.entries(keys)) {
      needles[epochKey] = key;
      needles[`${epochKey}Hex`] = Buffer.from(key.toString("hex"));
      needles[`${epochKey}Text`] = Buffer.from(key.toString("base64"));
    }
    // The credential, which the relay does see, shows that the search would find the rest.
    const credential = Buffer.from(credentials[0]);
    const { counts } = scanMemory(relay.pid, { ...needles, credential });
    const { credential: seen, ...secret } = counts;
    assert.ok(seen > 0, "the search finds what the relay holds of the group");
    assert.deepEqual(secret, Object.fromEntries(Object.keys(needles).map((needle) => [needle, 0])));
    const written = Buffer.from(relay.log() + (await relay.metrics()), "latin1");
    for (const needle of [...Object.values(needles), Buffer.from(subject)]) assert.equal(written.indexOf(needle), -1);
    for (const peer of [a, b]) await peer.leave();
  });

  test("the search finds what the relay can see", async () => {
    const plaintext = Buffer.concat([Buffer.from("CANARY-OPEN-"), randomBytes(200)]);
    await call("open", { plaintext, grants: { publish: ["camera"], unsealed: true } });
    const { counts } = scanMemory(relay.pid, { media: plaintext });
    assert.ok(counts.media > 0, "a canary in unsealed media is found in memory");
  });

  test("tokens, subjects and room names are not written", async () => {
    const room = `canary-room-${randomBytes(6).toString("hex")}`;
    const token = await relay.token(room, { publish: [], subscribe: true });
    const client = await Client.join(relay, token);
    await client.connect({ slots: 1 });
    await client.close();
    const { sub } = JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
    const written = relay.log() + (await relay.metrics());
    for (const secret of [room, token, sub]) assert.ok(!written.includes(secret), `${secret} was written`);
  });
});
