/**
 * Group keys as the page sees them: joins the room's group, carries its messages between the worker
 * and the relay, and knows who is in (docs/PROTOCOL.md §11).
 */
import { decodeBase64, encodeBase64 } from "./base64.js";
import type { Connection } from "./connection.js";
import type { GroupNotice, GroupSnapshot, Issuer, MemberSnapshot } from "./e2ee/messages.js";
import type { Sealing } from "./e2ee/sealing.js";
import { Emitter } from "./emitter.js";
import { RelayError, SealcastError, WorkerError } from "./errors.js";
import type { Joined, RelayEvent } from "./protocol.js";

/** What the application's issuer says of a person, given the public key of their device. */
export interface Vouched {
  /** For everybody to see, the relay included: without a name. */
  assertion: string;
  /** The same with a name, which only members get to see. */
  named?: string;
}

export interface IdentityOptions {
  /** Whose word on members is believed. Without one, nobody is verified. */
  issuer?: Issuer;
  /** Gets an assertion from the issuer for this device's key; `undefined` where there is none. */
  vouch?: (key: JsonWebKey, room: string) => Promise<Vouched | undefined>;
  /** What others are shown, by this person's own word. */
  name?: string;
}

interface GroupEvents {
  changed: GroupSnapshot;
  notice: GroupNotice;
  /** A member sent a message of the application. */
  said: { participant: string; body: unknown };
  failed: SealcastError;
}

/** Bytes of randomness in the id of somebody without an identity. */
const ID_BYTES = 8;

interface Saying {
  fleeting: boolean;
  resolve(): void;
  reject(error: SealcastError): void;
}

export class RoomGroup extends Emitter<GroupEvents> {
  readonly #connection: Connection;
  readonly #sealing: Sealing;
  readonly #identity: IdentityOptions;
  #room = "";
  #participant = "";
  #joined = false;
  #snapshot: GroupSnapshot | undefined;
  #nextRequest = 1;
  /** Messages of the application that are being sealed. */
  readonly #saying = new Map<number, Saying>();

  constructor(connection: Connection, sealing: Sealing, identity: IdentityOptions) {
    super();
    this.#connection = connection;
    this.#sealing = sealing;
    this.#identity = identity;
    sealing.on("group-key", (key) => void this.#join(key));
    sealing.on("group-send", (message) => void this.#send(message));
    sealing.on("sealed-send", ({ message, request }) => void this.#sendSealed(message, request));
    sealing.on("say-refused", ({ request, message }) => {
      this.#take(request)?.reject(new WorkerError(message));
    });
    connection.on("data", (message) => {
      if (!sealing.hasLinkKey) sealing.sealedMessage(message, null);
    });
    sealing.on("group-changed", (snapshot) => {
      this.#snapshot = snapshot;
      this.emit("changed", snapshot);
    });
    sealing.on("group-notice", (notice) => this.emit("notice", notice));
    sealing.on("said", (said) => this.emit("said", said));
  }

  /** What is known of the group; `undefined` in rooms with link keys, and before it was joined. */
  get snapshot(): GroupSnapshot | undefined {
    return this.#snapshot;
  }

  /** The member that says it is this participant. */
  memberOf(participant: string): MemberSnapshot | undefined {
    return this.#snapshot?.members.find((member) => member.participant === participant);
  }

  /** The room was joined, for the first time or afresh. */
  onJoined({ room, participant, keys, group_suite: suite }: Joined): void {
    this.#room = room;
    this.#participant = participant;
    if (this.#sealing.hasLinkKey || keys !== "group") return;
    if (this.#sealing.hasKey) this.#sealing.groupConnected(participant);
    else this.#sealing.startGroup(suite ?? 1);
  }

  onResumed(): void {
    if (!this.#sealing.hasLinkKey && this.#sealing.hasKey) this.#sealing.groupConnected(this.#participant);
  }

  onEvent(event: RelayEvent): void {
    if (event.type !== "group" && event.type !== "sealed") return;
    const message = decodeBase64(event.data);
    if (!message) return;
    if (event.type === "group") this.#sealing.groupMessage(message);
    else this.#sealing.sealedMessage(message, event.participant);
  }

  /**
   * Seals a message for everybody in the group and has the relay hand it on.
   *
   * @param fleeting it is out of date in a moment: it goes over the data channel, and is lost where
   *   that does not take it
   */
  say(body: unknown, fleeting: boolean): Promise<void> {
    const request = this.#nextRequest++;
    return new Promise((resolve, reject) => {
      this.#saying.set(request, { fleeting, resolve, reject });
      this.#sealing.say(request, body);
    });
  }

  /** Asks for new keys, for instance when a device may have been in others' hands. */
  rotate(): void {
    this.#sealing.rotate();
  }

  async #join(key: JsonWebKey): Promise<void> {
    if (this.#joined) return;
    this.#joined = true;
    const { issuer, vouch, name } = this.#identity;
    try {
      const vouched = await vouch?.(key, this.#room);
      this.#sealing.joinGroup({
        config: issuer ? { issuer: { ...issuer, room: this.#room } } : {},
        claim: vouched ? `jwt:${vouched.assertion}` : `id:${randomId()}`,
        participant: this.#participant,
        ...(name ? { name } : {}),
        ...(vouched?.named === undefined ? {} : { named: vouched.named }),
      });
    } catch (error) {
      if (!(error instanceof SealcastError)) throw error;
      this.emit("failed", error);
    }
  }

  async #send(message: Uint8Array): Promise<void> {
    try {
      await this.#connection.request("group", { data: encodeBase64(message) });
    } catch (error) {
      // A lost connection is followed by a new one, and by a new Hello.
      if (error instanceof RelayError) this.#sealing.groupRefused();
    }
  }

  async #sendSealed(message: Uint8Array<ArrayBuffer>, request: number | null): Promise<void> {
    const saying = request === null ? undefined : this.#take(request);
    try {
      if (saying?.fleeting) this.#connection.sendData(message);
      else await this.#connection.request("sealed", { data: encodeBase64(message) });
      saying?.resolve();
    } catch (error) {
      // Who we are, which is what the worker sends by itself, is asked for again.
      if (error instanceof SealcastError) saying?.reject(error);
      else throw error;
    }
  }

  #take(request: number): Saying | undefined {
    const saying = this.#saying.get(request);
    this.#saying.delete(request);
    return saying;
  }
}

function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(ID_BYTES));
  return `guest-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
