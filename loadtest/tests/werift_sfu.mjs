// A small SFU on werift, an independent WebRTC stack in TypeScript: WHIP in, WHEP out, one audio and
// one video track a room. For testing the load tester against something that is not ours.
//
// usage: werift_sfu.mjs PORT [FAULT]
//
// With the fault "wrong-room", a room's media goes to the players of another one.

import http from "node:http";
import path from "node:path";
import { createRequire } from "node:module";

const interop = path.resolve(import.meta.dirname, "../../tests/interop/package.json");
const { MediaStreamTrack, RTCPeerConnection, useOPUS, useVP8 } = createRequire(interop)("werift");

/** By room: players' tracks by kind, and how to ask the publisher for a key frame. */
const rooms = new Map();
const room = (name) => {
  if (!rooms.has(name)) rooms.set(name, { audio: new Set(), video: new Set(), askKeyFrame: () => {} });
  return rooms.get(name);
};

/** Who gets a room's media: its players, or another room's. */
const playersOf = (name) => {
  const others = [...rooms.keys()].filter((other) => other !== name);
  return room(process.argv[3] === "wrong-room" && others.length > 0 ? others[0] : name);
};

const connection = () =>
  new RTCPeerConnection({
    bundlePolicy: "max-bundle",
    codecs: { audio: [useOPUS()], video: [useVP8()] },
    iceUseIpv6: false,
    iceAdditionalHostAddresses: ["127.0.0.1"],
  });

async function answer(pc) {
  await pc.setLocalDescription(await pc.createAnswer());
  return pc.localDescription.sdp;
}

async function publish(name, sdp) {
  const pc = connection();
  pc.onTrack.subscribe((track) => {
    track.onReceiveRtp.subscribe((packet) => {
      for (const out of playersOf(name)[track.kind]) out.writeRtp(packet.clone());
    });
    if (track.kind === "video") {
      track.onReceiveRtp.once((packet) => {
        const receiver = pc.getTransceivers().find((t) => t.kind === "video").receiver;
        room(name).askKeyFrame = () => receiver.sendRtcpPLI(packet.header.ssrc);
      });
    }
  });
  await pc.setRemoteDescription({ type: "offer", sdp });
  return [pc, await answer(pc)];
}

async function play(name, sdp) {
  const pc = connection();
  await pc.setRemoteDescription({ type: "offer", sdp });
  for (const transceiver of pc.getTransceivers()) {
    const track = new MediaStreamTrack({ kind: transceiver.kind });
    await transceiver.sender.replaceTrack(track);
    transceiver.setDirection("sendonly");
    const tracks = room(name)[transceiver.kind];
    tracks.add(track);
    pc.connectionStateChange.subscribe((state) => {
      if (state === "closed" || state === "failed") tracks.delete(track);
      if (state === "connected") room(name).askKeyFrame();
    });
    transceiver.sender.onPictureLossIndication.subscribe(() => room(name).askKeyFrame());
  }
  return [pc, await answer(pc)];
}

const sessions = new Map();
http
  .createServer(async (request, response) => {
    const [, endpoint, name, id] = request.url.split("/");
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    try {
      if (request.method === "DELETE") {
        await sessions.get(id)?.close();
        sessions.delete(id);
        return response.writeHead(200).end();
      }
      const [pc, sdp] = await (endpoint === "whip" ? publish : play)(name, Buffer.concat(chunks).toString());
      const key = String(sessions.size + 1);
      sessions.set(key, pc);
      const headers = { "content-type": "application/sdp", location: `/${endpoint}/${name}/${key}` };
      response.writeHead(201, headers).end(sdp);
    } catch (error) {
      response.writeHead(500).end(String(error));
    }
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
