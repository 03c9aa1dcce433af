"""A GStreamer webrtcbin client that publishes by WHIP or plays by WHEP. Prints JSON lines.

usage: gst_peer.py publish|play URL TOKEN [--red] [--frames N] [--seconds S]

play: exit code 0 once N video frames and N audio buffers were decoded.
"""

import argparse
import hashlib
import json
import pathlib
import re
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import Gst, GstSdp, GstWebRTC  # noqa: E402

PUBLISH = """
webrtcbin name=rtc bundle-policy=max-bundle
videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=15/1
  ! vp8enc deadline=1 cpu-used=8 keyframe-max-dist=30 ! rtpvp8pay picture-id-mode=15-bit
  ! application/x-rtp,media=video,encoding-name=VP8,payload=96 ! rtc.
audiotestsrc is-live=true wave=sine ! audioconvert ! audioresample ! opusenc ! rtpopuspay pt=97
"""
PLAIN = "! application/x-rtp,media=audio,encoding-name=OPUS,payload=97 ! rtc."
# Each packet repeats the frame before it (RFC 2198). webrtcbin leaves RED out of its offers, so to it
# this is Opus; what it offers and what it is answered are rewritten.
REDUNDANT = (
    "! rtpredenc pt=63 distance=1"
    " ! capssetter caps=application/x-rtp,media=audio,encoding-name=OPUS,payload=63 ! rtc."
)
PLAY = "webrtcbin name=rtc bundle-policy=max-bundle fakesrc name=unused num-buffers=0 ! fakesink"


def http(method, url, token, body=None):
    request = urllib.request.Request(url, data=body, method=method)
    request.add_header("Authorization", f"Bearer {token}")
    if body is not None:
        request.add_header("Content-Type", "application/sdp")
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, reply.headers, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def ecdsa_pem():
    """A fresh self-signed P-256 certificate with its key, both PEM."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=gst"
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = f"{folder}/key.pem", f"{folder}/certificate.pem"
        subprocess.run(
            [*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
        )
        return pathlib.Path(certificate).read_text() + pathlib.Path(key).read_text()


def fingerprint(pem):
    """SHA-256 of the first certificate (RFC 8122 section 5)."""
    certificate = pem[: pem.index("-----END CERTIFICATE-----")] + "-----END CERTIFICATE-----\n"
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest().upper()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


class Peer:
    def __init__(self, args):
        self.args = args
        self.seen = {"video": 0, "audio": 0}
        self.location = None
        self.lock = threading.Lock()
        publish = PUBLISH + (REDUNDANT if args.red else PLAIN)
        self.pipeline = Gst.parse_launch(publish if args.role == "publish" else PLAY)
        self.rtc = self.pipeline.get_by_name("rtc")
        # libnice leaves loopback out unless it is told; the relay under test is there.
        # The reference is kept: webrtcbin loses its agent when Python lets go of a floating one.
        self.agent = self.rtc.get_property("ice-agent")
        self.agent.emit("add-local-ip-address", "127.0.0.1")
        # GStreamer makes an RSA certificate; the relay's DTLS takes ECDSA, which RFC 8827 section
        # 6.5 has every endpoint support.
        self.pem = ecdsa_pem()
        self.rtc.connect("deep-element-added", self.on_element)
        self.rtc.connect("pad-added", self.on_pad)
        self.rtc.connect("notify::ice-gathering-state", self.on_gathering)
        if args.role == "play":
            for media in (
                "application/x-rtp,media=video,encoding-name=VP8,payload=96,clock-rate=90000",
                "application/x-rtp,media=audio,encoding-name=OPUS,payload=97,clock-rate=48000,encoding-params=(string)2",
            ):
                self.rtc.emit(
                    "add-transceiver",
                    GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY,
                    Gst.Caps.from_string(media),
                )
        else:
            index = 0
            while (transceiver := self.rtc.emit("get-transceiver", index)) is not None:
                transceiver.set_property("direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY)
                index += 1

    def start(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        deadline = time.monotonic() + 10
        if self.args.role == "publish":
            # Caps reach webrtcbin's pads once the encoders have produced their first buffer.
            pads = [p for p in self.rtc.pads if p.direction == Gst.PadDirection.SINK]
            while any(p.get_current_caps() is None for p in pads) and time.monotonic() < deadline:
                time.sleep(0.05)
        # The offer lives in the reply, and the reply in its promise: both must outlive their use.
        created = Gst.Promise.new()
        self.rtc.emit("create-offer", None, created)
        created.wait()
        reply = created.get_reply()
        applied = Gst.Promise.new()
        self.rtc.emit("set-local-description", reply.get_value("offer"), applied)
        applied.wait()

    def on_element(self, _, __, element):
        if element.__gtype__.name == "GstDtlsDec":
            element.set_property("pem", self.pem)

    def on_gathering(self, rtc, _):
        if rtc.get_property("ice-gathering-state") != GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            return
        with self.lock:
            if self.location is not None:
                return
            self.location = ""
        threading.Thread(target=self.post_offer, daemon=True).start()

    def post_offer(self):
        sdp = self.rtc.get_property("local-description").sdp.as_text()
        # webrtcbin wrote the fingerprint of the certificate that it would have used by itself.
        sdp = re.sub(r"a=fingerprint:\S+ \S+", f"a=fingerprint:sha-256 {fingerprint(self.pem)}", sdp)
        if self.args.red:
            sdp = re.sub(r"(m=audio .* 63)\b", r"\1 97", sdp)
            sdp = sdp.replace("a=fmtp:63 sprop", "a=fmtp:97 sprop")
            over_opus = r"a=rtpmap:63 red/48000/2\r\na=fmtp:63 97/97\r\na=rtpmap:97 opus/48000/2"
            sdp = re.sub(r"a=rtpmap:63 OPUS/48000(/2)?", over_opus, sdp)
        status, headers, body = http("POST", self.args.url, self.args.token, sdp.encode())
        body, red = re.subn(r"a=rtpmap:63 red/48000/2", "a=rtpmap:63 OPUS/48000/2", body)
        body = re.sub(r"a=fmtp:63 97/97\r\n", "", body)
        print(json.dumps({"state": "negotiated", "status": status, "red": red > 0}), flush=True)
        if status != 201:
            print(json.dumps({"state": "failed", "error": body}), flush=True)
            return
        base = self.args.url.split("/", 3)
        self.location = "/".join(base[:3]) + headers["Location"]
        _, message = GstSdp.SDPMessage.new_from_text(body)
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
        self.rtc.emit("set-remote-description", answer, Gst.Promise.new())

    def on_pad(self, _, pad):
        if pad.direction != Gst.PadDirection.SRC:
            return
        kind = pad.get_current_caps().get_structure(0).get_string("media")
        chain = "rtpvp8depay ! vp8dec" if kind == "video" else "rtpopusdepay ! opusdec"
        branch = Gst.parse_bin_from_description(
            f"queue ! {chain} ! fakesink name=sink signal-handoffs=true sync=false", True
        )
        branch.get_by_name("sink").connect("handoff", lambda *_: self.count(kind))
        self.pipeline.add(branch)
        branch.sync_state_with_parent()
        pad.link(branch.get_static_pad("sink"))

    def count(self, kind):
        with self.lock:
            self.seen[kind] += 1

    def connected(self):
        state = self.rtc.get_property("connection-state")
        return state == GstWebRTC.WebRTCPeerConnectionState.CONNECTED


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["publish", "play"])
    parser.add_argument("url")
    parser.add_argument("token")
    parser.add_argument("--red", action="store_true")
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    Gst.init(None)
    peer = Peer(args)
    peer.start()
    deadline = time.monotonic() + args.seconds
    reached = False
    while time.monotonic() < deadline and not reached:
        time.sleep(0.05)
        reached = peer.connected() and (
            args.role == "publish" or min(peer.seen.values()) >= args.frames
        )
    if args.role == "publish" and reached:
        print(json.dumps({"state": "publishing"}), flush=True)
        sys.stdin.read()
    status = http("DELETE", peer.location, args.token)[0] if peer.location else None
    print(json.dumps({"state": "done", "reached": reached, "seen": peer.seen, "delete": status}), flush=True)
    peer.pipeline.set_state(Gst.State.NULL)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
