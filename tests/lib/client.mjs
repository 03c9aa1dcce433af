// A small Sealcast client over werift: docs/PROTOCOL.md and nothing else. It shares no code with
// @sealcast/client, so that the page is checked by a second implementation.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import path from "node:path";
import { paths, until } from "./relay.mjs";

const require = createRequire(path.join(paths.interop, "package.json"));
const WebSocket = require("ws");
const { MediaStreamTrack, RTCPeerConnection, RtpHeader, RtpPacket, useOPUS, useVP8 } = require("werift");

/** The frame cryptography, as browsers run it. */
export async function loadWasm() {
  const dir = path.join(paths.root, "client/wasm");
  const wasm = await import(path.join(dir, "sealcast_wasm.js"));
  wasm.initSync({ module: readFileSync(path.join(dir, "sealcast_wasm_bg.wasm")) });
  return wasm;
}

/** One signalling socket. Requests are promises; events collect in `events`. */
export class Signal {
  #socket;
  #waiting = new Map();
  #id = 0;
  events = [];
  errors = [];
  closed = null;
  /** Called with each event, as it comes. */
  onEvent = () => {};

  static async open(url) {
    const signal = new Signal();
    signal.#socket = new WebSocket(`${url.replace(/^http/, "ws")}/v1/signal`, "sealcast.v1", { rejectUnauthorized: false });
    signal.#socket.on("message", (data) => signal.#onMessage(JSON.parse(data)));
    signal.#socket.on("close", (code) => signal.#onClose(code));
    await new Promise((resolve, reject) => signal.#socket.once("open", resolve).once("error", reject));
    return signal;
  }

  #onMessage(message) {
    const waiting = this.#waiting.get(message.id);
    if (message.id === undefined) {
      (message.type === "error" ? this.errors : this.events).push(message);
      this.onEvent(message);
    }
    else if (waiting) {
      this.#waiting.delete(message.id);
      message.type === "error" ? waiting.reject(Object.assign(new Error(message.message), message)) : waiting.resolve(message);
    }
  }

  #onClose(code) {
    this.closed = code;
    for (const { reject } of this.#waiting.values()) reject(new Error(`socket closed: ${code}`));
    this.#waiting.clear();
  }

  request(type, fields = {}) {
    const id = ++this.#id;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#socket.send(JSON.stringify({ type, id, ...fields }));
    });
  }

  raw(data) {
    this.#socket.send(data);
  }

  event(type, check = () => true, seconds = 20) {
    return until(`event ${type}`, () => this.events.find((e) => e.type === type && check(e)), seconds);
  }

  /** Cuts the TCP connection without a closing handshake, as a lost network does. */
  cut() {
    this.#socket.terminate();
  }

  close() {
    this.#socket.close();
  }
}

/** A participant with one peer connection: audio and video senders, and slots. */
export class Client {
  slots = new Map(); // mid → track id
  received = new Map(); // mid → array of depacketized frames
  revision = new Map();
  data = []; // binary messages of the data channel

  static async join(relay, token, fields = {}) {
    const client = new Client();
    client.relay = relay;
    client.signal = await Signal.open(relay.url);
    client.joined = await client.signal.request("join", { protocol: 1, token, ...fields });
    return client;
  }

  get id() {
    return this.joined.participant;
  }

  /** Negotiates media: `senders` of ["audio", "video"], and as many slots of each kind. */
  async connect({ senders = [], slots = 0 } = {}) {
    this.pc = new RTCPeerConnection({
      bundlePolicy: "max-bundle",
      codecs: { audio: [useOPUS()], video: [useVP8()] },
      iceUseIpv6: false,
      iceAdditionalHostAddresses: ["127.0.0.1"],
    });
    this.channel = this.pc.createDataChannel("sealcast");
    this.channel.onMessage.subscribe((data) => this.#onData(data));
    this.tracks = new Map();
    for (const kind of senders) {
      const track = new MediaStreamTrack({ kind });
      this.tracks.set(kind, { track, transceiver: this.pc.addTransceiver(track, { direction: "sendonly" }), sequence: 0 });
    }
    this.receivers = { audio: [], video: [] };
    for (let i = 0; i < slots; i++) {
      for (const kind of ["audio", "video"]) this.receivers[kind].push(this.pc.addTransceiver(kind, { direction: "recvonly" }));
    }
    this.pc.onTransceiverAdded?.subscribe(() => {});
    for (const [kind, list] of Object.entries(this.receivers)) {
      for (const transceiver of list) transceiver.onTrack.subscribe((track) => this.#onTrack(kind, transceiver, track));
    }
    await this.pc.setLocalDescription(await this.pc.createOffer());
    const answer = await this.signal.request("offer", { sdp: this.pc.localDescription.sdp });
    await this.pc.setRemoteDescription({ type: "answer", sdp: answer.sdp });
    await this.signal.event("media_connected");
    await until("the data channel is open", () => this.channel.readyState === "open", 20);
  }

  #onTrack(kind, transceiver, track) {
    track.onReceiveRtp.subscribe((packet) => {
      const frames = this.received.get(transceiver.mid) ?? [];
      this.received.set(transceiver.mid, frames);
      frames.push(kind === "video" ? packet.payload.subarray(4) : packet.payload);
    });
  }

  #onData(data) {
    // Binary messages are sealed ones.
    if (typeof data !== "string") return void this.data.push(data);
    const message = JSON.parse(data);
    if (message.type !== "slot" || message.revision < (this.revision.get(message.mid) ?? 0)) return;
    this.revision.set(message.mid, message.revision);
    this.slots.set(message.mid, message.track);
  }

  async publish(kind, source, contexts) {
    const { transceiver } = this.tracks.get(kind);
    const fields = { mid: transceiver.mid, source, ...(contexts && { seal: { contexts } }) };
    return (await this.signal.request("publish", fields)).track;
  }

  async show(kind, index, track) {
    const mid = this.receivers[kind][index].mid;
    await this.signal.request("slots", { assign: [{ mid, track }] });
    return mid;
  }

  /** Sends one frame in one packet. Video frames get a VP8 descriptor with a 15-bit picture id. */
  send(kind, frame) {
    const stream = this.tracks.get(kind);
    const number = stream.sequence++;
    const video = kind === "video";
    const descriptor = [0x90, 0x80, 0x80 | ((number >> 8) & 0x7f), number & 0xff];
    const payload = video ? Buffer.concat([Buffer.from(descriptor), frame]) : Buffer.from(frame);
    const timestamp = (number * (video ? 3000 : 960)) >>> 0;
    const header = new RtpHeader({ payloadType: video ? 96 : 97, sequenceNumber: number & 0xffff, timestamp, marker: true });
    stream.track.writeRtp(new RtpPacket(header, payload));
    return number;
  }

  async close() {
    this.signal.close();
    await this.pc?.close();
  }
}

/** A VP8-like frame: a valid frame header (RFC 6386 section 9.1), then the body. */
export function vp8Frame(key, body) {
  const header = key ? [0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x40, 1, 0xb4, 0] : [0x11, 0, 0];
  return Buffer.concat([Buffer.from(header), body]);
}
