import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnectionLostError, RemovedError } from "../src/errors.js";
import {
  MEDIA_CONNECT_MS,
  MEDIA_DISCONNECTED_MS,
  MEDIA_GIVE_UP_MS,
  Recovery,
  type RecoveryAction,
  type RecoveryInput,
  SIGNAL_BACKOFF_MS,
  SIGNAL_GIVE_UP_MS,
} from "../src/recovery.js";
import { randomFrom } from "./random.js";

const GRACE_MS = 30_000;
const dropped = (fatal = false): RecoveryInput => ({
  type: "socket-lost",
  error: new ConnectionLostError("dropped"),
  fatal,
});

/** A recovery with a clock of its own that records what it is told to do. */
class Bench {
  now = 1_000;
  readonly recovery: Recovery;
  readonly actions: string[] = [];

  constructor(random: () => number = () => 0) {
    this.recovery = new Recovery(random);
    this.feed({ type: "joined", graceMs: GRACE_MS });
    this.feed({ type: "media-connecting" });
    this.feed({ type: "media-connected" });
  }

  feed(input: RecoveryInput): RecoveryAction[] {
    this.recovery.handle(this.now, input);
    const actions: RecoveryAction[] = [];
    for (let action = this.recovery.poll(); action; action = this.recovery.poll()) actions.push(action);
    this.actions.push(...actions.map(({ type }) => type));
    return actions;
  }

  /** Lets the time come that the machine waits for. */
  wake(): RecoveryAction[] {
    const deadline = this.recovery.deadline();
    assert.notEqual(deadline, undefined, "nothing is waited for");
    this.now = Math.max(this.now, deadline ?? 0);
    return this.feed({ type: "time" });
  }
}

test("a dropped socket is resumed at once, and media is left alone", () => {
  const bench = new Bench();
  assert.deepEqual(bench.feed(dropped()), [{ type: "resume" }]);
  assert.equal(bench.recovery.phase, "signalling");
  bench.feed({ type: "resumed", mediaAlive: true });
  assert.equal(bench.recovery.phase, "steady");
  assert.equal(bench.recovery.deadline(), undefined);
  assert.deepEqual(bench.actions, ["resume"]);
});

test("attempts back off, and after the grace period the room is joined afresh", () => {
  const bench = new Bench();
  const start = bench.now;
  const waits: number[] = [];
  bench.feed(dropped());
  while (bench.actions.at(-1) !== "join") {
    const before = bench.now;
    bench.feed(dropped());
    bench.wake();
    waits.push(bench.now - before);
  }
  assert.deepEqual(waits.slice(0, 4), SIGNAL_BACKOFF_MS.slice(1));
  assert.ok(bench.now - start >= GRACE_MS, "no fresh join while the relay still remembers");
  assert.ok(bench.now - start < GRACE_MS + 5_000);
});

test("a refused resume turns into a fresh join at once", () => {
  const bench = new Bench();
  bench.feed(dropped());
  assert.deepEqual(bench.feed({ type: "resume-refused" }), [{ type: "join" }]);
});

test("a resume that finds no media session restarts media", () => {
  const bench = new Bench();
  bench.feed(dropped());
  assert.deepEqual(bench.feed({ type: "resumed", mediaAlive: false }), [{ type: "restart-media" }]);
});

test("media that fails while the socket is down waits for the socket", () => {
  const bench = new Bench();
  bench.feed(dropped());
  assert.deepEqual(bench.feed({ type: "media-failed" }), []);
  assert.deepEqual(bench.feed({ type: "resumed", mediaAlive: true }), [{ type: "restart-media" }]);
});

test("ICE gets the chance to recover by itself before media is restarted", () => {
  const bench = new Bench();
  const start = bench.now;
  assert.deepEqual(bench.feed({ type: "media-disconnected" }), []);
  assert.equal(bench.recovery.deadline(), start + MEDIA_DISCONNECTED_MS);
  bench.now += MEDIA_DISCONNECTED_MS - 1;
  bench.feed({ type: "media-connected" });
  assert.equal(bench.recovery.deadline(), undefined);
  bench.feed({ type: "media-disconnected" });
  assert.deepEqual(bench.wake(), [{ type: "restart-media" }]);
});

test("a restarted media session gets time to connect, then another one is tried", () => {
  const bench = new Bench();
  bench.feed({ type: "media-failed" });
  const restarted = bench.now;
  bench.feed({ type: "media-connecting" });
  assert.deepEqual(bench.wake(), [{ type: "restart-media" }]);
  assert.ok(bench.now - restarted >= MEDIA_CONNECT_MS);
});

test("without media for a minute the room is given up", () => {
  const bench = new Bench();
  const start = bench.now;
  bench.feed({ type: "media-failed" });
  while (bench.recovery.phase !== "over") bench.wake();
  assert.equal(bench.actions.at(-1), "give-up");
  assert.ok(bench.now - start >= MEDIA_GIVE_UP_MS);
});

test("without a socket for two minutes the room is given up with the last error", () => {
  const bench = new Bench();
  const start = bench.now;
  let last: RecoveryAction[] = bench.feed(dropped());
  while (bench.recovery.phase !== "over") {
    bench.feed(dropped());
    last = bench.wake();
  }
  assert.ok(bench.now - start >= SIGNAL_GIVE_UP_MS);
  assert.equal(last[0]?.type === "give-up" ? last[0].error?.code : undefined, "connection_lost");
});

test("an error that repeating cannot mend ends it at once, and nothing follows", () => {
  const bench = new Bench();
  const error = new RemovedError("removed");
  assert.deepEqual(bench.feed({ type: "socket-lost", error, fatal: true }), [
    { type: "give-up", lane: "signalling", error },
  ]);
  assert.equal(bench.recovery.deadline(), undefined);
  assert.deepEqual(bench.feed({ type: "media-failed" }), []);
});

test("whatever happens in whatever order, it never has two attempts of one lane under way, nor stalls", () => {
  for (let seed = 1; seed <= 300; seed++) {
    const random = randomFrom(seed);
    const bench = new Bench(random);
    let socketUp = true;
    let attempting = false;
    for (let step = 0; step < 80 && bench.recovery.phase !== "over"; step++) {
      bench.now += random() * 3_000;
      const inputs: RecoveryInput[] = [{ type: "time" }];
      if (socketUp) {
        inputs.push(dropped(), { type: "media-connected" }, { type: "media-failed" }, { type: "media-disconnected" });
      } else {
        inputs.push({ type: "media-failed" }, { type: "media-disconnected" });
        if (attempting) {
          inputs.push(dropped(), { type: "resumed", mediaAlive: random() < 0.5 }, { type: "resume-refused" });
        }
      }
      const input = inputs[Math.floor(random() * inputs.length)] ?? { type: "time" };
      if (input.type === "socket-lost") [socketUp, attempting] = [false, false];
      if (input.type === "resumed") [socketUp, attempting] = [true, false];
      if (input.type === "resume-refused") attempting = false;
      for (const { type } of bench.feed(input)) {
        if (type === "give-up") break;
        const signalling = type === "resume" || type === "join";
        assert.equal(signalling, !socketUp, `seed ${seed}: ${type} with socket ${socketUp ? "up" : "down"}`);
        if (signalling) {
          assert.ok(!attempting, `seed ${seed}: two attempts at once`);
          attempting = true;
        }
      }
      const waitsForNothing = bench.recovery.deadline() === undefined;
      const mayWait = ["steady", "over"].includes(bench.recovery.phase) || attempting;
      assert.ok(!waitsForNothing || mayWait, `seed ${seed}, step ${step}: stalled in ${bench.recovery.phase}`);
    }
  }
});
