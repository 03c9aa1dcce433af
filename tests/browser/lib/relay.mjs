/**
 * A relay of one's own for each test, from the binary `SEALCAST_BIN`, with a configuration and a
 * token key made for it. With `SEALCAST_URL` instead, one that runs already, in development mode.
 */
import { execFile, spawn } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { sumMetric } from "../../lib/relay.mjs";

const run = promisify(execFile);

const START_TIMEOUT_MS = 20_000;
const STOP_TIMEOUT_MS = 20_000;
const TOKEN_TTL_S = 3_600;
const ISSUER = "sealcast-browser-tests";

/**
 * @param address where HTTP listens and media goes: `127.0.0.1` or `::1`
 * @param rooms lines for the configuration's `[rooms]`
 * @param media lines for its `[media]`
 * @param lab a netlab at whose end `b` the relay runs, on `address` there
 * @returns `url`, `token(room)` for links (`undefined` where the relay makes its own), `log()`,
 *   `metric(name, labels)`, `restart()` on the same port, and `stop()`
 */
export async function startRelay({ address = "127.0.0.1", rooms = "", media = "", lab } = {}) {
  if (process.env.SEALCAST_URL) {
    const url = process.env.SEALCAST_URL.replace(/\/$/, "");
    return { url, token: () => undefined, log: () => "", stop: async () => {} };
  }
  const binary = process.env.SEALCAST_BIN;
  if (!binary) throw new Error("set SEALCAST_BIN to the relay's binary, or SEALCAST_URL to a running relay");
  const directory = mkdtempSync(join(tmpdir(), "sealcast-relay-"));
  const secret = randomBytes(48).toString("base64url");
  const config = join(directory, "sealcast.toml");
  const host = address.includes(":") ? `[${address}]` : address;
  // A namespace of one's own has all ports free.
  const port = lab ? 7_880 : await freePort(address);
  writeFileSync(join(directory, "secret"), secret);
  writeFileSync(config, configuration({ host, port, address, directory, rooms, media }));
  const url = `http://${host}:${port}`;
  const serve = ["serve", "--config", config];
  const [command, arguments_] = lab ? lab.inside("b", binary, serve) : [binary, serve];
  const get = lab ? (path) => getInside(lab, url + path) : (path) => getText(url + path);
  let running = await launch(command, arguments_, get);
  return {
    url,
    token: (room) => mint(secret, room),
    log: () => running.log(),
    async restart() {
      await running.stop();
      running = await launch(command, arguments_, get);
    },
    /** Sum of a metric's series whose labels include `labels`. */
    metric: async (name, labels = {}) => sumMetric(await get("/metrics"), name, labels),
    async stop() {
      await running.stop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

function configuration({ host, port, address, directory, rooms, media }) {
  return `
[http]
listen = ["${host}:${port}"]
[auth]
algorithm = "HS256"
issuer = "${ISSUER}"
keys = [{ kid = "test", file = "${join(directory, "secret")}" }]
[rooms]
delivery_seed = "delivery-seed"
${rooms}
[media]
bind = ["${address}"]
udp_port = 0
tcp_port = 0
shards = 1
pin = false
${media}
[log]
level = "debug"
`;
}

async function launch(command, arguments_, get) {
  const child = spawn(command, arguments_, { stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (log += chunk));
  const exited = new Promise((resolve) => child.once("exit", (code, signal) => resolve({ code, signal })));
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (!(await isReady(get))) {
    const ended = child.exitCode !== null || child.signalCode !== null;
    if (ended || performance.now() > deadline) {
      child.kill("SIGKILL");
      throw new Error(`the relay did not come up:\n${log}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return {
    log: () => log,
    async stop() {
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
      const { code, signal } = await exited;
      clearTimeout(timer);
      if (code !== 0) throw new Error(`the relay ended with ${code ?? signal}:\n${log}`);
    },
  };
}

async function isReady(get) {
  try {
    await get("/readyz");
    return true;
  } catch {
    return false;
  }
}

async function getText(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address} answered ${response.status}`);
  return response.text();
}

/** As {@link getText}, for addresses that exist in the netlab alone. */
async function getInside(lab, address) {
  const script = `fetch(${JSON.stringify(address)}).then(async (r) => { if (!r.ok) process.exit(1); process.stdout.write(await r.text()); })`;
  const { stdout } = await run(...lab.inside("b", process.execPath, ["-e", script]));
  return stdout;
}

function freePort(address) {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, address, () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** A join token (docs/PROTOCOL.md §2), HS256. */
function mint(secret, room) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    iss: ISSUER,
    aud: "sealcast",
    exp: now + TOKEN_TTL_S,
    sub: `tester-${randomBytes(4).toString("hex")}`,
    room,
    grants: { publish: ["audio", "camera", "screen", "imaging"], subscribe: true },
  };
  const signed = `${encode({ alg: "HS256", typ: "JWT", kid: "test" })}.${encode(claims)}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}
