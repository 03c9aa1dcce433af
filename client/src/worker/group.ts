/**
 * This participant's membership in the room's group (docs/PROTOCOL.md §11): the crypto module's
 * member, its timer, and what members tell each other sealed (§11.9).
 *
 * The relay says which participant a track belongs to, and the keys say which leaf sealed a frame.
 * Only a member's own sealed word ties the two together, so that the relay cannot show one person's
 * picture under another's name.
 */
import { GroupMember, MemberKey } from "sealcast-wasm";
import type { GroupConfig, GroupCounters, GroupNotice, GroupSnapshot, MemberSnapshot } from "../e2ee/messages.js";
import type { Opener, Sealer } from "./frames.js";
import { type Presence, decodeContent, encodeContent } from "./presence.js";

/** "0x100" up: the key id then takes five bytes, which cleartext does not look like by chance. */
const CONTEXTS = { from: 0x100, to: 0x1_0000 };

/** How often members are asked again who they are, in ms. */
const ASK_INTERVAL_MS = 5_000;
/** A member that has not said who it is within this time of an epoch's beginning is asked. */
const ASK_AFTER_MS = 2_000;
/** An answer to such a question goes out at most this often. */
const ANSWER_INTERVAL_MS = 1_000;
/** How long frames may fail before the group's state is asked for again, and how often, in ms. */
const RESYNC_AFTER_MS = 4_000;
const RESYNC_INTERVAL_MS = 15_000;
/** A message that the relay refused is followed by a new Hello after this time. */
const RETRY_AFTER_MS = 3_000;

export interface GroupOutput {
  /** For the delivery service. */
  send(message: Uint8Array): void;
  /** For the other members, sealed. `request`: the application's, if it is not of our own. */
  sealed(message: Uint8Array, request: number | null): void;
  /** What the page is to know has changed. */
  changed(snapshot: GroupSnapshot): void;
  notice(notice: GroupNotice): void;
  /** A member's message to the application. */
  message(participant: string, content: unknown): void;
}

/** Time, as an argument: tests bring their own. */
export interface Clock {
  /** In ms since the Unix epoch; never runs backwards, which the member relies on. */
  now(): number;
  /** Calls `action` in `ms`, unless the timer is stopped before. */
  start(ms: number, action: () => void): unknown;
  stop(timer: unknown): void;
}

const CLOCK: Clock = {
  now: () => performance.timeOrigin + performance.now(),
  start: (ms, action) => setTimeout(action, ms),
  stop: (timer) => clearTimeout(timer as ReturnType<typeof setTimeout> | undefined),
};

export class GroupKeys implements Opener {
  readonly #output: GroupOutput;
  readonly #suite: number;
  readonly #clock: Clock;
  #key: MemberKey | undefined;
  #member: GroupMember | undefined;
  #presence: Presence = { participant: "" };
  /** Who each leaf said it is, and whether the issuer vouches for its name. */
  readonly #people = new Map<number, Presence & { vouched: boolean }>();
  readonly #leaves = new Map<string, number>();
  readonly #contexts = new Map<string, number>();
  #epochSince = 0;
  #tellOnSending = true;
  #lastAsked = 0;
  #lastAnswered = 0;
  #answerTimer: unknown;
  #timer: unknown;
  #failingSince: number | undefined;
  #lastResync = 0;
  #refused: string | undefined;
  #waiting: { resolve(): void; reject(error: Error): void }[] = [];

  constructor(suite: number, output: GroupOutput, clock: Clock = CLOCK) {
    this.#suite = suite;
    this.#output = output;
    this.#clock = clock;
    this.#key = new MemberKey(suite);
  }

  /** The public key that an identity assertion is to name, as a JWK in JSON. */
  publicJwk(): string {
    return this.#key?.publicJwk() ?? "";
  }

  /** Asks to be let in. `claim` is `id:…` or `jwt:…`. */
  join(config: GroupConfig, claim: string, presence: Presence): void {
    const key = this.#key;
    if (!key) return;
    this.#key = undefined;
    this.#presence = presence;
    this.#member = new GroupMember(this.#clock.now(), JSON.stringify(config), key, claim);
    this.#pump();
  }

  /** The connection to the relay is new, maybe under another pseudonym. */
  onConnected(participant: string): void {
    this.#presence = { ...this.#presence, participant };
    this.#resync();
    // Sealed messages of the meantime are lost, in both directions.
    this.#tell();
    this.#ask();
  }

  onMessage(message: Uint8Array): void {
    this.#attempt(() => this.#member?.handleMessage(this.#clock.now(), message));
  }

  /** The relay did not take a message. */
  onRefused(): void {
    this.#clock.start(RETRY_AFTER_MS, () => this.#resync());
  }

  rotate(): void {
    this.#member?.requestRotation();
    this.#pump();
  }

  // Media.

  /** Resolves once there are keys to seal with. */
  ready(): Promise<void> {
    if (this.#member?.sendingEpoch() !== undefined) return Promise.resolve();
    if (this.#refused !== undefined) return Promise.reject(new Error(this.#refused));
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** The context of a sending line, which stays the same: one encoder, one sealer (§7.2). */
  contextOf(line: string): number {
    const known = this.#contexts.get(line);
    if (known !== undefined) return known;
    const taken = new Set(this.#contexts.values());
    for (;;) {
      const [random = 0] = crypto.getRandomValues(new Uint16Array(1));
      if (random < CONTEXTS.from || taken.has(random)) continue;
      this.#contexts.set(line, random);
      return random;
    }
  }

  /** A sealer for `context`; `undefined` while there is no key. */
  sealer(context: number): Sealer | undefined {
    const member = this.#member;
    if (member?.sendingEpoch() === undefined) return undefined;
    return {
      seal: (codec, frame) => member.seal(context, codec, frame),
      get kid() {
        return member.kid(context) ?? 0n;
      },
    };
  }

  open(codec: string, frame: Uint8Array): Uint8Array<ArrayBuffer> {
    if (!this.#member) throw new Error("unknown-kid: not in the group yet");
    return this.#member.open(codec, frame);
  }

  lastKid(): bigint {
    return this.#member?.lastKid() ?? 0n;
  }

  /** The leaf whose frames a participant's tracks must hold, once that member has said so itself. */
  leafOf(participant: string): number | undefined {
    return this.#leaves.get(participant);
  }

  /** Told of how opening goes, for the group to recover where it has lost track. */
  onOpening(failing: boolean): void {
    const now = this.#clock.now();
    if (!failing) this.#failingSince = undefined;
    else if (this.#failingSince === undefined) this.#failingSince = now;
    else if (now - this.#failingSince > RESYNC_AFTER_MS && now - this.#lastResync > RESYNC_INTERVAL_MS) {
      this.#failingSince = undefined;
      this.#resync();
    }
  }

  // Sealed messages.

  /** @param from who sent it, by the relay's word; `null` where the lane has none */
  onSealed(message: Uint8Array, from: string | null): void {
    const member = this.#member;
    if (!member) return;
    let opened;
    try {
      opened = member.openMetadata(message);
    } catch (error) {
      console.debug("sealcast: a sealed message was refused:", error);
      return;
    }
    const { leaf, content: bytes } = opened;
    opened.free();
    const content = decodeContent(bytes);
    if (content?.type === "presence") this.#onPresence(leaf, content.presence, from);
    else if (content?.type === "who") this.#answer();
    else if (content?.type === "app") {
      const sender = this.#people.get(leaf);
      if (sender) this.#output.message(sender.participant, content.body);
    }
  }

  /**
   * Seals a message of the application for everybody in the group.
   *
   * @throws where there is no key yet, or the message is too long
   */
  say(request: number, body: unknown): void {
    const member = this.#member;
    if (member?.sendingEpoch() === undefined) throw new Error("no-group: there is no key to seal with yet");
    this.#output.sealed(member.sealMetadata(encodeContent({ type: "app", body })), request);
  }

  #onPresence(leaf: number, presence: Presence, from: string | null): void {
    const holder = this.#leaves.get(presence.participant);
    const isOwn = presence.participant === this.#presence.participant;
    if (isOwn || (holder !== undefined && holder !== leaf)) {
      this.#output.notice({ type: "impersonation", participant: presence.participant, leaf });
      return;
    }
    // A member can claim any pseudonym, and the relay can say anything of who sent what: a claim is
    // taken only where the two agree (§11.9). They also differ in what a client sealed just before
    // it had to join afresh, which is no reason for alarm.
    if (presence.participant !== from) return;
    const before = this.#people.get(leaf);
    if (before && before.participant !== presence.participant) this.#leaves.delete(before.participant);
    const vouched = this.#vouchedName(leaf, presence.assertion);
    const name = vouched ?? presence.name;
    this.#people.set(leaf, {
      participant: presence.participant,
      ...(name === undefined ? {} : { name }),
      vouched: vouched !== undefined,
    });
    this.#leaves.set(presence.participant, leaf);
    this.#report();
  }

  #vouchedName(leaf: number, assertion: string | undefined): string | undefined {
    const verified = assertion === undefined ? undefined : this.#member?.verifyAssertion(leaf, assertion, this.#clock.now());
    if (verified === undefined) return undefined;
    const { name } = JSON.parse(verified) as { name: string | null };
    return name ?? undefined;
  }

  #answer(): void {
    this.#clock.stop(this.#answerTimer);
    const wait = Math.max(0, this.#lastAnswered + ANSWER_INTERVAL_MS - this.#clock.now());
    this.#answerTimer = this.#clock.start(wait, () => this.#tell());
  }

  #tell(): void {
    this.#lastAnswered = this.#clock.now();
    this.#seal(encodeContent({ type: "presence", presence: this.#presence }));
  }

  /** Asks everybody who they are, if somebody has not said so. */
  #ask(): void {
    this.#lastAsked = this.#clock.now();
    this.#seal(encodeContent({ type: "who" }));
  }

  #seal(content: Uint8Array): void {
    const member = this.#member;
    if (member?.sendingEpoch() === undefined) return;
    try {
      this.#output.sealed(member.sealMetadata(content), null);
    } catch (error) {
      console.error("sealcast: a message could not be sealed and was not sent:", error);
    }
  }

  /** Once a second. */
  tick(): void {
    // Sealing frames brings the next rotation nearer.
    this.#arm();
    const now = this.#clock.now();
    const due = now - this.#epochSince > ASK_AFTER_MS && now - this.#lastAsked > ASK_INTERVAL_MS;
    if (!due || !this.#member) return;
    if (this.#members().some(({ leaf, own }) => !own && !this.#people.has(leaf))) this.#ask();
  }

  /** What became of handshakes and sealed messages, by reason. */
  counters(): GroupCounters | null {
    if (!this.#member) return null;
    const { metadata, handshakes } = JSON.parse(this.#member.stats()) as RawStats;
    const sealed = {
      opened: 0,
      refused: { short: metadata.short, malformed: metadata.malformed, unknownSender: metadata.unknown_sender, unknownKey: 0, inauthentic: 0, replayed: 0 },
    };
    for (const sender of Object.values(metadata.senders)) {
      sealed.opened += sender.opened;
      sealed.refused.unknownKey += sender.unknown_kid;
      sealed.refused.inauthentic += sender.auth;
      sealed.refused.replayed += sender.replayed;
    }
    return { handshakes, sealed };
  }

  // The machine's surroundings.

  #resync(): void {
    if (!this.#member) return;
    this.#lastResync = this.#clock.now();
    this.#attempt(() => this.#member?.handleConnected(this.#clock.now()));
  }

  #attempt(action: () => void): void {
    try {
      action();
    } catch (error) {
      // Whoever has to know was told, by a message or an event; this is for the log.
      console.warn("sealcast: group:", error);
    }
    this.#pump();
  }

  #pump(): void {
    const member = this.#member;
    if (!member) return;
    for (let message = member.pollOutgoing(); message; message = member.pollOutgoing()) this.#output.send(message);
    let changed = false;
    for (let event = member.pollEvent(); event !== undefined; event = member.pollEvent()) {
      changed = true;
      this.#onEvent(JSON.parse(event) as MemberEvent);
    }
    if (changed) this.#report();
    this.#arm();
  }

  #arm(): void {
    this.#clock.stop(this.#timer);
    const at = this.#member?.pollTimeout();
    if (at === undefined) return;
    const fire = (): void => this.#attempt(() => this.#member?.handleTimeout(this.#clock.now()));
    this.#timer = this.#clock.start(Math.max(0, at - this.#clock.now()), fire);
  }

  #onEvent(event: MemberEvent): void {
    switch (event.type) {
      case "epoch":
        this.#epochSince = this.#clock.now();
        this.#refused = undefined;
        for (const leaf of event.left) this.#forget(leaf);
        if (event.joined.length > 0) this.#tellOnSending = true;
        break;
      case "sending":
        for (const { resolve } of this.#waiting.splice(0)) resolve();
        if (this.#tellOnSending) {
          this.#tellOnSending = false;
          this.#tell();
        }
        break;
      case "reset":
      case "removed":
        for (const leaf of [...this.#people.keys()]) this.#forget(leaf);
        this.#tellOnSending = true;
        break;
      case "member-declined":
        this.#output.notice({ type: "declined", subject: event.identity, reason: event.reason });
        break;
      case "commit-refused":
        this.#output.notice({ type: "commit-refused", reason: event.reason });
        break;
      case "group-refused":
        this.#shutOut({ type: "group-refused", reason: event.reason });
        break;
      case "not-admitted":
        this.#shutOut({ type: "not-admitted" });
        break;
    }
  }

  #shutOut(notice: GroupNotice): void {
    this.#refused = `group: ${notice.type}`;
    for (const { reject } of this.#waiting.splice(0)) reject(new Error(this.#refused));
    this.#output.notice(notice);
  }

  #forget(leaf: number): void {
    const person = this.#people.get(leaf);
    this.#people.delete(leaf);
    if (person) this.#leaves.delete(person.participant);
  }

  #members(): RawMember[] {
    return JSON.parse(this.#member?.members() ?? "[]") as RawMember[];
  }

  #report(): void {
    const member = this.#member;
    if (!member) return;
    const members = this.#members().map(({ leaf, own, identity }): MemberSnapshot => {
      const person = own ? { ...this.#presence, vouched: this.#ownNameVouched(leaf) } : this.#people.get(leaf);
      return {
        leaf,
        own,
        participant: person?.participant ?? null,
        name: person?.name ?? null,
        nameVerified: person?.vouched ?? false,
        verified: identity.status === "verified",
        subject: identity.subject,
        reason: identity.reason ?? null,
      };
    });
    this.#output.changed({
      epoch: Number(member.epoch() ?? -1),
      suite: this.#suite,
      ready: member.sendingEpoch() !== undefined,
      code: member.code() ?? null,
      members,
      refused: this.#refused ?? null,
    });
  }

  #ownNameVouched(leaf: number): boolean {
    return this.#vouchedName(leaf, this.#presence.assertion) !== undefined;
  }
}

interface RawMember {
  leaf: number;
  own: boolean;
  identity: { status: "verified" | "unverified"; subject: string; reason?: string };
}

interface RawStats {
  metadata: {
    senders: Record<string, { opened: number; auth: number; unknown_kid: number; replayed: number }>;
    short: number;
    malformed: number;
    unknown_sender: number;
  };
  handshakes: GroupCounters["handshakes"];
}

type MemberEvent =
  | { type: "epoch"; epoch: number; joined: number[]; left: number[] }
  | { type: "sending"; epoch: number }
  | { type: "member-declined"; identity: string; reason: string }
  | { type: "commit-refused"; epoch: number; committer: number | null; reason: string }
  | { type: "group-refused"; reason: string }
  | { type: "removed" | "reset" | "not-admitted" };
