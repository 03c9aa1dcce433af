/**
 * A call where the kernel passes no UDP at all: relay and browsers run in a network namespace whose
 * packet filter drops every UDP packet, so that ICE-TCP alone can carry media. Needs root.
 *
 * The file runs itself again inside the namespace; there it is the call, outside it is the set-up.
 */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { launchChromium } from "./lib/browsers.mjs";
import { join, newConsult, stats, waitConnected, waitOpened } from "./lib/consult.mjs";
import { startRelay } from "./lib/relay.mjs";

const INSIDE = process.env.SEALCAST_UDP_IS_BLOCKED === "1";
const FRAMES = 100;
const LIMIT_MS = 240_000;

function callInNamespace() {
  const namespace = `sealcast-tcp-${process.pid}`;
  const ip = (...arguments_) => execFileSync("ip", arguments_, { stdio: "pipe" });
  ip("netns", "add", namespace);
  try {
    ip("-n", namespace, "link", "set", "lo", "up");
    const rules = "table inet block {\nchain out {\ntype filter hook output priority 0;\nmeta l4proto udp drop;\n}\n}\n";
    execFileSync("ip", ["netns", "exec", namespace, "nft", "-f", "-"], { input: rules });
    const { NODE_TEST_CONTEXT: _, ...environment } = process.env;
    const run = spawnSync("ip", ["netns", "exec", namespace, process.execPath, "--test", "--test-reporter=tap", fileURLToPath(import.meta.url)], {
      env: { ...environment, SEALCAST_UDP_IS_BLOCKED: "1" },
      encoding: "utf8",
      timeout: LIMIT_MS,
    });
    assert.equal(run.status, 0, `${run.stdout}\n${run.stderr}`);
    assert.match(run.stdout, /^# pass 2$/m, run.stdout);
  } finally {
    ip("netns", "del", namespace);
  }
}

async function noUdpPasses() {
  const receiver = createSocket("udp4");
  await new Promise((resolve) => receiver.bind(0, "127.0.0.1", resolve));
  let received = 0;
  receiver.on("message", () => received++);
  const sender = createSocket("udp4");
  for (let i = 0; i < 10; i++) {
    await new Promise((resolve) => sender.send("x", receiver.address().port, "127.0.0.1", resolve));
  }
  await new Promise((resolve) => setTimeout(resolve, 200));
  sender.close();
  receiver.close();
  assert.equal(received, 0);
}

async function callOverTcp() {
  const chromium = await launchChromium();
  const relay = await startRelay();
  const pages = [];
  try {
    const consult = newConsult();
    for (let i = 0; i < 2; i++) pages.push(await join(chromium, relay, consult));
    const [first, second] = pages;
    for (const page of pages) await waitConnected(page);
    await waitOpened(first, [second.participant], FRAMES);
    await waitOpened(second, [first.participant], FRAMES);
    for (const page of pages) assert.equal((await stats(page)).transport.protocol, "tcp");
  } finally {
    for (const page of pages) await page.close();
    await chromium.close();
    await relay.stop();
  }
}

if (INSIDE) {
  test("no UDP packet passes here", noUdpPasses);
  test("two people open each other's frames over TCP", callOverTcp);
} else {
  test("a call over ICE-TCP where UDP is blocked", callInNamespace);
}
