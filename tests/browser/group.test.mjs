/**
 * Group keys in real browsers: names and identities on the page, somebody who joins and leaves
 * again, a ghost. The one who joins and leaves is a client of the test's own, so that every key it
 * ever held can be tried on what was recorded from the wire.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { Client } from "../lib/client.mjs";
import { GroupPeer } from "../lib/group.mjs";
import { startRelay, until } from "../lib/relay.mjs";
import { launchChromium } from "./lib/browsers.mjs";
import { join, newConsult, waitConnected, waitOpened } from "./lib/consult.mjs";
import { startRelay as startRestartable } from "./lib/relay.mjs";

const ALL = { publish: ["audio", "camera"], subscribe: true };

describe("a consult with group keys", () => {
  const room = `group-${randomBytes(6).toString("hex")}`;
  let relay, chromium, issuer, tap;
  const pages = [];

  before(async () => {
    relay = await startRelay();
    ({ issuer } = await (await fetch(`${relay.url}/v1/config`)).json());
    chromium = await launchChromium();
    const link = new URLSearchParams({ room, issuer: Buffer.from(JSON.stringify(issuer)).toString("base64url") });
    const consult = { href: () => `${relay.url}/?video=320x180@15#${link}` };
    for (const name of ["Ada Haas", "Ben Okoro"]) {
      const typeName = new Function(`document.querySelector("#own-name").value = ${JSON.stringify(name)}`);
      pages.push(await join(chromium, relay, consult, typeName));
    }
    for (const page of pages) await waitConnected(page);
  });

  after(async () => {
    for (const page of pages) await page.close();
    await tap?.close();
    await chromium?.close();
    await relay?.stop();
  });

  const group = (page) => page.evaluate(() => window.sealcast.room.group);
  const codes = async () => Promise.all(pages.map(async (page) => (await group(page))?.code));
  const vouched = async (jwk) => {
    const body = JSON.stringify({ room, jwk });
    const headers = { "content-type": "application/json" };
    return `jwt:${(await (await fetch(`${relay.url}/dev/assertion`, { method: "POST", headers, body })).json()).assertion}`;
  };

  test("two people see and hear each other, by name", async () => {
    const [a, b] = pages;
    await waitOpened(a, [b.participant], 50);
    await waitOpened(b, [a.participant], 50);
    for (const [page, other] of [[a, "Ben Okoro"], [b, "Ada Haas"]]) {
      await page.waitFor("the other's name on its tile", (name) =>
        [...document.querySelectorAll(".tile-person")].some((tile) => tile.getAttribute("aria-label") === name), other);
      await page.waitFor("a sealed mark on every tile", () =>
        [...document.querySelectorAll("[data-tile]")].every(({ dataset }) => dataset.seal === "sealed"));
    }
    assert.ok(!relay.log().includes("Okoro"), "the relay did not see the name");
  });

  test("the list of people shows verified names, and one code for all", async () => {
    for (const page of pages) {
      await page.press("p");
      const seen = await page.waitFor("two verified people", () => {
        const people = [...document.querySelectorAll("[data-member]")];
        const verified = people.filter(({ dataset }) => dataset.identity === "verified");
        return verified.length === 2 && people.map((person) => person.querySelector(".person-name").textContent);
      });
      assert.deepEqual(seen.map((name) => name.replace(" (you)", "")).sort(), ["Ada Haas", "Ben Okoro"]);
      assert.match(await page.evaluate(() => document.querySelector("[data-digits]").dataset.digits), /^\d{5}( \d{5}){5}$/);
      await page.press("Escape");
    }
    const [first, second] = await codes();
    assert.equal(first, second);
  });

  test("C opens from its epoch on, and nothing after it left, with any key it ever held", async () => {
    const [a] = pages;
    const audio = await a.evaluate(
      () => window.sealcast.room.publications.find(({ source }) => source === "audio").track,
    );
    // The wire: a participant who is not in the group, and records what the relay forwards.
    tap = await Client.join(relay, await relay.token(room, ALL));
    await tap.connect({ slots: 1 });
    const mid = await tap.show("audio", 0, audio);
    const wire = () => (tap.received.get(mid) ?? []).filter((frame) => frame.length > 20);
    await until("frames of before", () => wire().length >= 50);

    const c = await GroupPeer.join(relay, await relay.token(room, ALL), {
      identify: vouched,
      config: { issuer: { ...issuer, room } },
    });
    const before = wire().length;
    await until("C is in", () => c.member.sendingEpoch() !== undefined);
    await until("three members for everybody", async () => (await group(a)).members.length === 3);
    const joined = c.member.epoch();
    const tried = (frames) => frames.filter((frame) => opens(c, frame)).length;
    assert.equal(tried(wire().slice(0, before)), 0, "nothing of before");
    const since = wire().length;
    await until("frames of C's time", () => wire().length >= since + 50);
    const during = wire().slice(since);
    assert.ok(tried(during.slice(0, 40)) >= 30, "C opens what was sealed since it joined");

    await c.leave();
    await until("two members for everybody", async () => {
      const groups = await Promise.all(pages.map(group));
      return groups.every(({ members, epoch }) => members.length === 2 && BigInt(epoch) > joined);
    });
    // The positive control comes first: C has not forgotten what it knew.
    assert.ok(tried(during.slice(40)) >= 1, "C's keys are still with it");
    const left = wire().length;
    await until("frames of after", () => wire().length >= left + 50);
    assert.equal(tried(wire().slice(left)), 0, "nothing of after");
    const [b] = pages.slice(1);
    const opened = await b.evaluate((track) => window.sealcast.room.sealOf(track)?.opened ?? 0, audio);
    await b.waitFor("the call goes on", ({ track, opened }) =>
      window.sealcast.room.sealOf(track).opened > opened + 20, { track: audio, opened });
  });

  test("a ghost that the relay lets in is refused on every page, and shown", async () => {
    const [before] = await codes();
    const ghost = await GroupPeer.join(relay, await relay.token(room, ALL), { identify: () => "id:ghost" });
    for (const page of pages) {
      await page.waitFor("the notice", () =>
        document.querySelector(".notices")?.textContent.includes("without a valid identity"));
      const { members, code } = await group(page);
      assert.equal(members.length, 2);
      assert.equal(code, before);
      const mark = await page.waitFor("the ghost's tile", (id) =>
        document.querySelector(`[data-tile="${id}"] .seal-mark`)?.textContent, ghost.client.id);
      assert.equal(mark, "Not in");
    }
    assert.ok(ghost.events.some(({ type }) => type === "not-admitted"));
    await ghost.leave();
  });
});

test("when the relay restarts in mid-call, the group goes on, and so does the media", async () => {
  const relay = await startRestartable();
  const chromium = await launchChromium();
  const pages = [];
  try {
    const consult = newConsult({ key: null });
    for (let n = 0; n < 2; n++) pages.push(await join(chromium, relay, consult));
    const [a, b] = pages;
    const bothOpen = async () => {
      for (const [page, other] of [[a, b], [b, a]]) {
        await waitOpened(page, [other.participant], 50, ["audio"]);
        await waitOpened(page, [other.participant], 5, ["camera"]);
      }
    };
    await bothOpen();
    const leaves = () => Promise.all(pages.map((page) =>
      page.evaluate(() => window.sealcast.room.group.members.find(({ own }) => own).leaf)));
    const epochs = () => Promise.all(pages.map((page) => page.evaluate(() => window.sealcast.room.group.epoch)));
    const [leavesBefore, epochsBefore] = [await leaves(), await epochs()];
    await relay.restart();
    for (const page of pages) {
      page.participant = await page.waitFor("joining afresh", (former) => {
        const { room } = window.sealcast;
        return room?.state === "connected" && room.participant !== former && room.participant;
      }, page.participant);
    }
    await bothOpen();
    assert.deepEqual(await leaves(), leavesBefore, "everybody kept their place");
    for (const [n, epoch] of (await epochs()).entries()) assert.ok(epoch >= epochsBefore[n], "the same group, not a new one");
  } finally {
    for (const page of pages) await page.close();
    await chromium.close();
    await relay.stop();
  }
});

function opens(peer, frame) {
  try {
    peer.member.open("opus", frame);
    return true;
  } catch {
    return false;
  }
}
