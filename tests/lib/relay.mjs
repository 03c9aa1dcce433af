// Starts the relay under test with a configuration of its own, and ends it again.
//
// The binary is SEALCAST_BIN, or target/release/sealcast. Each relay listens on loopback, on ports
// the kernel chose, and writes its log to a file that tests may read.

import { spawn } from "node:child_process";
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

const root = path.resolve(import.meta.dirname, "../..");
export const binary = process.env.SEALCAST_BIN ?? path.join(root, "target/release/sealcast");

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `check` returns something truthy, and returns it. Fails after `seconds`. */
export async function until(what, check, seconds = 60) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`timed out after ${seconds} s: ${what}`);
    await sleep(50);
  }
}

/** Starts a relay. `config` is TOML text for `--config`; without it the development mode is used. */
export async function startRelay({ config = null, args = [], env = {} } = {}) {
  if (!existsSync(binary)) throw new Error(`no relay at ${binary}: cargo build --release -p sealcast`);
  const dir = mkdtempSync(path.join(tmpdir(), "sealcast-test-"));
  const logPath = path.join(dir, "relay.log");
  const argv = ["serve"];
  if (config === null) argv.push("--dev");
  else {
    writeFileSync(path.join(dir, "sealcast.toml"), config);
    argv.push("--config", path.join(dir, "sealcast.toml"));
  }
  const log = openSync(logPath, "a");
  const child = spawn(binary, [...argv, ...args], { env: { ...process.env, ...env }, stdio: ["ignore", log, log] });
  closeSync(log);
  const exited = new Promise((resolve) => child.once("exit", (code, signal) => resolve({ code, signal })));
  let over = null;
  exited.then((how) => (over = how));
  const readLog = () => readFileSync(logPath, "utf8");

  const url = await until(
    "the relay prints its URL",
    () => {
      if (over) throw new Error(`the relay ended at start (${JSON.stringify(over)}):\n${readLog()}`);
      return /Consult page: (https?:\/\/\S+)/.exec(readLog())?.[1];
    },
    20,
  );
  const relay = {
    pid: child.pid,
    url: url.replace(/\/+$/, ""),
    log: readLog,
    exited,
    dir,
    /** Prometheus text of the relay. */
    metrics: async () => await (await fetch(`${relay.url}/metrics`)).text(),
    /** Sum of a metric's series whose labels include `labels`. */
    metric: async (name, labels = {}) => sumMetric(await relay.metrics(), name, labels),
    token: async (room, grants) => {
      const reply = await fetch(`${relay.url}/dev/token`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ room, grants }),
      });
      if (!reply.ok) throw new Error(`dev token: ${reply.status} ${await reply.text()}`);
      return (await reply.json()).token;
    },
    stop: async (signal = "SIGTERM") => {
      if (!over) child.kill(signal);
      const how = await exited;
      rmSync(dir, { recursive: true, force: true });
      return how;
    },
  };
  return relay;
}

export function sumMetric(text, name, labels = {}) {
  let sum = 0;
  for (const line of text.split("\n")) {
    const match = /^([a-z_]+)(?:\{([^}]*)\})? (\S+)$/.exec(line);
    if (!match || match[1] !== name) continue;
    const has = Object.entries(labels).every(([k, v]) => (match[2] ?? "").includes(`${k}="${v}"`));
    if (has) sum += Number(match[3]);
  }
  return sum;
}

/** Runs a peer that prints JSON lines. `lines` grows; `closeInput` tells a publisher to end. */
export function startPeer(command, args) {
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"] });
  const peer = { lines: [], errors: "", pid: child.pid };
  let rest = "";
  child.stdout.on("data", (data) => {
    const parts = (rest + data).split("\n");
    rest = parts.pop();
    for (const part of parts.filter(Boolean)) {
      try {
        peer.lines.push(JSON.parse(part));
      } catch {
        peer.errors += `${part}\n`;
      }
    }
  });
  child.stderr.on("data", (data) => (peer.errors += data));
  peer.exited = new Promise((resolve) => child.once("exit", (code) => resolve(code)));
  let code = null;
  peer.exited.then((c) => (code = c ?? -1));
  peer.line = (state, seconds = 60) =>
    until(
      `${command} ${args[0]} says ${state}`,
      () => {
        const line = peer.lines.find((l) => l.state === state);
        if (!line && code !== null) throw new Error(`peer ended with ${code}: ${JSON.stringify(peer.lines)}\n${peer.errors}`);
        return line;
      },
      seconds,
    );
  peer.closeInput = () => child.stdin.end();
  peer.kill = () => child.kill("SIGKILL");
  return peer;
}

export const paths = {
  root,
  python: path.join(root, "tests/.venv/bin/python"),
  systemPython: "/usr/bin/python3",
  interop: path.join(root, "tests/interop"),
};
