import assert from "node:assert/strict";
import { test } from "node:test";
import { BadLinkError } from "../src/errors.js";
import { LINK_KEY_BYTES, formatLink, generateLinkKey, parseLink } from "../src/link.js";

test("what is formatted parses to the same", () => {
  for (let round = 0; round < 100; round++) {
    const key = generateLinkKey();
    const url = formatLink("https://relay.example/?a=1#old", { room: "consult-1", key });
    assert.ok(url.startsWith("https://relay.example/?a=1#room=consult-1&key="));
    assert.deepEqual(parseLink(new URL(url).hash), { room: "consult-1", key });
  }
});

test("a token is read, and never formatted into a link for others", () => {
  const link = parseLink("#room=a&token=x.y.z");
  assert.deepEqual(link, { room: "a", token: "x.y.z" });
  assert.equal(formatLink("https://r/", { room: "a" }), "https://r/#room=a");
});

test("no room is no link", () => {
  assert.equal(parseLink(""), undefined);
  assert.equal(parseLink("#"), undefined);
  assert.equal(parseLink("#key=AAAA"), undefined);
});

test("damaged links are refused, not guessed at", () => {
  const key = "A".repeat(43);
  assert.equal(parseLink(`#room=a&key=${key}`)?.key?.length, LINK_KEY_BYTES);
  for (const bad of [
    "#room=",
    "#room=a%20b",
    "#room=../x",
    `#room=${"a".repeat(129)}`,
    `#room=a&key=${key}A`,
    `#room=a&key=${key.slice(1)}`,
    "#room=a&key=%21%21",
    "#room=a&key=A",
  ]) {
    assert.throws(() => parseLink(bad), BadLinkError, bad);
  }
});
