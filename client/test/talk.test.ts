/** What other members' pages say is checked before it is shown. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { MAX_POINTS, MAX_TEXT, cleanText, parseTalk } from "../page/talk.js";

test("what the page says is understood, and nothing else", () => {
  const good = [
    { kind: "chat", text: "Two lines\nof text" },
    { kind: "pointer", track: "TR_1", at: [0, 1] },
    { kind: "pointer", track: "TR_1", at: null },
    { kind: "stroke", track: "TR_1", stroke: 3, points: [[0.25, 0.5], [1, 1]] },
    { kind: "clear", track: "TR_1" },
  ];
  for (const talk of good) assert.deepEqual(parseTalk({ ...talk, more: 1 }), talk);
  const bad = [
    null,
    "chat",
    {},
    { kind: "chat" },
    { kind: "chat", text: " \u202e " },
    { kind: "chat", text: 7 },
    { kind: "pointer", track: "TR_1" },
    { kind: "pointer", at: [0, 0] },
    { kind: "pointer", track: "TR_1", at: [0, 1.01] },
    { kind: "pointer", track: "TR_1", at: [0, Number.NaN] },
    { kind: "pointer", track: "TR_1", at: [0, 0, 0] },
    { kind: "stroke", track: "TR_1", stroke: 0.5, points: [] },
    { kind: "stroke", track: "TR_1", stroke: 1, points: [[0, "1"]] },
    { kind: "stroke", track: "TR_1", stroke: 1, points: Array.from({ length: MAX_POINTS + 1 }, () => [0, 0]) },
    { kind: "later", track: "TR_1" },
  ];
  for (const body of bad) assert.equal(parseTalk(body), undefined, JSON.stringify(body));
});

test("text is cut to its limit, and cannot pretend to be another", () => {
  assert.equal(cleanText("  a\u202eb\u0000c\r\nd\re  "), "abc\nd\ne");
  assert.equal(cleanText("👩\u200d⚕️ here"), "👩\u200d⚕️ here", "joined characters stay joined");
  assert.equal(cleanText("x".repeat(MAX_TEXT + 5)).length, MAX_TEXT);
});
