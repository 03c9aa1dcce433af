"""An aiortc client that publishes by WHIP or plays by WHEP and prints what it saw as one JSON line.

usage: aiortc_peer.py publish|play URL TOKEN [--profile NAME] [--frames N] [--seconds S]

Exit code 0 when the goal was reached in time (publish: N video frames encoded and acknowledged by
receiver reports; play: N video and N audio frames decoded), 1 otherwise.
"""

import argparse
import asyncio
import fractions
import json
import math
import sys
import time

import aiohttp
import aioice.ice
import numpy
from aiortc import RTCPeerConnection, RTCSessionDescription, rtcdtlstransport
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError, VideoStreamTrack
from av import AudioFrame, VideoFrame

# aioice leaves loopback out of its candidates; the relay under test is on loopback and nowhere else.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"] if use_ipv4 else ["::1"]

PROFILES = {
    "AEAD_AES_256_GCM": rtcdtlstransport.SRTP_AEAD_AES_256_GCM,
    "AEAD_AES_128_GCM": rtcdtlstransport.SRTP_AEAD_AES_128_GCM,
    "AES128_CM_SHA1_80": rtcdtlstransport.SRTP_AES128_CM_SHA1_80,
}


class Pattern(VideoStreamTrack):
    """A 320x180 picture whose luma encodes the frame number."""

    count = 0

    async def recv(self):
        pts, time_base = await self.next_timestamp()
        luma = 16 + (self.count * 7) % 200
        frame = VideoFrame.from_ndarray(numpy.full((180, 320, 3), luma, numpy.uint8), format="bgr24")
        frame.pts, frame.time_base = pts, time_base
        self.count += 1
        return frame


class Tone(AudioStreamTrack):
    """A 440 Hz tone at 48 kHz, 20 ms a frame."""

    started = None
    position = 0

    async def recv(self):
        samples = 960
        if self.started is None:
            self.started = time.monotonic()
        wait = self.started + self.position / 48000 - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        t = numpy.arange(self.position, self.position + samples)
        wave = (numpy.sin(t * 2 * math.pi * 440 / 48000) * 8000).astype(numpy.int16)
        frame = AudioFrame.from_ndarray(wave.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, self.position
        frame.time_base = fractions.Fraction(1, 48000)
        self.position += samples
        return frame


async def negotiate(pc, session, url, token):
    """Posts the offer and applies the answer. Returns the resource's location."""
    await pc.setLocalDescription(await pc.createOffer())
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
    async with session.post(url, data=pc.localDescription.sdp, headers=headers) as reply:
        body = await reply.text()
        if reply.status != 201:
            raise RuntimeError(f"{reply.status}: {body}")
        await pc.setRemoteDescription(RTCSessionDescription(sdp=body, type="answer"))
        return str(reply.url.join(aiohttp.client.URL(reply.headers["Location"])))


async def count(track, seen, lumas):
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        seen[track.kind] += 1
        if track.kind == "video":
            lumas.add(int(frame.to_ndarray(format="gray")[90, 160]))


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["publish", "play"])
    parser.add_argument("url")
    parser.add_argument("token")
    parser.add_argument("--profile", choices=PROFILES)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--hold", action="store_true", help="publish until standard input closes")
    args = parser.parse_args()
    if args.profile:
        rtcdtlstransport.SRTP_PROFILES[:] = [PROFILES[args.profile]]

    pc = RTCPeerConnection()
    seen, lumas, readers, video = {"audio": 0, "video": 0}, set(), [], Pattern()
    if args.role == "publish":
        for track in (video, Tone()):
            pc.addTransceiver(track, direction="sendonly")
    else:
        for kind in ("video", "audio"):
            pc.addTransceiver(kind, direction="recvonly")
        pc.on("track", lambda t: readers.append(asyncio.ensure_future(count(t, seen, lumas))))

    def done():
        if args.role == "publish":
            return video.count >= args.frames and pc.connectionState == "connected"
        return min(seen.values()) >= args.frames

    async with aiohttp.ClientSession() as session:
        location = await negotiate(pc, session, args.url, args.token)
        print(json.dumps({"state": "negotiated", "location": location}), flush=True)
        deadline = time.monotonic() + args.seconds
        while not done() and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        reached = done()
        if args.hold and reached:
            print(json.dumps({"state": "publishing"}), flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        dtls = pc.getTransceivers()[0].receiver.transport
        # What the encoder aims at: 500 kbit/s, until a REMB says otherwise.
        encoders = [vars(sender).get("_RTCRtpSender__encoder") for sender in pc.getSenders()]
        targets = [getattr(encoder, "target_bitrate", None) for encoder in encoders]
        result = {
            "state": "done",
            "reached": reached,
            "connection": pc.connectionState,
            "seen": seen,
            "lumas": len(lumas),
            "sent": video.count,
            "targets": [target for target in targets if target],
            "dtls": dtls.state,
        }
        async with session.delete(location, headers={"Authorization": f"Bearer {args.token}"}) as reply:
            result["delete"] = reply.status
        await pc.close()
    print(json.dumps(result), flush=True)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
