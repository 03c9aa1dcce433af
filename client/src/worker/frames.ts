/**
 * What happens to one frame on its way out or in. Fails closed in both directions: nothing leaves
 * unsealed, nothing that did not open reaches a decoder.
 */
import { type OpenTally, type SealTally, failureOf } from "./counters.js";
import { type RedOpener, type RedSealer, writeRed } from "./red.js";

/** The part of `RTCEncodedVideoFrame` and `RTCEncodedAudioFrame` that is used. */
export interface EncodedFrame {
  data: ArrayBuffer;
  /** Where metadata have no `rtpTimestamp` yet. */
  readonly timestamp?: number;
  getMetadata(): { mimeType?: string; synchronizationSource?: number; rtpTimestamp?: number };
}


export interface Sealer {
  seal(codec: string, frame: Uint8Array): Uint8Array<ArrayBuffer>;
  readonly kid: bigint;
}

export interface Opener {
  open(codec: string, frame: Uint8Array): Uint8Array<ArrayBuffer>;
  lastKid(): bigint;
}

/**
 * @param encoding which of the line's encodings the frame is of
 * @param red the line's, without which redundant audio does not leave
 * @returns whether the frame, now sealed, may go on to the packetizer
 */
export function sealFrame(
  frame: EncodedFrame,
  sealer: Sealer | undefined,
  tally: SealTally,
  now: number,
  encoding = 0,
  red?: RedSealer,
): boolean {
  // Opus DTX: "Frames of zero length are not sealed" (docs/PROTOCOL.md §7.1).
  if (frame.data.byteLength === 0) return true;
  if (!sealer) {
    tally.onWithheld(now);
    return false;
  }
  try {
    const data = new Uint8Array(frame.data);
    const codec = codecOf(frame);
    frame.data = exactBuffer(
      codec === "red" && red
        ? red.seal(data, timestampOf(frame), (block) => sealer.seal("opus", block))
        : sealer.seal(codec, data),
    );
  } catch (error) {
    tally.onWithheld(now);
    console.error("sealcast: a frame could not be sealed and was not sent:", error);
    return false;
  }
  tally.onSealed(now, sealer.kid, encoding);
  return true;
}

export type Opened = "pass" | "ignore" | "failed";

/** The leaf in a group member's key id (docs/PROTOCOL.md §7.2). */
export function leafOfKid(kid: bigint): number {
  return Number((kid >> 8n) & 0xffffn);
}

/**
 * @param leaf whose frame it must be, in rooms with group keys
 * @param red the slot's, without which redundant audio does not open
 * @returns `pass` where the frame, now in the clear, may go on to the decoder
 */
export function openFrame(
  frame: EncodedFrame,
  opener: Opener,
  tally: OpenTally,
  now: number,
  leaf?: number,
  red?: RedOpener,
): Opened {
  if (frame.data.byteLength === 0) {
    tally.onIgnored("empty");
    return "ignore";
  }
  const open = (codec: string, sealed: Uint8Array): Uint8Array<ArrayBuffer> => {
    const opened = opener.open(codec, sealed);
    if (leaf !== undefined && leafOfKid(opener.lastKid()) !== leaf) throw new Error("misattributed: another member's");
    return opened;
  };
  try {
    const data = new Uint8Array(frame.data);
    const codec = codecOf(frame);
    if (codec === "red" && red) {
      const packet = red.open(data, timestampOf(frame), (block) => open("opus", block));
      tally.onRepeated(packet.repeated.length);
      frame.data = exactBuffer(writeRed(packet));
    } else {
      const opened = open(codec, data);
      if (codec === "opus") red?.onPlain(timestampOf(frame), opened);
      frame.data = exactBuffer(opened);
    }
  } catch (error) {
    const reason = failureOf(error);
    if (reason === "duplicate") {
      tally.onIgnored("duplicate");
      return "ignore";
    }
    tally.onFailed(now, reason);
    return "failed";
  }
  tally.onOpened(now, opener.lastKid());
  return "pass";
}

/** `video/VP8` → `vp8`; the names that the crypto module knows. */
function codecOf(frame: EncodedFrame): string {
  const mimeType = frame.getMetadata().mimeType ?? "";
  return mimeType.slice(mimeType.indexOf("/") + 1).toLowerCase();
}

function timestampOf(frame: EncodedFrame): number {
  return frame.getMetadata().rtpTimestamp ?? frame.timestamp ?? 0;
}

function exactBuffer(bytes: Uint8Array<ArrayBuffer>): ArrayBuffer {
  return bytes.byteLength === bytes.buffer.byteLength ? bytes.buffer : bytes.slice().buffer;
}
