// A werift client (an independent WebRTC stack in TypeScript) that publishes by WHIP or plays by WHEP.
//
// usage: werift_peer.mjs publish|play URL TOKEN [packets] [seconds]
//
// It publishes RTP packets that it makes itself (VP8 descriptor and a numbered payload; Opus-typed
// numbered payloads), and as a player checks the numbers of what arrives. Prints JSON lines.

import {
  MediaStreamTrack,
  RTCPeerConnection,
  RtpHeader,
  RtpPacket,
  useOPUS,
  useVP8,
} from "werift";

const [role, url, token, wantText = "200", secondsText = "60"] = process.argv.slice(2);
const want = Number(wantText);
const deadline = Date.now() + Number(secondsText) * 1000;
const say = (line) => console.log(JSON.stringify(line));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const pc = new RTCPeerConnection({
  bundlePolicy: "max-bundle",
  codecs: { audio: [useOPUS()], video: [useVP8()] },
  iceUseIpv6: false,
  iceAdditionalHostAddresses: ["127.0.0.1"],
});

// One key frame in ten, so that a player that joins late can start. The first ten bytes are a VP8
// frame header (RFC 6386 section 9.1): bit 0 clear on key frames, then start code and dimensions.
function vp8Payload(number) {
  const key = number % 10 === 0;
  const payload = Buffer.alloc(64, number & 0xff);
  Buffer.from([0x90, 0x80, 0x80 | ((number >> 8) & 0x7f), number & 0xff]).copy(payload);
  Buffer.from(key ? [0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x40, 1, 0xb4, 0] : [0x11, 0, 0]).copy(payload, 4);
  payload.writeUInt32BE(number, 32);
  return payload;
}

function opusPayload(number) {
  const payload = Buffer.alloc(40, 0xfc);
  payload.writeUInt32BE(number, 32);
  return payload;
}

async function negotiate() {
  await pc.setLocalDescription(await pc.createOffer());
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/sdp" };
  const reply = await fetch(url, { method: "POST", body: pc.localDescription.sdp, headers });
  const body = await reply.text();
  if (reply.status !== 201) throw new Error(`${reply.status}: ${body}`);
  await pc.setRemoteDescription({ type: "answer", sdp: body });
  return new URL(reply.headers.get("location"), reply.url).href;
}

async function connected() {
  while (pc.connectionState !== "connected") {
    if (Date.now() > deadline) throw new Error(`not connected: ${pc.connectionState}`);
    await sleep(20);
  }
}

async function publish() {
  const video = new MediaStreamTrack({ kind: "video" });
  const audio = new MediaStreamTrack({ kind: "audio" });
  pc.addTransceiver(video, { direction: "sendonly" });
  pc.addTransceiver(audio, { direction: "sendonly" });
  const location = await negotiate();
  await connected();
  say({ state: "publishing" });
  let stdinOpen = true;
  process.stdin.on("end", () => (stdinOpen = false)).resume();
  let plis = 0;
  pc.getSenders()[0].onPictureLossIndication?.subscribe(() => plis++);
  let number = 0;
  for (; stdinOpen && Date.now() < deadline; number++) {
    const header = (payloadType, timestamp) =>
      new RtpHeader({ payloadType, sequenceNumber: number & 0xffff, timestamp: timestamp >>> 0, marker: true });
    video.writeRtp(new RtpPacket(header(96, number * 3000), vp8Payload(number)));
    audio.writeRtp(new RtpPacket(header(97, number * 960), opusPayload(number)));
    await sleep(20);
  }
  return { location, sent: number, plis };
}

async function play() {
  const seen = { audio: new Set(), video: new Set() };
  const wrong = [];
  pc.onTrack.subscribe((track) => {
    track.onReceiveRtp.subscribe((packet) => {
      const at = 32;
      if (packet.payload.length < at + 4) return wrong.push(packet.payload.length);
      const number = packet.payload.readUInt32BE(at);
      const expected = track.kind === "video" ? vp8Payload(number).subarray(4) : opusPayload(number);
      const got = track.kind === "video" ? packet.payload.subarray(4) : packet.payload;
      if (Buffer.compare(got, expected) !== 0) wrong.push(number);
      else seen[track.kind].add(number);
    });
  });
  pc.addTransceiver("video", { direction: "recvonly" });
  pc.addTransceiver("audio", { direction: "recvonly" });
  const location = await negotiate();
  while ((seen.audio.size < want || seen.video.size < want) && Date.now() < deadline) await sleep(50);
  const reached = seen.audio.size >= want && seen.video.size >= want;
  return { location, reached, audio: seen.audio.size, video: seen.video.size, wrong: wrong.length };
}

let code = 1;
try {
  const result = await (role === "publish" ? publish() : play());
  const reply = await fetch(result.location, { method: "DELETE", headers: { authorization: `Bearer ${token}` } });
  say({ state: "done", ...result, delete: reply.status });
  code = role === "publish" || result.reached ? 0 : 1;
} catch (error) {
  say({ state: "failed", error: String(error) });
}
await pc.close();
process.exit(code);
