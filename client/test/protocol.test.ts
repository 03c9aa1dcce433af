import assert from "node:assert/strict";
import { test } from "node:test";
import { Directory } from "../src/directory.js";
import { ProtocolError } from "../src/errors.js";
import { decodeEvent, decodeMessage, decodeResponse, decodeNotice } from "../src/protocol.js";
import { signalUrl } from "../src/connect.js";

const JOINED = {
  type: "joined",
  id: 1,
  protocol: 1,
  participant: "PA_1",
  room: "consult-1",
  resume_token: "r",
  grace_seconds: 30,
  sealed: "required",
  grants: { publish: ["audio", "camera"], subscribe: true },
  limits: { slots: 128, tracks: 16, data_message: 16384 },
  participants: [
    { participant: "PA_2", tracks: [{ track: "TR_2", source: "camera", muted: false, codec: "VP8" }] },
  ],
  seq: 17,
};

test("a response decodes to what the protocol says, with absent grants denied", () => {
  const joined = decodeResponse("joined", decodeMessage(JSON.stringify(JOINED)));
  assert.deepEqual(joined.grants, {
    publish: ["audio", "camera"],
    subscribe: true,
    unsealed: false,
    moderate: false,
  });
  assert.equal(joined.participants[0]?.tracks[0]?.sealed, true);
});

test("a message with a wrong or missing field is refused, whichever field it is", () => {
  for (const field of ["participant", "room", "resume_token", "grace_seconds", "participants", "seq", "grants"]) {
    for (const value of [undefined, null, {}, [1], field === "seq" || field === "grace_seconds" ? "1" : 7]) {
      if (field === "participants" && Array.isArray(value) && value.length === 0) continue;
      if (field === "grants" && typeof value === "object" && value !== null && !Array.isArray(value)) continue;
      const text = JSON.stringify({ ...JOINED, [field]: value });
      assert.throws(() => decodeResponse("joined", decodeMessage(text)), ProtocolError, `${field}: ${text}`);
    }
  }
  for (const text of ["", "[]", "null", "7", "{}", '{"type":7}', "{"]) {
    assert.throws(() => decodeMessage(text), ProtocolError, text);
  }
});

test("events and data messages of a later version are left alone", () => {
  assert.equal(decodeEvent(decodeMessage('{"type":"constructor"}')), undefined);
  assert.equal(decodeEvent(decodeMessage('{"type":"hologram","seq":1}')), undefined);
  assert.equal(decodeNotice('{"type":"later"}'), undefined);
  assert.deepEqual(decodeNotice('{"type":"slot","mid":"3","track":null,"revision":7,"later":1}'), {
    type: "slot",
    mid: "3",
    track: null,
    revision: 7,
    paused: undefined,
  });
});

test("the data channel tells of slots, of who speaks, and of encodings", () => {
  assert.deepEqual(decodeNotice('{"type":"slot","mid":"3","track":"TR_1","paused":true,"revision":8}'), {
    type: "slot",
    mid: "3",
    track: "TR_1",
    revision: 8,
    paused: true,
  });
  assert.deepEqual(decodeNotice('{"type":"speaker","track":null}'), { type: "speaker", track: null });
  assert.deepEqual(decodeNotice('{"type":"encodings","mid":"1","active":[true,false]}'), {
    type: "encodings",
    mid: "1",
    active: [true, false],
  });
  for (const text of [
    '{"type":"slot","mid":"3","track":"TR_1","paused":1,"revision":8}',
    '{"type":"speaker","track":7}',
    '{"type":"encodings","mid":"1","active":[1]}',
    '{"type":"encodings","mid":"1"}',
  ]) {
    assert.throws(() => decodeNotice(text), ProtocolError, text);
  }
});

test("a track is unsealed only if the relay says so outright", () => {
  const event = (sealed: unknown): unknown =>
    decodeEvent(
      decodeMessage(
        JSON.stringify({ type: "track_published", seq: 1, participant: "a", track: "t", source: "camera", muted: false, sealed }),
      ),
    );
  const directory = new Directory();
  directory.apply("me", event(undefined) as never);
  assert.equal(directory.track("t")?.sealed, true);
  const other = new Directory();
  other.apply("me", event(false) as never);
  assert.equal(other.track("t")?.sealed, false);
});

test("the directory follows events, leaves out oneself, and skips what the snapshot includes", () => {
  const directory = new Directory();
  const changes = directory.reset("PA_1", decodeResponse("joined", decodeMessage(JSON.stringify(JOINED))).participants, 17);
  assert.deepEqual(changes.map(({ type }) => type), ["participant-joined", "track-published"]);
  const apply = (body: object): string[] =>
    directory.apply("PA_1", decodeEvent(decodeMessage(JSON.stringify(body))) as never).map(({ type }) => type);
  assert.deepEqual(apply({ type: "participant_joined", seq: 17, participant: "PA_9" }), []);
  assert.deepEqual(apply({ type: "participant_joined", seq: 18, participant: "PA_1" }), []);
  assert.deepEqual(apply({ type: "participant_joined", seq: 19, participant: "PA_3" }), ["participant-joined"]);
  assert.deepEqual(apply({ type: "track_muted", seq: 20, participant: "PA_2", track: "TR_2", muted: true, by: "PA_2" }), [
    "track-updated",
  ]);
  assert.equal(directory.track("TR_2")?.muted, true);
  assert.deepEqual(apply({ type: "participant_left", seq: 21, participant: "PA_2", reason: "left" }), [
    "track-unpublished",
    "participant-left",
  ]);
  assert.deepEqual([...directory.participants.keys()], ["PA_3"]);
});

test("a relay's address becomes its signalling address", () => {
  assert.equal(signalUrl("https://relay.example/#room=a&key=b"), "wss://relay.example/v1/signal");
  assert.equal(signalUrl("http://[::1]:7880"), "ws://[::1]:7880/v1/signal");
  assert.equal(signalUrl("wss://relay.example/v1/signal"), "wss://relay.example/v1/signal");
});
