/**
 * People in real browsers in a call through the real relay. Nothing here looks at frame rates: what
 * counts is that frames arrive and open, and that those which must not open do not.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { launchChromium, launchFirefox } from "./lib/browsers.mjs";
import { counts, join, marks, newConsult, stats, waitConnected, waitOpened, withoutUdp } from "./lib/consult.mjs";
import { startRelay } from "./lib/relay.mjs";

const FRAMES = 100;
/** The key is in the link here; tests of group keys are in group.test.mjs. */
const LINK_KEYS = `keys = "link"`;

let chromium;
let firefox;

before(async () => {
  [chromium, firefox] = await Promise.all([launchChromium(), launchFirefox()]);
});

after(async () => {
  await chromium?.close();
  await firefox?.close();
});

describe("a consult of three", () => {
  let relay;
  let consult;
  let pages;
  let outsider;

  before(async () => {
    relay = await startRelay({ rooms: LINK_KEYS });
    consult = newConsult();
    pages = [];
    for (const browser of [chromium, chromium, firefox]) pages.push(await join(browser, relay, consult, keepAnswers));
  });

  after(async () => {
    for (const page of [...(pages ?? []), outsider]) await page?.close();
    await relay?.stop();
  });

  test("each opens at least 100 frames of voice and of picture from each other", async () => {
    for (const page of pages) {
      const others = pages.filter((other) => other !== page).map(({ participant }) => participant);
      await waitOpened(page, others, FRAMES);
      const seen = await counts(page);
      assert.deepEqual(new Set(Object.keys(seen)), new Set(others));
      for (const other of others) {
        for (const source of ["audio", "camera"]) {
          const { inauthentic, unknownKey, malformed, clear, state } = seen[other][source];
          assert.deepEqual({ inauthentic, unknownKey, malformed, clear }, { inauthentic: 0, unknownKey: 0, malformed: 0, clear: 0 });
          assert.equal(state, "open");
        }
      }
    }
  });

  test("opened pictures are decoded and shown", async () => {
    for (const page of pages) {
      const shown = await page.waitFor("two decoded pictures", async () => {
        const { receiving } = await window.sealcast.room.stats();
        const decoded = receiving.filter(({ source, framesDecoded }) => source === "camera" && framesDecoded >= 10);
        const painted = [...document.querySelectorAll(".tile-person.has-video video")].filter(
          ({ videoWidth, currentTime }) => videoWidth > 0 && currentTime > 0,
        );
        return decoded.length === 2 && painted.length === 2;
      });
      assert.ok(shown);
    }
  });

  test("redundancy of voices is agreed on with browsers that have it, and with no others", async () => {
    const [, , withoutRed] = pages;
    for (const page of pages) {
      const sections = await page.evaluate(() => window.answers.at(-1).split(/^m=/m).filter((text) => text.startsWith("audio")));
      const types = sections.map((text) => /^a=rtpmap:(\d+) red\/48000\/2\r$/m.exec(text)?.[1]);
      if (page === withoutRed) assert.ok(types.every((type) => type === undefined), "Firefox has none");
      else {
        assert.ok(types.every((type) => type !== undefined), "the microphone's line and every slot");
        // What a section lists first is what is sent. That it saves words is network.test.mjs's to show.
        const [microphone] = sections;
        assert.equal(microphone.split(" ")[3], types[0], "voices are sent with redundancy");
      }
    }
  });

  test("a microphone and a camera of one person stand in one pair of slots", async () => {
    for (const page of pages) {
      // The relay gives both slots of a pair one stream, by which the browser plays them in sync.
      const streams = await page.evaluate(async () => {
        const sdp = window.answers.at(-1);
        const { receiving } = await window.sealcast.room.stats();
        return receiving.map(({ participant, mid }) => {
          const section = sdp.split(/^m=/m).find((text) => text.includes(`\r\na=mid:${mid}\r\n`));
          return { participant, stream: /^a=msid:(\S+)/m.exec(section)?.[1] };
        });
      });
      assert.equal(streams.length, 4);
      for (const { participant, stream } of streams) {
        assert.match(stream, /^slot-/);
        const same = streams.filter((other) => other.stream === stream);
        assert.deepEqual(same.map((other) => other.participant), [participant, participant]);
      }
    }
  });

  test("the page says that it is sealed, and the link's key has left the address bar", async () => {
    for (const page of pages) {
      await page.waitFor("sealed marks on all tiles", () =>
        [...document.querySelectorAll("[data-tile]")].every(({ dataset }) => dataset.seal === "sealed"),
      );
      assert.equal(await page.evaluate(() => location.hash), "");
      assert.equal(await page.evaluate(() => document.querySelector(".call-seal").textContent), "Sealed end to end");
    }
  });

  test("every participant and encoding has a key id of its own", async () => {
    const ids = [];
    for (const page of pages) {
      ids.push(...(await page.evaluate(() => window.sealcast.room.publications.flatMap(({ seal }) => seal?.keyIds ?? []))));
    }
    assert.equal(ids.length, 6);
    assert.equal(new Set(ids).size, 6);
    assert.ok(ids.every((id) => /^[0-9a-f]+$/.test(id)), ids.join());
  });

  test("a fourth with another key opens nothing, and its page says so", async () => {
    outsider = await join(chromium, relay, newConsult({ room: consult.room, key: randomBytes(32) }));
    await outsider.waitFor("frames that do not open", () => {
      const { room } = window.sealcast;
      const tracks = [...room.participants.values()].flatMap(({ tracks }) => [...tracks.values()]);
      return tracks.length === 6 && tracks.every(({ track }) => (room.sealOf(track)?.inauthentic ?? 0) >= 10);
    });
    await assertNothingOpens(outsider, pages);
    await leave(outsider);
  });

  test("a fourth without a key opens nothing, sends nothing, and its page says so", async () => {
    outsider = await join(chromium, relay, newConsult({ room: consult.room, key: null }));
    await outsider.waitFor("frames that do not open", () => {
      const { room } = window.sealcast;
      const tracks = [...room.participants.values()].flatMap(({ tracks }) => [...tracks.values()]);
      return tracks.length === 6 && tracks.every(({ track }) => (room.sealOf(track)?.unknownKey ?? 0) >= 10);
    });
    await assertNothingOpens(outsider, pages);
    assert.deepEqual(await outsider.evaluate(() => window.sealcast.room.publications.length), 0);
    const { sending } = await stats(outsider);
    assert.ok(sending.every(({ packets }) => packets === 0));
    await leave(outsider);
    outsider = undefined;
  });

  test("muting shows to the others, and unmuting brings frames again", async () => {
    const [first, second] = pages;
    await first.press("v");
    await second.waitFor("the muted camera", cameraMuted(true), first.participant);
    await first.press("v");
    await second.waitFor("the camera again", cameraMuted(false), first.participant);
    const before = (await counts(second))[first.participant].camera.opened;
    await waitOpened(second, [first.participant], before + 20, ["camera"]);
  });

  test("a socket that drops is resumed, and media does not even notice", async () => {
    const [first, second] = pages;
    const facts = () =>
      first.evaluate(async () => {
        const { receiving } = await window.sealcast.room.stats();
        return { participant: window.sealcast.room.participant, mids: receiving.map(({ mid }) => mid).sort() };
      });
    const before = await facts();
    const opened = (await counts(first))[second.participant].camera.opened;
    await first.evaluate(() => {
      window.phases = [];
      window.negotiations = 0;
      const { setLocalDescription } = RTCPeerConnection.prototype;
      RTCPeerConnection.prototype.setLocalDescription = function (...arguments_) {
        window.negotiations += 1;
        return setLocalDescription.apply(this, arguments_);
      };
      window.sealcast.room.on("state", (state) => window.phases.push(state));
      window.sealcast.room.dropSignalling();
    });
    await first.waitFor("the room again", () => window.phases.includes("connected"));
    assert.deepEqual(await facts(), before, "the same participant, in the same slots");
    assert.deepEqual(await first.evaluate(() => window.phases), ["reconnecting", "connected"]);
    assert.equal(await first.evaluate(() => window.negotiations), 0, "nothing was negotiated");
    await waitOpened(first, [second.participant], opened + 20, ["camera"]);
    // The relay listens to the new socket: what is asked on it works, and others hear of it.
    await first.press("m");
    await second.waitFor("the mute after resuming", ({ other }) => {
      const tracks = [...window.sealcast.room.participants.get(other).tracks.values()];
      return tracks.some(({ source, muted }) => source === "audio" && muted);
    }, { other: first.participant });
    await first.press("m");
  });

  test("whoever leaves is gone from everybody's page", async () => {
    const [first, second, third] = pages;
    await second.click("#control-leave");
    await second.waitFor("the farewell", () => document.body.innerText.includes("You have left the consult"));
    for (const page of [first, third]) {
      await page.waitFor("the tile to vanish", (gone) => !document.querySelector(`[data-tile="${gone}"]`), second.participant);
      assert.equal(Object.keys(await marks(page)).length, 2);
    }
  });
});

describe("other ways to the relay", () => {
  test("where the network passes no UDP, the call goes over TCP", async () => {
    await callOfTwo({ prepare: withoutUdp }, (facts) => assert.deepEqual(facts.map(({ protocol }) => protocol), ["tcp", "tcp"]));
  });

  test("over IPv6", async () => {
    await callOfTwo({ address: "::1" }, (facts) => assert.deepEqual(facts.map(({ protocol }) => protocol), ["udp", "udp"]));
  });
});

test("when the relay restarts in the middle of a call, the call goes on by itself", async () => {
  await callOfTwo({}, async (_facts, { relay, pages }) => {
    await relay.restart();
    for (const page of pages) {
      page.participant = await page.waitFor(
        "joining afresh",
        (former) => {
          const { room } = window.sealcast;
          return room?.state === "connected" && room.participant !== former && room.participant;
        },
        page.participant,
      );
    }
    const [first, second] = pages;
    await waitOpened(first, [second.participant], FRAMES);
    await waitOpened(second, [first.participant], FRAMES);
    assert.deepEqual(new Set(Object.keys(await marks(first))), new Set(["self", second.participant]));
  });
});

/** One Chromium, one Firefox: both open what the other sends. Then `check` looks at both. */
async function callOfTwo({ address, prepare }, check) {
  const relay = await startRelay({ address, rooms: LINK_KEYS });
  const pages = [];
  try {
    const consult = newConsult();
    for (const browser of [chromium, firefox]) pages.push(await join(browser, relay, consult, prepare));
    const [first, second] = pages;
    for (const page of pages) await waitConnected(page);
    await waitOpened(first, [second.participant], FRAMES);
    await waitOpened(second, [first.participant], FRAMES);
    await check(await Promise.all(pages.map(async (page) => (await stats(page)).transport)), { relay, pages });
  } finally {
    for (const page of pages) await page.close();
    await relay.stop();
  }
}

/** For `join`: keeps the relay's answers where the test can read them. */
function keepAnswers() {
  window.answers = [];
  const { setRemoteDescription } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.setRemoteDescription = function (description) {
    window.answers.push(description.sdp);
    return setRemoteDescription.call(this, description);
  };
}

/** Leaves as people do, so that the relay need not wait for the grace period. */
async function leave(page) {
  await page.click("#control-leave");
  await page.waitFor("the farewell", () => document.body.innerText.includes("You have left the consult"));
  await page.close();
}

async function assertNothingOpens(outsider, members) {
  const seen = await counts(outsider);
  for (const { participant } of members) {
    for (const source of ["audio", "camera"]) {
      const { opened, clear, state } = seen[participant][source];
      assert.deepEqual({ opened, clear, state }, { opened: 0, clear: 0, state: "failing" });
    }
  }
  await outsider.waitFor("marks that say so", (members) => {
    return members.every((id) => document.querySelector(`[data-tile="${id}"]`)?.dataset.seal === "broken");
  }, members.map(({ participant }) => participant));
  const { receiving } = await stats(outsider);
  assert.ok(receiving.every(({ framesDecoded }) => !framesDecoded), "nothing reached a decoder");
}

function cameraMuted(muted) {
  const script = (participant) => {
    const tracks = [...(window.sealcast.room.participants.get(participant)?.tracks.values() ?? [])];
    return tracks.some((track) => track.source === "camera" && track.muted === MUTED);
  };
  return new Function("participant", `return (${script.toString().replace("MUTED", String(muted))})(participant)`);
}
