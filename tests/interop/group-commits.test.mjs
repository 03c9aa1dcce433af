// Two members commit at once, over and over, on a real relay with media flowing: one epoch each
// time, the same for everybody, and no frame that anybody misses for long.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { agreed, GroupPeer } from "../lib/group.mjs";
import { sleep, startRelay, until } from "../lib/relay.mjs";

const ALL = { publish: ["camera"], subscribe: true };
const ROUNDS = 100;

/** Members commit 200 ms after an epoch began (§11.3), the relay takes a commit after 150. */
const COMMIT_INTERVAL_MS = 200;

/** Frames may be missing for this long at a time, by the clock of their sender. */
const MAX_LOSS_MS = 2_000;

test(`two members commit at once ${ROUNDS} times: one epoch each time, and frames keep flowing`, async () => {
  const relay = await startRelay();
  const peers = [];
  try {
    const room = `commits-${randomBytes(6).toString("hex")}`;
    for (let n = 0; n < 3; n++) peers.push(await GroupPeer.join(relay, await relay.token(room, ALL)));
    const [a, b, c] = peers;
    await a.client.connect({ senders: ["video"] });
    await b.client.connect({ senders: ["video"], slots: 1 });
    await c.client.connect({ slots: 1 });
    await agreed(peers);

    // The two who commit are those whose frames are watched: B watches A, and C watches B.
    const watches = [new Watch(a, b), new Watch(b, c)];
    for (const watch of watches) await watch.begin();

    const event = (name) => relay.metric("sealcast_group_events_total", { event: name });
    const before = { epoch: a.member.epoch(), commits: await event("commit"), stale: await event("stale_commit") };
    for (let round = 1; round <= ROUNDS; round++) {
      await sleep(COMMIT_INTERVAL_MS + 10);
      // Neither has heard of the other's commit when it sends its own.
      for (const peer of [a, b]) peer.member.requestRotation();
      for (const peer of [a, b]) {
        peer.member.handleTimeout(performance.timeOrigin + performance.now());
        peer.pump();
      }
      const epoch = before.epoch + BigInt(round);
      await until(`round ${round}`, () => peers.every(({ member }) => member.sendingEpoch() === epoch), 30);
      await agreed(peers);
      assert.deepEqual(peers.map(({ member }) => member.epoch()), [epoch, epoch, epoch], "one epoch, not two");
    }
    assert.equal((await event("commit")) - before.commits, ROUNDS, "one commit of two was taken");
    assert.equal((await event("stale_commit")) - before.stale, ROUNDS, "and the other one was not");
    for (const name of ["invalid_commit", "undone", "added_again", "stalled"]) assert.equal(await event(name), 0, name);
    for (const { events, refusals } of peers) {
      assert.deepEqual(refusals, []);
      assert.deepEqual(events.filter(({ type }) => type !== "epoch" && type !== "sending"), []);
    }

    for (const watch of watches) {
      const { opened, lost, longest, unopened } = await watch.end();
      console.log(`frames opened ${opened}, lost ${lost}, longest loss ${longest.toFixed(0)} ms`);
      assert.ok(opened >= ROUNDS * 5, `${opened} frames over ${ROUNDS} epochs`);
      assert.ok(longest < MAX_LOSS_MS, `frames were lost for ${longest} ms`);
      assert.deepEqual(unopened, [], "what arrived was opened");
      assert.ok(watch.epochs.size >= ROUNDS / 2, `frames of ${watch.epochs.size} epochs were opened`);
    }
  } finally {
    for (const peer of peers) await peer.leave();
    await relay.stop();
  }
});

/** One member's frames, numbered, as another one opens them. */
class Watch {
  epochs = new Set();
  #sentAt = [];
  #arrived = new Map();
  #unopened = [];

  constructor(from, by) {
    Object.assign(this, { from, by });
  }

  async begin() {
    await this.from.publish((number) => {
      this.#sentAt[number] = performance.now();
      const body = Buffer.alloc(120);
      body.writeUInt32BE(number, 0);
      return body;
    });
    await this.by.watch(this.from.track);
    let at = 0;
    this.#timer = setInterval(() => {
      for (const wire = this.by.wire(); at < wire.length; at++) this.#take(wire[at]);
    }, 10);
    await until("frames flow", () => this.#arrived.size >= 10);
  }
  #timer;

  #take(frame) {
    try {
      const plain = Buffer.from(this.by.member.open("vp8", frame));
      const number = plain.readUInt32BE(plain[0] & 1 ? 3 : 10);
      this.#arrived.set(number, performance.now());
      this.epochs.add(this.by.member.lastKid() & 0xffn);
    } catch (error) {
      // The network may deliver a packet twice; whatever else does not open counts.
      if (!error.message.startsWith("replayed")) this.#unopened.push(error.message);
    }
  }

  /** Stops sending, waits for what is on its way, and tells what became of the frames. */
  async end() {
    clearInterval(this.from.frames);
    const last = this.#sentAt.length - 1;
    for (let n = 0; n < 20 && !this.#arrived.has(last); n++) await sleep(50);
    clearInterval(this.#timer);
    const numbers = [...this.#arrived.keys()].sort((x, y) => x - y);
    let [lost, longest] = [last - numbers.at(-1), 0];
    if (lost > 0) longest = this.#sentAt[last] - this.#sentAt[numbers.at(-1) + 1];
    for (let n = 1; n < numbers.length; n++) {
      const missing = numbers[n] - numbers[n - 1] - 1;
      if (missing === 0) continue;
      lost += missing;
      longest = Math.max(longest, this.#sentAt[numbers[n]] - this.#sentAt[numbers[n - 1] + 1]);
    }
    return { opened: numbers.length, lost, longest, unopened: this.#unopened };
  }
}
