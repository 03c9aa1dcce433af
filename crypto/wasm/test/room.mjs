// A room in one process: the relay's delivery service and members, in WebAssembly or in other
// implementations, on a virtual clock.
import sealcast from "./module.mjs";

const { Delivery, GroupMember, MemberKey } = sealcast;
export const START = 1_800_000_000_000;

export class WasmMember {
  events = [];
  refused = [];

  constructor(now, id, config = {}, suite = 1) {
    this.group = new GroupMember(START + now, JSON.stringify(config), new MemberKey(suite), `id:p-${id}`);
  }

  async handle(now, message) {
    try {
      this.group.handleMessage(START + now, message);
    } catch (error) {
      this.refused.push(error.message);
    }
  }

  tick(now) {
    const at = this.group.pollTimeout();
    if (at !== undefined && at <= START + now) this.group.handleTimeout(START + now);
  }

  drain() {
    for (let event; (event = this.group.pollEvent()) !== undefined; ) this.events.push(JSON.parse(event));
    const messages = [];
    for (let message; (message = this.group.pollOutgoing()) !== undefined; ) messages.push(message);
    return messages;
  }

  epoch() {
    return this.group.epoch();
  }

  async baseKey() {
    return this.group.exportBaseKey();
  }
}

export class Room {
  now = 0;
  members = new Map();
  errors = [];
  recorded = [];
  #delivery;

  constructor(suite = 1) {
    this.#delivery = new Delivery(7, suite);
  }

  async join(id, member) {
    this.#delivery.join(this.now, id);
    this.members.set(id, member);
    await this.#settle();
  }

  async leave(id) {
    this.#delivery.leave(this.now, id);
    const member = this.members.get(id);
    this.members.delete(id);
    await this.#settle();
    return member;
  }

  async run(millis) {
    for (const end = this.now + millis; this.now < end; ) {
      this.now += 10;
      this.#delivery.timeout(this.now);
      for (const member of this.members.values()) member.tick(this.now);
      await this.#settle();
    }
  }

  /** Delivers everything that is on its way, and what follows from it. */
  async #settle() {
    for (let quiet = false; !quiet; ) {
      quiet = true;
      for (const [id, member] of this.members) {
        for (const message of member.drain()) {
          quiet = false;
          try {
            this.#delivery.handle(this.now, id, message);
          } catch (error) {
            this.errors.push(error.message);
          }
        }
      }
      for (let to; (to = this.#delivery.poll()) !== undefined; ) {
        quiet = false;
        const message = this.#delivery.message();
        for (const id of to) await this.members.get(id)?.handle(this.now, message);
      }
    }
  }
}
