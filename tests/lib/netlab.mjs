// Two network namespaces joined by the seeded impairment forwarder. Needs root; everything made
// here is removed by close(), which runs whatever the test did.

import { execFileSync, spawn } from "node:child_process";
import path from "node:path";
import { paths, until } from "./relay.mjs";

const forwarder = process.env.SEALCAST_IMPAIR ?? path.join(paths.root, "target/release/sealcast-impair");
const ip = (...args) => execFileSync("ip", args, { stdio: ["ignore", "pipe", "pipe"] });

/** Addresses of the two ends: clients live at `a`, the relay at `b`. */
export const addresses = { a: "10.78.0.1", b: "10.78.0.2", a6: "fd78::1", b6: "fd78::2" };

export async function openNetlab({ seed = 1, ab = {}, ba = {}, seconds = 300 } = {}) {
  const names = { a: `sealcast-a-${process.pid}`, b: `sealcast-b-${process.pid}` };
  for (const name of Object.values(names)) {
    ip("netns", "add", name);
    ip("-n", name, "link", "set", "lo", "up");
  }
  const child = spawn(
    forwarder,
    ["--a", names.a, "--b", names.b, "--seed", String(seed), "--seconds", String(seconds),
     "--ab", JSON.stringify(ab), "--ba", JSON.stringify(ba)],
    { stdio: ["pipe", "pipe", "pipe"] },
  );
  let output = "";
  let ended = false;
  child.stdout.on("data", (data) => (output += data));
  child.stderr.on("data", (data) => (output += data));
  const exited = new Promise((resolve) => child.once("exit", resolve)).then(() => (ended = true));
  const lab = {
    names,
    /** Command and arguments that run a program at an end. */
    inside: (end, command, args = []) => ["ip", ["netns", "exec", names[end], command, ...args]],
    change: (direction, config) => child.stdin.write(`${JSON.stringify({ direction, config })}\n`),
    close: async () => {
      child.stdin.end();
      await exited;
      for (const name of Object.values(names)) ip("netns", "del", name);
      const last = output.trim().split("\n").at(-1) ?? "{}";
      return JSON.parse(last);
    },
  };
  try {
    await until("the forwarder is ready", () => {
      if (ended) throw new Error(`the forwarder ended: ${output}`);
      return output.includes('"ready"');
    }, 10);
  } catch (error) {
    await lab.close().catch(() => {});
    throw error;
  }
  return lab;
}
