import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { ERROR_WORDS, plainDeviceError, plainError } from "../page/words.js";
import {
  CLIENT_ERROR_CODES,
  NoKeyError,
  RELAY_ERROR_CODES,
  RelayError,
  UnsupportedBrowserError,
  errorFromClose,
} from "../src/errors.js";

/** The protocol's own table; tests run in client/. */
const PROTOCOL = readFileSync("../docs/PROTOCOL.md", "utf8");

function documentedCodes(): { code: string; closes: number | undefined }[] {
  const section = PROTOCOL.slice(PROTOCOL.indexOf("### 3.1 Errors"), PROTOCOL.indexOf("## 4."));
  return [...section.matchAll(/^\| `([a-z_]+)` \|.*\| (.*) \|$/gm)].map(([, code = "", socket = ""]) => {
    const closes = /closes, (\d{4})/.exec(socket)?.[1];
    return { code, closes: closes === undefined ? undefined : Number(closes) };
  });
}

test("every documented error code has a type, and no type is undocumented", () => {
  const documented = documentedCodes().map(({ code }) => code);
  assert.ok(documented.length >= 20, "the table was found");
  assert.deepEqual(new Set<string>(RELAY_ERROR_CODES), new Set(documented));
});

test("every documented close code maps to an error that says the same", () => {
  for (const { code, closes } of documentedCodes()) {
    if (closes === undefined) continue;
    const error = errorFromClose(closes, "");
    const sameClose = documentedCodes().filter((row) => row.closes === closes);
    assert.ok(
      sameClose.some((row) => row.code === error.code),
      `${closes} (${code}) became ${error.code}`,
    );
  }
  assert.equal(errorFromClose(4409, "").code, "replaced");
  assert.equal(errorFromClose(4410, "").code, "removed");
  assert.equal(errorFromClose(1006, "").code, "connection_lost");
});

test("every error has plain words, without the vocabulary of developers", () => {
  for (const code of [...RELAY_ERROR_CODES, ...CLIENT_ERROR_CODES]) {
    const { title, text } = ERROR_WORDS[code];
    assert.ok(title.length > 5 && text.length > 20, code);
    assert.doesNotMatch(`${title} ${text}`, /\b(SDP|JSON|WebSocket|MID|JWT|token|wasm|null|undefined)\b/i, code);
  }
});

test("an error is shown by its code, whatever its class", () => {
  assert.equal(plainError(new RelayError("room_full", "x", true)).title, "The consult is full");
  assert.equal(plainError(new NoKeyError("x")).code, "no_key");
  assert.equal(plainError(new UnsupportedBrowserError(["RTCRtpScriptTransform"])).retry, false);
  assert.equal(plainError(new TypeError("x")).code, "TypeError");
  assert.match(plainDeviceError(new DOMException("x", "NotReadableError"), "camera"), /in use/);
});
