// One room on two shards, with native clients that check every byte: half of them sit on each
// shard, all publish and all watch, some leave and come back.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { binary, startRelay } from "../lib/relay.mjs";

const load = path.join(path.dirname(binary), "sealcast-load");

const SCENARIO = `
name = "spread"
about = "A room of six on two shards, some of whom reconnect."
rooms = 1
joins_per_second = 10
warm_up = 2
duration = 12
slo = [
    "seal_failures = 0",
    "content_failures = 0",
    "misrouted = 0",
    "silent_slots = 0",
    "join_failures = 0",
]

[[roles]]
name = "participant"
count = 6
audio_slots = 5
video_slots = 5

[roles.audio]
bitrate = 40000
speaking = 0.5

[roles.video]
width = 320
height = 180
fps = 15
bitrate = 250000
key_factor = 6.0

[churn]
share = 0.34
within = 5
every = 6
slot_changes = 0.1
`;

const config = (secret, media, address) => `
[auth]
algorithm = "HS256"
issuer = "test"
audience = "test"
keys = [{ kid = "k", file = "${secret}" }]

[http]
listen = ["${address.includes(":") ? `[${address}]` : address}:0"]

[media]
bind = ["${address}"]
announce_loopback = true
udp_port = 0
tcp_port = 0
shards = 2
${media}

[rooms]
spread_participants = 3
`;

/** Runs the load generator; gives its exit code and what it printed. */
async function run(relay, dir, secret) {
  const scenario = path.join(dir, "spread.toml");
  writeFileSync(scenario, SCENARIO);
  const argv = ["run", scenario, "--against", relay.url];
  argv.push("--key", secret, "--algorithm", "HS256", "--kid", "k", "--issuer", "test", "--audience", "test");
  // The generator's own lag says something about this machine, and nothing about the relay.
  argv.push("--max-lag", "10000", "--max-lag-p99", "5000");
  const child = spawn(load, argv, { stdio: ["ignore", "pipe", "pipe"] });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (text += data));
  const code = await new Promise((resolve) => child.once("exit", resolve));
  return { code, text };
}

/**
 * Runs the scenario against a relay with two shards, whose sockets are on `address`, where clients
 * then have theirs; `check` looks at its metrics afterwards.
 */
async function loaded(media, check, address = "127.0.0.1") {
  if (!existsSync(load)) throw new Error(`no load generator at ${load}: cargo build --release -p sealcast-load`);
  const dir = mkdtempSync(path.join(tmpdir(), "sealcast-spread-"));
  const secret = path.join(dir, "secret");
  writeFileSync(secret, randomBytes(32).toString("hex"));
  const relay = await startRelay({ config: config(secret, media, address) });
  try {
    const { code, text } = await run(relay, dir, secret);
    assert.equal(code, 0, text);
    for (const shard of ["0", "1"]) {
      const at = async (name, labels = {}) => await relay.metric(name, { shard, ...labels });
      assert.ok((await at("sealcast_sessions_connected_total")) >= 3, `clients sat on shard ${shard}`);
      // Three publishers at 15 frames and 50 audio packets a second: far more than this crossed.
      assert.ok((await at("sealcast_mesh_messages_total", { outcome: "sent" })) > 1000, `shard ${shard} sent packets on`);
      assert.ok((await at("sealcast_mesh_received_total")) > 1000, `shard ${shard} got packets`);
      assert.equal(await at("sealcast_session_panics_total"), 0);
    }
    await check(relay);
  } finally {
    const how = await relay.stop();
    rmSync(dir, { recursive: true, force: true });
    assert.equal(how.code, 0, "the relay ends as it should");
  }
}

test("a room on two shards: every frame whole and where it belongs, with clients that come and go", async () => {
  await loaded("", async (relay) => {
    assert.equal(await relay.metric("sealcast_handed_on_total"), 0);
  });
});

test("the same on one port: what the kernel gives to the wrong shard reaches the right one", async () => {
  await loaded("single_port = true", async (relay) => {
    // Of a dozen 5-tuples half are expected to hash to the other shard.
    assert.ok((await relay.metric("sealcast_handed_on_total")) > 100);
  });
});

test("the same on one port of IPv6", async () => {
  await loaded(
    "single_port = true",
    async (relay) => {
      assert.match(relay.log(), /\[::1\]/, "media is on IPv6");
      assert.ok((await relay.metric("sealcast_handed_on_total")) > 100);
      // One port for both: what either shard says it is bound to.
      const ports = new Set([...relay.log().matchAll(/udp=\S*\[::1\]:(\d+)/g)].map((found) => found[1]));
      assert.equal(ports.size, 1, "both shards are on one port");
    },
    "::1",
  );
});
