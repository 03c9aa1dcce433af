// The MLS working group's test vectors in WebAssembly: the driver and the files of the native test
// (crypto/vectors), run by the module that ships, in node.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import sealcast from "./module.mjs";

const cases = async (name) =>
  JSON.parse(await readFile(path.join(import.meta.dirname, "../../vectors/data", `${name}.json`)));

/** The vectors' KeyPackages were good for three months from December 2023. */
const WHEN = Date.parse("2024-01-11T19:06:40Z");

const FILES = {
  "crypto-basics": 2,
  "key-schedule": 2,
  messages: 8,
  "passive-client-welcome": 8,
  "passive-client-handling-commit": 26,
  "passive-client-random": 1,
};

for (const [name, count] of Object.entries(FILES)) {
  test(`vectors: ${name}`, async (context) => {
    context.mock.method(Date, "now", () => WHEN);
    const all = await cases(name);
    assert.equal(all.length, count);
    for (const [number, one] of all.entries()) {
      assert.doesNotThrow(() => sealcast.runVector(name, JSON.stringify(one)), `${name} ${number}`);
    }
  });
}

test("a changed vector fails, and so does a KeyPackage whose time is over", async (context) => {
  const [one] = await cases("passive-client-handling-commit");
  assert.throws(() => sealcast.runVector("passive-client-handling-commit", JSON.stringify(one)), /epoch 1: .*Expired/);
  context.mock.method(Date, "now", () => WHEN);
  one.epochs[1].epoch_authenticator = "00".repeat(32);
  const changed = JSON.stringify(one);
  assert.throws(() => sealcast.runVector("passive-client-handling-commit", changed), /epoch 1: epoch_authenticator/);
});
