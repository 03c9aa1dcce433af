/**
 * A real Chromium whose feedback about its path is that of RFC 8888, each way: it has that behind a
 * field trial, and uses it where the answer has nothing else.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launchChromium } from "./lib/browsers.mjs";
import { join, newConsult, stats, waitConnected, waitOpened } from "./lib/consult.mjs";
import { startRelay } from "./lib/relay.mjs";

const TRIAL = "--force-fieldtrials=WebRTC-RFC8888CongestionControlFeedback/Enabled,offer:true/";

/** Enough for feedback of five seconds at least. */
const FRAMES = 100;

let chromium;

before(async () => {
  chromium = await launchChromium([TRIAL]);
});

after(async () => {
  await chromium?.close();
});

/** In the page: offers leave without transport-wide feedback. */
function withoutTransportCc() {
  const { send } = WebSocket.prototype;
  WebSocket.prototype.send = function (data) {
    const message = typeof data === "string" ? JSON.parse(data) : undefined;
    if (message?.type !== "offer") return send.call(this, data);
    const sdp = message.sdp.replace(/^a=rtcp-fb:\S+ transport-cc\r\n/gm, "");
    if (!/^a=rtcp-fb:\S+ ack ccfb\r$/m.test(sdp)) throw new Error("this browser does not offer RFC 8888");
    return send.call(this, JSON.stringify({ ...message, sdp }));
  };
}

/** A call of two; what became of feedback in it. */
async function call(prepare) {
  const relay = await startRelay({ rooms: `keys = "link"` });
  const consult = newConsult();
  const pages = [];
  try {
    for (let n = 0; n < 2; n++) pages.push(await join(chromium, relay, consult, undefined, prepare));
    const [a, b] = pages;
    for (const page of pages) await waitConnected(page);
    await waitOpened(a, [b.participant], FRAMES);
    await waitOpened(b, [a.participant], FRAMES);
    const metric = (way, type) => relay.metric(`sealcast_rtcp_${way}_total`, { type });
    const { transport } = await stats(b);
    return {
      relayEstimate: transport.relayEstimate,
      received: { ccfb: await metric("received", "ccfb"), twcc: await metric("received", "twcc") },
      sent: { ccfb: await metric("sent", "ccfb"), twcc: await metric("sent", "twcc") },
    };
  } finally {
    for (const page of pages) await page.close();
    await relay.stop();
  }
}

test("feedback of RFC 8888 is taken and given where a client has no other", async () => {
  const { relayEstimate, received, sent } = await call(withoutTransportCc);
  console.log(`taken ${received.ccfb}, given ${sent.ccfb}, the relay's estimate ${relayEstimate}`);
  assert.ok(received.ccfb > 40, `${received.ccfb} taken`);
  assert.ok(sent.ccfb > 40, `${sent.ccfb} given`);
  assert.deepEqual([received.twcc, sent.twcc], [0, 0]);
  assert.ok(relayEstimate > 300_000, `the relay's estimate: ${relayEstimate}`);
});

test("transport-wide feedback goes first where a client offers both", async () => {
  const { received, sent } = await call();
  assert.deepEqual([received.ccfb, sent.ccfb], [0, 0]);
  assert.ok(received.twcc > 40 && sent.twcc > 40);
});
