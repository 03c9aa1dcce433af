// Janus with a WHIP and a WHEP server of its makers' in front, for testing the load tester against an
// SFU that is not ours: Debian's janus and simple-whip-server, and janus-whep-server from npm. The
// WHIP server publishes into a VideoRoom, which forwards RTP to a mountpoint of the Streaming plugin,
// which the WHEP server plays from: the set-up that their makers describe.
//
// usage: sfu.mjs WHIP_SERVER_SOURCES ADDRESS COMMAND...
//
// Runs the command with WHIP_URL and WHEP_URL in its environment, and ends with its exit code. Janus
// uses no loopback address, so ADDRESS must be another one of this machine, or of its namespace.

import { spawn } from "node:child_process";
import dgram from "node:dgram";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { JanusWhepServer } from "janus-whep-server";

const [, , whipSources, host, ...command] = process.argv;
const here = import.meta.dirname;
const room = 1;
const mountpoint = 1;
const dir = fs.mkdtempSync(path.join(os.tmpdir(), "sealcast-janus-"));

const freeTcp = () =>
  new Promise((resolve) => {
    const server = net.createServer().listen(0, host, () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

/** Ports at the same time, so that they differ. */
async function freeUdp(count) {
  const sockets = await Promise.all(
    Array.from({ length: count }, () => new Promise((resolve) => {
      const socket = dgram.createSocket("udp4");
      socket.bind(0, host, () => resolve(socket));
    })),
  );
  const ports = sockets.map((socket) => socket.address().port);
  sockets.forEach((socket) => socket.close());
  return ports;
}

/** A process that is killed when this one ends, however it ends. */
function start(name, command, options) {
  const log = fs.openSync(path.join(dir, `${name}.log`), "w");
  const child = spawn("setpriv", ["--pdeathsig", "KILL", ...command], { stdio: ["ignore", log, log], ...options });
  child.on("exit", (code, signal) => {
    const tail = fs.readFileSync(path.join(dir, `${name}.log`), "utf8").split("\n").slice(-20).join("\n");
    console.error(`${name} ended (${code ?? signal}):\n${tail}`);
    process.exit(1);
  });
}

async function listening(port) {
  for (;;) {
    const connected = await new Promise((resolve) => {
      const socket = net.connect(port, host, () => resolve(true));
      socket.on("error", () => resolve(false)).on("connect", () => socket.destroy());
    });
    if (connected) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function startJanus(api, [audio, video, feedback]) {
  const files = {
    "janus.jcfg": `
      general: { debug_level = 4, debug_colors = false, configs_folder = "${dir}",
        protected_folders = [], server_name = "test" }
      nat: { ice_enforce_list = "${host}" }
      media: { ipv6 = false }
      plugins: { disable = "${["audiobridge", "duktape", "echotest", "lua", "nosip", "recordplay", "sip", "textroom",
        "videocall", "voicemail"].map((plugin) => `libjanus_${plugin}.so`).join(",")}" }
      transports: { disable = "${["http", "mqtt", "nanomsg", "pfunix", "rabbitmq"]
        .map((transport) => `libjanus_${transport}.so`).join(",")}" }
      events: { broadcast = false }`,
    "janus.transport.websockets.jcfg": `
      general: { ws = true, ws_ip = "${host}", ws_port = ${api}, wss = false }
      admin: { admin_ws = false, admin_wss = false }`,
    "janus.plugin.videoroom.jcfg": `
      general: { events = false }
      room-${room}: { description = "test", publishers = 6, bitrate = 0, fir_freq = 0,
        audiocodec = "opus", videocodec = "vp8" }`,
    "janus.plugin.streaming.jcfg": `
      general: { events = false }
      test: { type = "rtp", id = ${mountpoint}, audio = true, video = true,
        audioport = ${audio}, audioiface = "${host}", audiopt = 111, audiocodec = "opus",
        videoport = ${video}, videortcpport = ${feedback}, videoiface = "${host}",
        videopt = 96, videocodec = "vp8" }`,
  };
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(dir, name), text);
  start("janus", ["janus", "--configs-folder", dir, "--config", path.join(dir, "janus.jcfg")]);
  await listening(api);
}

async function startWhip(janus, port, [audioPort, videoPort, videoRtcpPort]) {
  const sources = path.join(dir, "whip");
  fs.mkdirSync(sources);
  for (const file of ["server.js", "whip-janus.js"]) {
    fs.copyFileSync(path.join(whipSources, file), path.join(sources, file));
  }
  const config = { janus: { address: janus }, port, rest: "/whip", allowTrickle: true, strictETags: false, iceServers: [] };
  fs.writeFileSync(path.join(sources, "config.js"), `module.exports = ${JSON.stringify(config)};`);
  const env = { ...process.env, NODE_PATH: path.join(here, "node_modules"), DEBUG: "*:error,*:warn,*:info" };
  start("whip", [process.execPath, "server.js"], { cwd: sources, env });
  await listening(port);
  const created = await fetch(`http://${host}:${port}/whip/create`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ id: "test", room, recipient: { host, audioPort, videoPort, videoRtcpPort } }),
  });
  if (!created.ok) throw new Error(`no WHIP endpoint: ${created.status} ${await created.text()}`);
}

process.on("exit", () => fs.rmSync(dir, { recursive: true, force: true }));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(0));
const [api, whip, whep] = [await freeTcp(), await freeTcp(), await freeTcp()];
const forwarded = await freeUdp(3);
const address = `ws://${host}:${api}`;
await startJanus(api, forwarded);
await startWhip(address, whip, forwarded);
const server = new JanusWhepServer({ janus: { address }, rest: { port: whep, basePath: "/whep" }, debug: "warn" });
await server.start();
server.createEndpoint({ id: "test", mountpoint });
await listening(whep);
const env = {
  ...process.env,
  WHIP_URL: `http://${host}:${whip}/whip/endpoint/test`,
  WHEP_URL: `http://${host}:${whep}/whep/endpoint/test`,
};
const [program, ...args] = command;
const child = spawn(program, args, { stdio: "inherit", env });
child.on("exit", (code) => process.exit(code ?? 1));
