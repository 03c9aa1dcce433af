import assert from "node:assert/strict";
import { test } from "node:test";
import { identityWords, memberName } from "../page/people.js";
import { OUTSIDE, markOf } from "../page/seal.js";
import { decodeBase64, decodeBase64Url, encodeBase64, encodeBase64Url } from "../src/base64.js";
import type { MemberSnapshot } from "../src/e2ee/messages.js";
import { BadLinkError } from "../src/errors.js";
import { formatLink, parseLink } from "../src/link.js";
import { Reporter } from "../src/report.js";
import { HOLD_MS, OpenTally } from "../src/worker/counters.js";
import { type EncodedFrame, type Opener, leafOfKid, openFrame } from "../src/worker/frames.js";
import { MAX_NAME_LENGTH, decodeContent, encodeContent } from "../src/worker/presence.js";

const frame = (): EncodedFrame => ({
  data: new Uint8Array([1, 2, 3]).buffer,
  getMetadata: () => ({ mimeType: "audio/opus" }),
});

/** Opens everything, as sealed by `leaf` under context 0x1234 in epoch 5. */
const openerOf = (leaf: number): Opener => ({
  open: (_codec, bytes) => bytes.slice(),
  lastKid: () => (0x1234n << 24n) | (BigInt(leaf) << 8n) | 5n,
});

test("a frame of another member than the track's owner is counted and not shown", () => {
  const tally = new OpenTally(0);
  assert.equal(leafOfKid(openerOf(65_535).lastKid()), 65_535);
  assert.equal(openFrame(frame(), openerOf(3), tally, 1, 3), "pass");
  for (let n = 0; n < 3; n++) assert.equal(openFrame(frame(), openerOf(4), tally, 2, 3), "failed");
  const { opened, misattributed, state, since } = tally.counters;
  assert.deepEqual({ opened, misattributed, state, since }, { opened: 1, misattributed: 3, state: "failing", since: 2 });
  assert.match(markOf([{ seal: tally.counters, muted: false }], true, 3, "group").explanation, /somebody else/);
  // With link keys there are no leaves.
  assert.equal(openFrame(frame(), openerOf(4), tally, 3), "pass");
});

test("frames are held back while it is not known whose they are, and that is no failure at first", () => {
  const tally = new OpenTally(0);
  tally.onHeld(1_000);
  tally.onHeld(1_000 + HOLD_MS - 1);
  assert.equal(tally.counters.state, "waiting");
  tally.onHeld(1_000 + HOLD_MS);
  assert.deepEqual([tally.counters.held, tally.counters.state], [3, "failing"]);
  tally.onOpened(1_000 + HOLD_MS, 1n);
  tally.onHeld(2_000 + HOLD_MS);
  assert.equal(tally.counters.state, "open");
});

test("a mark says since when a party cannot be opened, and that keys are asked for", () => {
  const tally = new OpenTally(0);
  for (let n = 0; n < 3; n++) tally.onFailed(1_000 * n, "unknownKey");
  const at = new Date(2_000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const mark = markOf([{ seal: tally.counters, muted: false }], true, 5_000, "group");
  assert.ok(mark.explanation.includes(`since ${at}`), mark.explanation);
  assert.match(mark.explanation, /asking for the current keys/);
  assert.equal(OUTSIDE.state, "waiting");
});

test("what members say to each other survives the way, and anything else is ignored", () => {
  const presence = { participant: "PA_00", name: "Dr. Ada Haas", assertion: "a.b.c" };
  assert.deepEqual(decodeContent(encodeContent({ type: "presence", presence })), { type: "presence", presence });
  assert.deepEqual(decodeContent(encodeContent({ type: "who" })), { type: "who" });
  const body = { kind: "chat", text: "→ hello" };
  assert.deepEqual(decodeContent(encodeContent({ type: "app", body })), { type: "app", body });
  for (const text of ["", "null", "[]", "3", "{", '{"type":"presence"}', '{"type":"presence","participant":7}', '{"type":"x"}']) {
    assert.equal(decodeContent(new TextEncoder().encode(text)), undefined, text);
  }
  assert.equal(decodeContent(Uint8Array.of(0xff, 0xfe)), undefined);
});

test("names hold no control or direction characters, and have an end", () => {
  const nameOf = (name: string): string | undefined => {
    const content = decodeContent(new TextEncoder().encode(JSON.stringify({ type: "presence", participant: "p", name })));
    return content?.type === "presence" ? content.presence.name : undefined;
  };
  assert.equal(nameOf(" Ada\u202e\n\u0000 Haas "), "Ada Haas");
  assert.equal(nameOf("x".repeat(1_000))?.length, MAX_NAME_LENGTH);
  assert.equal(nameOf(""), undefined);
});

const member = (changes: Partial<MemberSnapshot>): MemberSnapshot => ({
  leaf: 0,
  own: false,
  participant: "PA_000000000000abcd",
  name: "Ada",
  nameVerified: true,
  verified: true,
  subject: "s",
  reason: null,
  ...changes,
});

test("the list of people claims no more than is known", () => {
  assert.equal(identityWords(member({})), "Verified");
  assert.equal(identityWords(member({ verified: false })), "Not verified");
  assert.match(identityWords(member({ nameVerified: false })), /own word/);
  assert.equal(memberName(member({ own: true })), "Ada (you)");
  assert.equal(memberName(member({ name: null })), "Guest ABCD");
  assert.equal(memberName(member({ name: null, participant: null, subject: "s".repeat(99) })).length, 40);
});

test("links carry the issuer, and damaged ones are refused", () => {
  const issuer = { issuer: "https://clinic.example", audience: "sealcast-identity", keys: [{ kty: "OKP", crv: "Ed25519", x: "AA" }] };
  const url = formatLink("https://relay.example/", { room: "a", issuer });
  assert.deepEqual(parseLink(new URL(url).hash), { room: "a", issuer });
  const damaged = [
    "%%",
    "AAAA",
    encodeBase64Url(new TextEncoder().encode("{}")),
    encodeBase64Url(new TextEncoder().encode(JSON.stringify({ ...issuer, keys: [] }))),
    encodeBase64Url(new TextEncoder().encode(JSON.stringify({ ...issuer, keys: [{ ...issuer.keys[0], d: "private" }] }))),
  ];
  for (const text of damaged) assert.throws(() => parseLink(`#room=a&issuer=${text}`), BadLinkError, text);
});

test("base64 of any length survives", () => {
  for (const length of [0, 1, 2, 3, 100, 0x2000, 0x2001, 100_000]) {
    const bytes = Uint8Array.from({ length }, (_, index) => (index * 31) & 0xff);
    assert.deepEqual(decodeBase64(encodeBase64(bytes)), bytes);
    assert.deepEqual(decodeBase64Url(encodeBase64Url(bytes)), bytes);
  }
  assert.equal(decodeBase64("%"), undefined);
  assert.equal(decodeBase64Url("+/=="), undefined);
});

test("reports hold what has changed, once, and 128 tracks at most", () => {
  const reporter = new Reporter();
  const counters = (opened: number, unknownKey: number) => ({ ...new OpenTally(0).counters, opened, unknownKey, inauthentic: 1, misattributed: 1 });
  assert.deepEqual(reporter.take({ a: counters(5, 1) }), [{ track: "a", failing: false, opened: 5, unknown_key: 1, altered: 1, misattributed: 1, malformed: 0 }]);
  assert.deepEqual(reporter.take({ a: counters(5, 1) }), []);
  assert.deepEqual(reporter.take({ a: counters(9, 1) }), [{ track: "a", failing: false, opened: 4, unknown_key: 0, altered: 0, misattributed: 0, malformed: 0 }]);
  const many = Object.fromEntries(Array.from({ length: 130 }, (_, n) => [`t${n}`, counters(1, 0)]));
  assert.equal(reporter.take(many).length, 128);
  assert.equal(reporter.take(many).length, 2, "the rest follows");
});

test("a report is due when a track cannot be opened, and when it can again", () => {
  const reporter = new Reporter();
  const state = (value: "open" | "failing") => ({ a: { ...new OpenTally(0).counters, state: value } });
  assert.equal(reporter.isDue(state("open")), false);
  assert.equal(reporter.isDue(state("failing")), true);
  assert.equal(reporter.isDue(state("failing")), false);
  assert.deepEqual(reporter.take(state("failing")).map(({ failing }) => failing), [true], "though no count has changed");
  assert.equal(reporter.isDue(state("open")), true);
  assert.deepEqual(reporter.take(state("open")).map(({ failing }) => failing), [false]);
});
