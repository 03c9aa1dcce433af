/**
 * Group keys in real browsers: names and identities on the page, somebody who joins and leaves
 * again, ghosts, a restart. The keys of the one who leaves stay in its page's worker, so that every
 * one that it ever held can be tried on what was recorded from the wire.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { Client } from "../lib/client.mjs";
import { GroupPeer, TestIssuer } from "../lib/group.mjs";
import { startRelay, until } from "../lib/relay.mjs";
import { launchChromium, launchFirefox } from "./lib/browsers.mjs";
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
    for (const name of ["Ada Haas", "Ben Okoro"]) pages.push(await join(chromium, relay, consult(), named(name), canBeDeaf));
    for (const page of pages) await waitConnected(page);
  });

  after(async () => {
    for (const page of pages) await page.close();
    await tap?.close();
    await chromium?.close();
    await relay?.stop();
  });

  const consult = () => {
    const link = new URLSearchParams({ room, issuer: Buffer.from(JSON.stringify(issuer)).toString("base64url") });
    return { href: () => `${relay.url}/?video=320x180@15#${link}` };
  };
  /** A script that types a name before joining. */
  const named = (name) => new Function(`document.querySelector("#own-name").value = ${JSON.stringify(name)}`);
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

  test("C joins in a browser of its own, opens from its epoch on, and nothing after it left", async () => {
    const [a, b] = pages;
    const audioOf = (page) => page.evaluate(
      () => window.sealcast.room.publications.find(({ source }) => source === "audio").track,
    );
    const audio = await audioOf(a);
    // The wire: a participant who is not in the group, and records what the relay forwards.
    tap = await Client.join(relay, await relay.token(room, ALL));
    await tap.connect({ slots: 1 });
    const mid = await tap.show("audio", 0, audio);
    const wire = () => (tap.received.get(mid) ?? []).filter((frame) => frame.length > 20);
    const record = async (frames) => {
      const from = wire().length;
      await until(`${frames} frames on the wire`, () => wire().length >= from + frames);
      return wire().slice(from);
    };
    const before = await record(50);

    const c = await join(chromium, relay, consult(), named("Cleo Lind"), keepWorkers);
    pages.push(c);
    // What the page opens in its own slots, live.
    await waitOpened(c, [a.participant, b.participant], 30, ["audio"]);
    await waitOpened(a, [c.participant], 10);
    for (const page of pages) assert.equal((await group(page)).members.length, 3);
    assert.equal(new Set(await codes()).size, 1);
    const joined = (await group(c)).epoch;
    assert.deepEqual(await opens(c, a, before), { tried: before.length, opened: 0 }, "nothing of before");

    // From here on C's page shows A's voice no more, so that what is recorded is new to its keys.
    await c.evaluate((id) => window.sealcast.room.unsubscribe({ track: id }), audio);
    await c.waitFor("no slot with A's voice", async (id) =>
      !(await window.sealcast.room.stats()).receiving.some(({ track }) => track === id), audio);
    const [first, second] = halves(await record(60));
    const during = await opens(c, a, first);
    assert.equal(during.opened, first.length, `what was sealed since C joined opens with C's keys: ${JSON.stringify(during)}`);

    await c.evaluate(() => window.sealcast.room.leave());
    pages.pop();
    await until("two members for everybody", async () => {
      const groups = await Promise.all(pages.map(group));
      return groups.every(({ members, epoch }) => members.length === 2 && epoch > joined);
    });
    // Senders seal with the new epoch when all are ready, at the latest after two seconds (§11.6).
    await a.waitFor("A's voice under the new keys", () => {
      const { group, publications } = window.sealcast.room;
      const { seal } = publications.find(({ source }) => source === "audio");
      return seal.keyIds.every((keyId) => parseInt(keyId.slice(-2), 16) === (group.epoch & 0xff));
    });
    await record(5);
    const after = await record(50);
    // The positive control comes with it: C's worker still has every key that C ever held.
    assert.equal((await opens(c, a, second)).opened, second.length, "C's keys are still with it");
    assert.deepEqual(await opens(c, a, after), { tried: after.length, opened: 0 }, "nothing of after");
    await c.close();

    const opened = await b.evaluate((track) => window.sealcast.room.sealOf(track)?.opened ?? 0, audio);
    await b.waitFor("the call goes on", ({ track, opened }) =>
      window.sealcast.room.sealOf(track).opened > opened + 20, { track: audio, opened });
  });

  test("ghosts that the relay lets in are refused on every page, and shown", async () => {
    const [before] = await codes();
    // One without an identity, one of an issuer of the relay's own, one with a word about another's key.
    const own = new TestIssuer(room);
    const stolen = await vouched(JSON.parse('{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}'));
    const ghosts = [];
    for (const identify of [() => "id:ghost-1", (jwk) => `jwt:${own.assert("ghost-2", jwk)}`, () => stolen]) {
      ghosts.push(await GroupPeer.join(relay, await relay.token(room, ALL), { identify }));
    }
    for (const ghost of ghosts) {
      await until("the ghost is told", () => ghost.events.some(({ type }) => type === "not-admitted"));
      assert.equal(ghost.member.epoch(), undefined, "it holds no key");
    }
    for (const page of pages) {
      await page.waitFor("a notice for each", () => {
        const notices = [...document.querySelectorAll(".notices .notice")];
        return notices.filter(({ textContent }) => textContent.includes("without a valid identity")).length === 3;
      });
      const { members, code } = await group(page);
      assert.equal(members.length, 2);
      assert.equal(code, before, "the group did not move for them");
      for (const ghost of ghosts) {
        const mark = await page.waitFor("the ghost's tile", (id) =>
          document.querySelector(`[data-tile="${id}"] .seal-mark`)?.textContent, ghost.client.id);
        assert.equal(mark, "Not in");
      }
    }
    for (const ghost of ghosts) await ghost.leave();
  });

  test("people write to each other, by verified name, and point at a shared screen", async () => {
    const [a, b] = pages;
    const lane = (name) => relay.metric("sealcast_sealed_messages_total", { lane: name });
    const before = { signalling: await lane("signalling"), data: await lane("data_channel") };
    const text = `Left lower lobe ${randomBytes(6).toString("hex")}`;
    await a.press("c");
    await a.type("#chat-text", text);
    await a.press("Enter");
    await a.waitFor("the message is sent", () =>
      document.querySelector(".chat-message.own")?.dataset.state === "sent");
    await b.waitFor("an unread mark", () => document.querySelector("#control-chat .control-badge")?.textContent === "1");
    assert.equal(await b.evaluate(() => document.querySelector("#control-chat").getAttribute("aria-label")), "Chat, 1 unread");
    await b.press("c");
    const seen = await b.waitFor("the message", () => {
      const message = document.querySelector("[role=log] .chat-message");
      const read = (selector) => message?.querySelector(selector);
      return message && [
        read(".chat-name").textContent,
        read(".chat-identity").dataset.identity,
        read(".chat-text").textContent,
        document.querySelector("#control-chat .control-badge"),
      ];
    });
    assert.deepEqual(seen, ["Ada Haas", "verified", text, null]);
    for (const page of [a, b]) await page.press("Escape");
    assert.equal((await lane("signalling")) - before.signalling, 1);

    await a.click("#control-screen");
    const track = await b.waitFor("Ada's screen", () =>
      document.querySelector(".tile-screen.has-video .annotation-tools")?.closest("[data-tile]").dataset.tile);
    await b.evaluate((id) => {
      const tile = document.querySelector(`[data-tile="${id}"]`);
      tile.querySelector(".annotation-tools button").click();
      const layer = tile.querySelector(".annotations");
      const { left, top, width, height } = layer.getBoundingClientRect();
      const at = { clientX: left + width * 0.25, clientY: top + height * 0.5, bubbles: true };
      layer.dispatchEvent(new PointerEvent("pointermove", at));
    }, track);
    const pointer = await a.waitFor("Ben's pointer on Ada's own screen", () => {
      const dot = document.querySelector('[data-tile="own-screen"] .annotation-pointer');
      return dot && [dot.textContent, Math.round(parseFloat(dot.style.left)), Math.round(parseFloat(dot.style.top))];
    });
    assert.deepEqual(pointer, ["Ben Okoro", 25, 50]);
    assert.ok((await lane("data_channel")) > before.data, "by the data channel");
    await a.click("#control-screen");
    assert.ok(!relay.log().includes(text), "the relay did not see what was written");
  });

  test("a member who claims another's pseudonym before its owner does is not believed", async () => {
    const [a, b] = pages;
    const mallory = await GroupPeer.join(relay, await relay.token(room, ALL), {
      identify: vouched,
      config: { issuer: { ...issuer, room } },
    });
    await until("Mallory is in", () => mallory.member.sendingEpoch() !== undefined);
    const claim = (participant) => mallory.sendSealed(JSON.stringify({ type: "presence", participant, name: "Mallory" }));
    // The relay tells everybody who joined before that one can have said anything.
    const claimed = [];
    mallory.onRoomEvent = ({ type, participant }) => {
      if (type === "participant_joined") claimed.push(claim(participant).then(() => participant));
    };
    const d = await join(chromium, relay, consult(), named("Dev Patel"));
    assert.deepEqual(await Promise.all(claimed), [d.participant], "the claim went out");
    for (const page of [a, b]) {
      await page.waitFor("the owner's name on its tile", (id) =>
        document.querySelector(`[data-tile="${id}"]`)?.getAttribute("aria-label") === "Dev Patel", d.participant);
    }
    await waitOpened(a, [d.participant], 20, ["audio"]);
    // Once somebody holds it, another one's claim is shown.
    await claim(d.participant);
    for (const page of [a, b, d]) {
      await page.waitFor("the notice", () => document.querySelector(".notices")?.textContent.includes("pretends to be"));
    }
    assert.equal((await a.evaluate(() => window.sealcast.room.group.members.length)), 4);
    await mallory.leave();
    await d.close();
    await until("two members again", async () => (await group(a)).members.length === 2);
  });

  test("who cannot open whom is said on both pages, since when, and ends by itself", async () => {
    const [a, b] = pages;
    const unopened = () => relay.metric("sealcast_client_frames_total", { result: "unknown_key" });
    const before = await unopened();
    // Ben's page misses a change of the keys.
    await b.evaluate(() => void (window.isDeaf = true));
    await a.evaluate(() => window.sealcast.room.rotateKeys());
    const trouble = (page, words) =>
      page.waitFor(words, (words) => {
        const shown = document.querySelector(".trouble").textContent;
        return shown.includes(words) && shown;
      }, words);
    assert.match(await trouble(b, "You cannot open Ada Haas’s"), /(voice|camera).* since \d+:\d\d:\d\d/);
    assert.match(await trouble(a, "Ben Okoro cannot open your"), /(voice|camera).* since \d+:\d\d:\d\d/);
    assert.equal(await b.evaluate((id) => document.querySelector(`[data-tile="${id}"]`).dataset.seal, a.participant), "broken");
    await until("operators see it", async () => (await unopened()) > before);
    assert.ok(relay.log().includes("cannot open a track"));

    await b.evaluate(() => void (window.isDeaf = false));
    for (const page of [a, b]) {
      await page.waitFor("no more trouble", () => document.querySelector(".trouble").textContent === "");
    }
    const audio = await a.evaluate(() => window.sealcast.room.publications.find(({ source }) => source === "audio").track);
    const opened = await b.evaluate((track) => window.sealcast.room.sealOf(track).opened, audio);
    await b.waitFor("frames that open", ({ audio, opened }) =>
      window.sealcast.room.sealOf(audio).opened > opened + 20, { audio, opened });
    const [first, second] = await codes();
    assert.equal(first, second);
  });
});

test("Chromium and Firefox are one group; when the relay restarts in mid-call, it goes on, and so does the media", async () => {
  const relay = await startRestartable();
  const browsers = [await launchChromium(), await launchFirefox()];
  const pages = [];
  try {
    const consult = newConsult({ key: null });
    for (const browser of browsers) pages.push(await join(browser, relay, consult));
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
    for (const browser of browsers) await browser.close();
    await relay.stop();
  }
});

/** Runs ahead of a page's own scripts: while `isDeaf`, it hears nothing of the room's group. */
function canBeDeaf() {
  const Real = WebSocket;
  window.WebSocket = class extends Real {
    constructor(...where) {
      super(...where);
      this.addEventListener("message", (event) => {
        if (window.isDeaf && event.data.startsWith('{"type":"group"')) event.stopImmediatePropagation();
      });
    }
  };
}

/** Runs ahead of a page's own scripts: its worker, and with it every key, outlives the room. */
function keepWorkers() {
  Worker.prototype.terminate = () => undefined;
}

/**
 * Has a page's worker open frames of `sender`'s voice with the keys that it holds, by the same code
 * that opens what arrives in a slot.
 */
async function opens(page, sender, frames) {
  const encoded = frames.map((frame) => Buffer.from(frame).toString("base64"));
  return page.evaluateInWorker(
    async ({ owner, encoded }) => {
      const track = `TR_recorded_${Math.random()}`;
      const slot = `recorded-${track}`;
      self.onmessage({ data: { type: "show", slot, track, sealed: true, owner } });
      const decode = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer;
      const { readable, writable } = new TransformStream();
      let opened = 0;
      const sink = new WritableStream({ write: () => void opened++ });
      self.onrtctransform({ transformer: { options: { role: "receiver", slot }, readable, writable: sink } });
      const writer = writable.getWriter();
      for (const text of encoded) {
        await writer.write({ data: decode(text), getMetadata: () => ({ mimeType: "audio/opus" }) });
      }
      await writer.close();
      // The pipe ends a few turns of the event loop after its last frame.
      await new Promise((resolve) => setTimeout(resolve, 200));
      return { tried: encoded.length, opened };
    },
    { owner: sender.participant, encoded },
  );
}

function halves(list) {
  const middle = Math.ceil(list.length / 2);
  return [list.slice(0, middle), list.slice(middle)];
}
