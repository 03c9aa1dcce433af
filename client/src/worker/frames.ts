/**
 * What happens to one frame on its way out or in. Fails closed in both directions: nothing leaves
 * unsealed, nothing that did not open reaches a decoder.
 */
import { type OpenTally, type SealTally, failureOf } from "./counters.js";

/** The part of `RTCEncodedVideoFrame` and `RTCEncodedAudioFrame` that is used. */
export interface EncodedFrame {
  data: ArrayBuffer;
  getMetadata(): { mimeType?: string; synchronizationSource?: number };
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
 * @returns whether the frame, now sealed, may go on to the packetizer
 */
export function sealFrame(
  frame: EncodedFrame,
  sealer: Sealer | undefined,
  tally: SealTally,
  now: number,
  encoding = 0,
): boolean {
  // Opus DTX: "Frames of zero length are not sealed" (docs/PROTOCOL.md §7.1).
  if (frame.data.byteLength === 0) return true;
  if (!sealer) {
    tally.onWithheld(now);
    return false;
  }
  try {
    frame.data = exactBuffer(sealer.seal(codecOf(frame), new Uint8Array(frame.data)));
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
 * @returns `pass` where the frame, now in the clear, may go on to the decoder
 */
export function openFrame(
  frame: EncodedFrame,
  opener: Opener,
  tally: OpenTally,
  now: number,
  leaf?: number,
): Opened {
  if (frame.data.byteLength === 0) {
    tally.onIgnored("empty");
    return "ignore";
  }
  try {
    frame.data = exactBuffer(opener.open(codecOf(frame), new Uint8Array(frame.data)));
  } catch (error) {
    const reason = failureOf(error);
    if (reason === "duplicate") {
      tally.onIgnored("duplicate");
      return "ignore";
    }
    tally.onFailed(now, reason);
    return "failed";
  }
  const kid = opener.lastKid();
  if (leaf !== undefined && leafOfKid(kid) !== leaf) {
    tally.onFailed(now, "misattributed");
    return "failed";
  }
  tally.onOpened(now, kid);
  return "pass";
}

/** `video/VP8` → `vp8`; the names that the crypto module knows. */
function codecOf(frame: EncodedFrame): string {
  const mimeType = frame.getMetadata().mimeType ?? "";
  return mimeType.slice(mimeType.indexOf("/") + 1).toLowerCase();
}

function exactBuffer(bytes: Uint8Array<ArrayBuffer>): ArrayBuffer {
  return bytes.byteLength === bytes.buffer.byteLength ? bytes.buffer : bytes.slice().buffer;
}
