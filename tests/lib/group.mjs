// Members of a room's group (docs/PROTOCOL.md §11) over real signalling and real media: werift for
// the wire, the browsers' cryptography in WebAssembly for the rest. And an issuer of identities.

import { createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import { Client, loadWasm } from "./client.mjs";
import { until } from "./relay.mjs";

const wasm = await loadWasm();

const now = () => performance.timeOrigin + performance.now();

/** The application's issuer, which the relay knows nothing of. */
export class TestIssuer {
  #keys = generateKeyPairSync("ed25519");

  constructor(room) {
    this.room = room;
  }

  /** What members verify others with. */
  get verifier() {
    const keys = [createPublicKey(this.#keys.privateKey).export({ format: "jwk" })];
    return { issuer: "https://clinic.example", audience: "sealcast-identity", room: this.room, keys };
  }

  assert(subject, jwk, fields = {}) {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const { issuer, audience } = this.verifier;
    const exp = Math.floor(Date.now() / 1000) + 600;
    const claims = { iss: issuer, aud: audience, room: this.room, sub: subject, exp, cnf: { jwk }, ...fields };
    const signed = `${part({ alg: "EdDSA" })}.${part(claims)}`;
    return `${signed}.${sign(null, Buffer.from(signed), this.#keys.privateKey).toString("base64url")}`;
  }
}

/** A participant of a room with group keys. */
export class GroupPeer {
  events = [];
  /** Sealed messages of others, as they came over the wire. */
  sealed = [];
  /** What the relay did not take, and what the member did not. */
  refusals = [];
  /** Called with each event of signalling. */
  onRoomEvent = () => {};
  #timer;
  #closed = false;

  /**
   * @param identify makes the claim: is given the member's public key; default: an unverified id
   * @param config of the member, see crypto/wasm
   */
  static async join(relay, token, { identify = () => "id:nobody", config = {} } = {}) {
    const peer = new GroupPeer();
    peer.relay = relay;
    await peer.#signIn(token);
    const key = new wasm.MemberKey(peer.client.joined.group_suite);
    const claim = await identify(JSON.parse(key.publicJwk()));
    peer.member = new wasm.GroupMember(now(), JSON.stringify(config), key, claim);
    peer.pump();
    return peer;
  }

  async #signIn(token) {
    this.client = await Client.join(this.relay, token);
    this.client.signal.onEvent = (event) => this.#onEvent(event);
  }

  /** The relay forgot this participant, or never knew it: joins anew, with the group it holds. */
  async rejoin(token) {
    await this.client.close();
    await this.#signIn(token);
    this.member.handleConnected(now());
    this.pump();
  }

  /** The socket is new, the participant is the same. */
  reconnected() {
    this.client.signal.onEvent = (event) => this.#onEvent(event);
    this.member.handleConnected(now());
    this.pump();
  }

  #onEvent(event) {
    this.onRoomEvent(event);
    if (event.type === "sealed") this.sealed.push(event);
    if (event.type !== "group" || this.#closed) return;
    try {
      this.member.handleMessage(now(), Buffer.from(event.data, "base64"));
    } catch (error) {
      this.refusals.push(`member: ${error.message}`);
    }
    this.pump();
  }

  /** Sends what is to be sent, and sets the timer. */
  pump() {
    if (this.#closed) return;
    for (let bytes; (bytes = this.member.pollOutgoing()) !== undefined; ) {
      const data = Buffer.from(bytes).toString("base64");
      this.client.signal.request("group", { data }).catch((error) => this.refusals.push(error.code ?? error.message));
    }
    for (let event; (event = this.member.pollEvent()) !== undefined; ) this.events.push(JSON.parse(event));
    clearTimeout(this.#timer);
    const at = this.member.pollTimeout();
    if (at === undefined) return;
    this.#timer = setTimeout(() => {
      this.member.handleTimeout(now());
      this.pump();
    }, Math.max(0, at - now()));
  }

  members() {
    return JSON.parse(this.member.members());
  }

  /** Publishes sealed video, 50 frames a second, whose contents `body` gives. */
  async publish(body, context = 0x1234) {
    this.track = await this.client.publish("video", "camera", [context]);
    let number = 0;
    clearInterval(this.frames);
    this.frames = setInterval(() => {
      if (this.member.sendingEpoch() === undefined) return;
      const key = number % 5 === 0;
      const header = key ? [0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x40, 1, 0xb4, 0] : [0x11, 0, 0];
      const frame = Buffer.concat([Buffer.from(header), body(number++)]);
      this.client.send("video", Buffer.from(this.member.seal(context, "vp8", frame)));
    }, 20);
  }

  /** Shows `track` in the first slot; what arrives is in `wire()`, sealed. */
  async watch(track) {
    this.mid = await this.client.show("video", 0, track);
  }

  wire() {
    return this.client.received.get(this.mid) ?? [];
  }

  /** Opens a frame; `undefined` where it does not open. */
  open(frame) {
    try {
      return Buffer.from(this.member.open("vp8", frame));
    } catch {
      return undefined;
    }
  }

  /** Waits until frames arrive that open, and returns the first. */
  async opens(seconds = 20) {
    let at = this.wire().length;
    return until("a frame that opens", () => {
      const frames = this.wire();
      while (at < frames.length) {
        const plain = this.open(frames[at++]);
        if (plain) return plain;
      }
      return undefined;
    }, seconds);
  }

  sendSealed(content) {
    const data = Buffer.from(this.member.sealMetadata(Buffer.from(content))).toString("base64");
    return this.client.signal.request("sealed", { data });
  }

  /** Leaves the room. The member and every key it holds stay, for the test to try. */
  async leave() {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearInterval(this.frames);
    await this.client.signal.request("leave");
    await this.client.close();
  }
}

/** Waits until the peers, and nobody else, are one group and seal with its keys. */
export function agreed(peers, seconds = 20) {
  return until(
    `${peers.length} members agree`,
    () => {
      const [first] = peers;
      const code = first.member.code();
      return (
        code !== undefined &&
        peers.every(
          ({ member }) =>
            member.code() === code &&
            member.sendingEpoch() === member.epoch() &&
            JSON.parse(member.members()).length === peers.length,
        )
      );
    },
    seconds,
  );
}
