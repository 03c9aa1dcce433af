// Groups in WebAssembly: members and the delivery service, frames and metadata, and ts-mls, an
// independent implementation of MLS, as a member among ours.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  createCommit,
  decodeMlsMessage,
  defaultCapabilities,
  defaultLifetime,
  emptyPskIndex,
  encodeMlsMessage,
  generateKeyPackage,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  joinGroup,
  mlsExporter,
  processMessage,
} from "ts-mls";
import sealcast, { toHex } from "./module.mjs";
import { Room, WasmMember } from "./room.mjs";

const { FrameOpener, MemberMessage, encodeCommit, encodeHello } = sealcast;
const suite = await getCiphersuiteImpl(
  getCiphersuiteFromName("MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"),
);

/**
 * RFC 9420 §12.1.8.1 has `ExternalSender external_senders<V>`; ts-mls 1.6.4 reads one without the
 * vector's length around it. The length goes, for its eyes only: the extension is looked up for the
 * sender's key, and what an external sender signs does not cover the group context.
 */
function withBareExternalSender(groupContext) {
  const bare = ({ extensionType, extensionData }) => {
    if (extensionType !== "external_senders") return { extensionType, extensionData };
    // A variable-size vector's length takes 1, 2 or 4 bytes (§2.1.2).
    return { extensionType, extensionData: extensionData.subarray(1 << (extensionData[0] >> 6)) };
  };
  return { ...groupContext, extensions: groupContext.extensions.map(bare) };
}

/** A member by ts-mls. It processes what comes, and commits when it is told to. */
class TsMlsMember {
  #outgoing = [];

  static async create() {
    const member = new TsMlsMember();
    const credential = { credentialType: "basic", identity: new TextEncoder().encode("id:ts-mls") };
    member.keyPackage = await generateKeyPackage(credential, defaultCapabilities(), defaultLifetime, [], suite);
    const message = encodeMlsMessage({
      keyPackage: member.keyPackage.publicPackage,
      wireformat: "mls_key_package",
      version: "mls10",
    });
    member.#outgoing.push(encodeHello(message));
    return member;
  }

  async handle(now, bytes) {
    const { kind, content } = new MemberMessage(bytes);
    const message = ["welcome", "proposal", "commit"].includes(kind) && decodeMlsMessage(content, 0)[0];
    if (kind === "welcome") {
      const { publicPackage, privatePackage } = this.keyPackage;
      this.state = await joinGroup(message.welcome, publicPackage, privatePackage, emptyPskIndex, suite);
    } else if (kind === "commit" && this.pending?.commit === toHex(content)) {
      this.state = this.pending.state;
      this.pending = undefined;
    } else if (kind === "commit") {
      const result = await processMessage(message, this.state, emptyPskIndex, () => "accept", suite);
      this.state = result.newState;
    } else if (kind === "proposal") {
      const state = { ...this.state, groupContext: withBareExternalSender(this.state.groupContext) };
      const { newState } = await processMessage(message, state, emptyPskIndex, () => "accept", suite);
      this.state = { ...this.state, unappliedProposals: newState.unappliedProposals };
    }
  }

  tick() {}

  drain() {
    return this.#outgoing.splice(0);
  }

  /** Commits, with an update path, to nothing but new keys. */
  async commit() {
    const result = await createCommit({ state: this.state, cipherSuite: suite }, { wireAsPublicMessage: true });
    const commit = encodeMlsMessage(result.commit);
    this.pending = { commit: toHex(commit), state: result.newState };
    this.#outgoing.push(encodeCommit(commit));
  }

  epoch() {
    return this.state?.groupContext.epoch;
  }

  async baseKey() {
    const { exporterSecret } = this.state.keySchedule;
    return mlsExporter(exporterSecret, "SFrame 1.0 Base Key", new Uint8Array(), 32, suite);
  }
}

async function roomOf(...ids) {
  const room = new Room();
  for (const id of ids) await room.join(id, new WasmMember(room.now, id));
  await room.run(1000);
  return room;
}

async function assertAgreement(room) {
  const members = [...room.members.values()];
  const keys = await Promise.all(members.map(async (member) => toHex(await member.baseKey())));
  assert.equal(new Set(keys).size, 1, "one base key");
  assert.equal(new Set(members.map((member) => member.epoch())).size, 1, "one epoch");
  return keys[0];
}

test("ts-mls joins, processes our commits, and we process its own", async () => {
  const room = await roomOf(1, 2);
  const theirs = await TsMlsMember.create();
  await room.join(3, theirs);
  await room.run(1000);
  const keys = new Set([await assertAgreement(room)]);
  for (const committer of ["ours", "theirs", "ours", "theirs", "ours"]) {
    await room.run(500);
    if (committer === "ours") room.members.get(2).group.requestRotation();
    else await theirs.commit();
    await room.run(500);
    keys.add(await assertAgreement(room));
  }
  // A leave and a join, proposed by the delivery service and committed by us.
  await room.leave(2);
  await room.run(1000);
  keys.add(await assertAgreement(room));
  await room.join(4, new WasmMember(room.now, 4));
  await room.run(1000);
  keys.add(await assertAgreement(room));
  assert.equal(keys.size, 8, "a key of its own for each epoch");
  assert.deepEqual(room.errors, []);
  for (const id of [1, 4]) assert.deepEqual(room.members.get(id).refused, []);
  const members = JSON.parse(room.members.get(4).group.members());
  assert.deepEqual(members.map((member) => member.identity.subject).sort(), ["p-1", "p-4", "ts-mls"]);
});

test("ts-mls and our sealer agree on frames", async () => {
  const room = await roomOf(1);
  const theirs = await TsMlsMember.create();
  await room.join(2, theirs);
  await room.run(3000);
  const { group } = room.members.get(1);
  const opener = new FrameOpener(5);
  opener.addEpoch(theirs.epoch(), 2, await theirs.baseKey());
  const frame = new Uint8Array(500).fill(9);
  frame[0] = 0x11;
  const sealed = group.seal(7, "vp8", frame);
  assert.deepEqual(opener.open("vp8", sealed), frame);
  assert.equal(opener.lastKid(), group.kid(7));
});

test("frames and metadata pass; the code is the same for all", async () => {
  const room = await roomOf(1, 2, 3);
  const groups = [...room.members.values()].map((member) => member.group);
  const codes = groups.map((group) => group.code());
  assert.match(codes[0], /^\d{5}( \d{5}){5}$/);
  assert.equal(new Set(codes).size, 1);
  const frame = new Uint8Array(100).fill(1);
  const sealed = groups[0].seal(1, "opus", frame);
  const message = groups[0].sealMetadata(new TextEncoder().encode("Ada"));
  for (const group of groups.slice(1)) {
    assert.deepEqual(group.open("opus", sealed), frame);
    assert.equal(group.lastKid(), groups[0].kid(1));
    const opened = group.openMetadata(message);
    assert.equal(new TextDecoder().decode(opened.content), "Ada");
    assert.equal(opened.leaf, groups[0].leaf());
    assert.throws(() => group.openMetadata(message), /^Error: replayed/);
    assert.throws(() => group.open("opus", sealed), /^Error: replayed/);
    const stats = JSON.parse(group.stats());
    assert.deepEqual(stats.senders[groups[0].leaf()], { opened: 1, auth: 0, unknown_kid: 0, replayed: 1 });
  }
});

test("a group of the P-256 suite, with its delivery service: joins, rotation, frames, a leave", async () => {
  const room = new Room(2);
  for (const id of [1, 2, 3]) await room.join(id, new WasmMember(room.now, id, {}, 2));
  await room.run(1000);
  const keys = new Set([await assertAgreement(room)]);
  room.members.get(2).group.requestRotation();
  await room.run(1000);
  keys.add(await assertAgreement(room));
  const left = await room.leave(1);
  await room.run(3000);
  keys.add(await assertAgreement(room));
  assert.equal(keys.size, 3);
  const [second, third] = [room.members.get(2).group, room.members.get(3).group];
  const sealed = second.seal(0x100, "opus", new Uint8Array(10));
  assert.throws(() => left.group.open("opus", sealed), /^Error: unknown-kid/);
  assert.equal(third.open("opus", sealed).length, 10);
  assert.deepEqual(room.errors, []);
  // Whoever has the other suite's key stays outside.
  const odd = new WasmMember(room.now, 4);
  await room.join(4, odd);
  await room.run(1000);
  assert.equal(odd.epoch(), undefined);
  assert.deepEqual([...new Set(room.errors.map((error) => error.split(":")[0]))], ["key-package"]);
});

test("media is sealed with AES-256-GCM unless the policy names another suite", async () => {
  const keyLengths = { 5: 32, 4: 16 };
  for (const [mediaSuite, length] of Object.entries(keyLengths)) {
    const config = mediaSuite === "5" ? {} : { mediaSuite: Number(mediaSuite) };
    const room = new Room();
    for (const id of [1, 2]) await room.join(id, new WasmMember(room.now, id, config));
    await room.run(3000);
    const [one, two] = [...room.members.values()].map((member) => member.group);
    const sealed = one.seal(0x100, "opus", new Uint8Array(20));
    assert.equal(one.exportBaseKey().length, length);
    const opener = new FrameOpener(Number(mediaSuite));
    opener.addEpoch(one.epoch(), 2, one.exportBaseKey());
    assert.deepEqual(opener.open("opus", sealed), new Uint8Array(20));
    assert.deepEqual(two.open("opus", sealed), new Uint8Array(20));
  }
});

test("who leaves opens nothing more", async () => {
  const room = await roomOf(1, 2, 3);
  const left = await room.leave(3);
  await room.run(3000);
  const sealed = room.members.get(1).group.seal(1, "opus", new Uint8Array(10));
  assert.throws(() => left.group.open("opus", sealed), /^Error: unknown-kid/);
  assert.equal(room.members.get(2).group.open("opus", sealed).length, 10);
  const events = room.members.get(1).events.filter((event) => event.type === "epoch");
  assert.deepEqual(events.at(-1).left, [left.group.leaf()]);
});

test("what is no configuration, claim or message is refused by its code", () => {
  const { GroupMember, MemberKey } = sealcast;
  const member = (config, claim) => new GroupMember(1e12, config, new MemberKey(1), claim);
  assert.throws(() => new MemberKey(3), /^Error: suite/);
  assert.throws(() => member("{\"typo\":1}", "id:a"), /^Error: config/);
  assert.throws(() => member("{\"mediaSuite\":9}", "id:a"), /^Error: suite/);
  assert.throws(() => member("{}", "a"), /^Error: claim/);
  const outside = member("{}", "id:a");
  assert.throws(() => outside.seal(1, "opus", new Uint8Array(1)), /^Error: no-group/);
  assert.throws(() => outside.handleMessage(1e12, Uint8Array.of(1, 99)), /^Error: wire/);
  assert.equal(outside.epoch(), undefined);
});
