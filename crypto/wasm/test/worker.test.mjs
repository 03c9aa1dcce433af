// The client worker's GroupKeys, on the module that ships and with the relay's delivery service, on a
// virtual clock: when keys change, how long old ones open, who asks whom, and what is counted.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";
import { build } from "../../../client/node_modules/esbuild/lib/main.js";
import { directory } from "./module.mjs";
import { Room, START } from "./room.mjs";

const folder = await mkdtemp(path.join(tmpdir(), "sealcast-worker-"));
after(() => rm(folder, { recursive: true }));
const glue = pathToFileURL(path.join(directory, "sealcast_wasm.js")).href;
await build({
  entryPoints: [path.join(import.meta.dirname, "../../../client/src/worker/group.ts")],
  outfile: path.join(folder, "group.mjs"),
  bundle: true,
  format: "esm",
  plugins: [
    // The module's one instance, which the tests have started.
    { name: "glue", setup: (it) => it.onResolve({ filter: /^sealcast-wasm$/ }, () => ({ path: glue, external: true })) },
  ],
});
const { GroupKeys } = await import(pathToFileURL(path.join(folder, "group.mjs")));

/** Timers that fire when the room's time has come. */
class VirtualClock {
  #timers = new Set();
  #room;

  constructor(room) {
    this.#room = room;
  }

  now() {
    return START + this.#room.now;
  }

  start(ms, action) {
    const timer = { at: this.now() + ms, action };
    this.#timers.add(timer);
    return timer;
  }

  stop(timer) {
    this.#timers.delete(timer);
  }

  fire() {
    for (const timer of [...this.#timers]) {
      if (timer.at <= this.now() && this.#timers.delete(timer)) timer.action();
    }
  }
}

class Worker {
  notices = [];
  heard = [];
  /** Sealed messages that it sent, whether or not they were delivered. */
  said = [];
  /** Neither handshakes nor sealed messages reach it. */
  deaf = false;
  mute = false;
  #outgoing = [];
  #room;

  constructor(room, id, config = {}) {
    this.#room = room;
    this.id = id;
    this.clock = new VirtualClock(room);
    const output = {
      send: (message) => this.#outgoing.push(message),
      sealed: (message) => this.#broadcast(message),
      changed: (snapshot) => (this.snapshot = snapshot),
      notice: (notice) => this.notices.push(notice),
      message: (participant, body) => this.heard.push([participant, body]),
    };
    this.keys = new GroupKeys(1, output, this.clock);
    this.keys.join(config, `id:w-${id}`, { participant: `PA_${id}`, name: `Worker ${id}` });
  }

  #broadcast(message) {
    this.said.push([this.#room.now, message]);
    if (this.mute) return;
    for (const other of this.#room.members.values()) {
      if (other !== this && !other.deaf) other.keys.onSealed(message, `PA_${this.id}`);
    }
  }

  async handle(_now, message) {
    if (!this.deaf) this.keys.onMessage(message);
  }

  tick(now) {
    this.clock.fire();
    if (now % 1000 === 0) this.keys.tick();
  }

  drain() {
    return this.deaf ? [] : this.#outgoing.splice(0);
  }

  epoch() {
    return this.snapshot?.epoch;
  }

  /** Low bits of the epoch that it seals with. */
  sealsWith() {
    return Number(this.keys.sealer(0x100).kid & 0xffn);
  }

  seal() {
    return this.keys.sealer(0x100).seal("opus", Uint8Array.of(1, 2, 3));
  }

  opens(frame) {
    try {
      this.keys.open("opus", frame);
      return "opened";
    } catch (error) {
      return error.message.split(":")[0];
    }
  }
}

// What is refused on purpose is logged.
console.debug = () => undefined;
console.warn = () => undefined;

async function roomOf(count, config) {
  const room = new Room();
  for (let id = 1; id <= count; id++) await room.join(id, new Worker(room, id, config));
  await room.run(4000);
  const workers = [...room.members.values()];
  for (const worker of workers) assert.equal(worker.snapshot.members.length, count);
  return { room, workers };
}

test("members know who is who, and what they say is heard under that name", async () => {
  const { workers } = await roomOf(3);
  const [one, two, three] = workers;
  await two.keys.ready();
  assert.equal(two.opens(one.seal()), "opened");
  const leaf = three.snapshot.members.find(({ own }) => own).leaf;
  assert.equal(one.keys.leafOf("PA_3"), leaf);
  assert.equal(one.snapshot.members.find((member) => member.leaf === leaf).name, "Worker 3");
  three.keys.say(1, { text: "hello" });
  assert.deepEqual(one.heard, [["PA_3", { text: "hello" }]]);
});

test("who somebody is counts where the member's word and the relay's agree, and nowhere else", async () => {
  const { room, workers } = await roomOf(2);
  const [one] = workers;
  await room.leave(2);
  await room.run(1000);
  assert.equal(one.keys.leafOf("PA_2"), undefined);
  const again = new Worker(room, 2);
  again.mute = true;
  await room.join(2, again);
  await room.run(1000);
  const [, presence] = again.said.at(-1);
  for (const from of [null, "PA_9"]) {
    one.keys.onSealed(presence, from);
    assert.equal(one.keys.leafOf("PA_2"), undefined, `said to come from ${from}`);
  }
  again.mute = false;
  await room.run(6000);
  assert.notEqual(one.keys.leafOf("PA_2"), undefined);
});

test("senders switch at once when all are ready, and after two seconds when somebody is not", async () => {
  const { room, workers } = await roomOf(3);
  const [one, , three] = workers;
  const before = one.epoch();
  one.keys.rotate();
  await room.run(100);
  assert.equal(one.epoch(), before + 1);
  assert.equal(one.sealsWith(), before + 1, "everybody was ready");

  three.deaf = true;
  await room.run(1000);
  one.keys.rotate();
  await room.run(100);
  assert.equal(one.epoch(), before + 2);
  await room.run(1800);
  assert.equal(one.sealsWith(), before + 1, "not everybody is");
  assert.equal(three.opens(one.seal()), "opened");
  await room.run(200);
  assert.equal(one.sealsWith(), before + 2);
  assert.equal(three.opens(one.seal()), "unknown-kid");
});

test("frames of the epoch before open for ten seconds", async () => {
  const { room, workers } = await roomOf(2);
  const [one, two] = workers;
  const [soon, late] = [one.seal(), one.seal()];
  one.keys.rotate();
  await room.run(100);
  const began = room.now;
  await room.run(9_700);
  assert.equal(two.opens(soon), "opened");
  await room.run(500);
  assert.equal(two.opens(late), "unknown-kid", `${room.now - began} ms after`);
  assert.equal(two.opens(one.seal()), "opened");
});

test("keys are renewed before one has sealed too many frames", async () => {
  const { room, workers } = await roomOf(2, { rotateAfterFrames: 30 });
  const [one, two] = workers;
  const before = one.epoch();
  for (let n = 0; n < 29; n++) two.seal();
  await room.run(2000);
  assert.equal(one.epoch(), before);
  two.seal();
  await room.run(2000);
  assert.equal(one.epoch(), before + 1);
  assert.equal(two.sealsWith(), before + 1);
});

test("keys are renewed after the configured time", async () => {
  const { room, workers } = await roomOf(2, { rotationMs: 20_000 });
  const before = workers[0].epoch();
  await room.run(10_000);
  assert.equal(workers[0].epoch(), before);
  await room.run(12_000);
  assert.equal(workers[0].epoch(), before + 1);
});

test("who has not said who they are is asked, every five seconds; an answer goes out once a second", async () => {
  const { room, workers } = await roomOf(2);
  const [one, two] = workers;
  two.mute = true;
  await room.leave(2);
  await room.run(1000);
  await room.join(2, new Worker(room, 2));
  const again = room.members.get(2);
  again.mute = true;
  await room.run(500);
  one.said.length = 0;
  await room.run(20_000);
  assert.equal(one.keys.leafOf("PA_2"), undefined);
  const asked = one.said.map(([at]) => at);
  assert.ok(asked.length >= 3 && asked.length <= 5, `${asked}`);
  const answers = again.said.length;
  assert.ok(answers >= 3, "it did answer, though nobody heard");
  again.mute = false;
  await room.run(6000);
  assert.notEqual(one.keys.leafOf("PA_2"), undefined);
  // Nobody is asked any more.
  one.said.length = 0;
  await room.run(10_000);
  assert.equal(one.said.length, 0);
  // Asked ten times a second, a member answers once.
  again.said.length = 0;
  for (let n = 0; n < 30; n++) {
    one.keys.onConnected("PA_1");
    await room.run(100);
  }
  const told = again.said.length;
  assert.ok(told >= 2 && told <= 5, `${told} answers in three seconds`);
});

test("frames that fail for four seconds make a member ask for the group's state, and it recovers", async () => {
  const { room, workers } = await roomOf(3);
  const [one, two, three] = workers;
  three.deaf = true;
  one.keys.rotate();
  await room.run(1000);
  two.keys.rotate();
  await room.run(3000);
  three.deaf = false;
  // What came meanwhile is lost.
  three.drain();
  assert.equal(three.opens(one.seal()), "unknown-kid");
  let failed = 0;
  for (; failed < 100 && three.opens(one.seal()) !== "opened"; failed++) {
    three.keys.onOpening(true);
    await room.run(100);
  }
  assert.ok(failed > 40 && failed < 50, `after ${failed * 100} ms`);
  assert.equal(three.epoch(), one.epoch());
});

test("a message that the relay refused is followed by a Hello three seconds later", async () => {
  const { room, workers } = await roomOf(2);
  const [one] = workers;
  let sent = 0;
  const drain = one.drain.bind(one);
  one.drain = () => {
    const messages = drain();
    sent += messages.length;
    return messages;
  };
  one.keys.onRefused();
  await room.run(2_900);
  assert.equal(sent, 0);
  await room.run(200);
  assert.ok(sent > 0);
});

test("refused messages are counted by their reason", async () => {
  const { room, workers } = await roomOf(2);
  const [one, two] = workers;
  two.deaf = true;
  one.said.length = 0;
  one.keys.say("hello");
  const message = one.said[0][1];
  const before = two.keys.counters().sealed;
  const flipped = (at) => {
    const bytes = message.slice();
    bytes[at] ^= 1;
    return bytes;
  };
  // The layout of docs/PROTOCOL.md §11.7: version, leaf, epoch, counter, ciphertext.
  const changed = [flipped(0), flipped(1), flipped(10), flipped(30), message.slice(0, 20)];
  for (const bytes of changed) two.keys.onSealed(bytes);
  two.keys.onSealed(message);
  two.keys.onSealed(message);
  const { opened, refused } = two.keys.counters().sealed;
  assert.equal(opened, before.opened + 1);
  assert.deepEqual(refused, { short: 1, malformed: 1, unknownSender: 1, unknownKey: 1, inauthentic: 1, replayed: 1 });
  two.deaf = false;
  await room.run(10);
  two.keys.onMessage(Uint8Array.of(1, 99));
  two.keys.onMessage(Uint8Array.of(2));
  assert.deepEqual(two.keys.counters().handshakes.refused, { unreadable: { wire: 2 } });
  assert.equal(new GroupKeys(1, {}, one.clock).counters(), null);
});
