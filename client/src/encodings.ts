/**
 * How a video track is encoded, by codec and purpose (docs/PROTOCOL.md §5).
 *
 * VP8 and H264 send cameras and screens as a simulcast, smallest encoding first, since they have no
 * spatial layers. VP9 and AV1 send one stream with layers, of which the relay forwards some: it
 * reads them from the dependency descriptor, outside the seal. The `_KEY` modes let layers depend on
 * each other in key frames alone, so that whoever gets the upper layer need not be sent the lower
 * ones in between.
 *
 * Imaging is one stream of one layer: what a diagnosis is made from arrives whole or not at all.
 */
import type { Source } from "./protocol.js";

export type VideoSource = Exclude<Source, "audio">;
export type VideoCodec = "video/VP8" | "video/VP9" | "video/AV1" | "video/H264";

/** The codecs of docs/PROTOCOL.md §5, in the order in which they are offered. */
export const VIDEO_CODECS: readonly VideoCodec[] = ["video/VP8", "video/VP9", "video/AV1", "video/H264"];

/** What `RTCRtpEncodingParameters` lacks in the type library: https://www.w3.org/TR/webrtc-svc/. */
export interface Encoding extends RTCRtpEncodingParameters {
  scalabilityMode?: string;
}

/** Bits per second. A camera of 720p30, which smaller ones stay far below. */
const CAMERA_BITRATES = [150_000, 500_000, 1_700_000] as const;
const CAMERA_SVC_BITRATE = 2_000_000;
/** A screen of 1080p whose text stays sharp while it scrolls; half of it for small tiles. */
const SCREEN_BITRATES = [500_000, 2_500_000] as const;
/** Imaging is to look as it does on the sender's device. */
const IMAGING_BITRATE = 8_000_000;

export function isSvc(codec: string): boolean {
  return /^video\/(VP9|AV1)$/i.test(codec);
}

/**
 * @param codec the one that the track will most likely be sent in, as `video/VP8`
 * @returns `sendEncodings` for `addTransceiver`, smallest first
 */
export function encodingsOf(source: VideoSource, codec: string): Encoding[] {
  if (source === "imaging") {
    return [{ maxBitrate: IMAGING_BITRATE, scalabilityMode: "L1T1", priority: "high", networkPriority: "high" }];
  }
  if (isSvc(codec)) {
    return source === "camera"
      ? [{ maxBitrate: CAMERA_SVC_BITRATE, scalabilityMode: "L3T3_KEY" }]
      : [{ maxBitrate: SCREEN_BITRATES[1], scalabilityMode: "L1T3" }];
  }
  const [rids, bitrates] =
    source === "camera" ? [["q", "h", "f"], CAMERA_BITRATES] : [["h", "f"], SCREEN_BITRATES];
  return rids.map((rid, index) => ({
    rid,
    maxBitrate: bitrates[index] ?? bitrates[0],
    scaleResolutionDownBy: 2 ** (rids.length - 1 - index),
    // Browsers give H264 no temporal layers.
    ...(/VP8$/i.test(codec) ? { scalabilityMode: "L1T3" } : {}),
  }));
}

/** Pictures of fewer pixels are not worth so many encodings; the thresholds are those of Chromium,
 * which would leave out the largest instead. */
const PIXELS_FOR_THREE = 960 * 540;
const PIXELS_FOR_TWO = 480 * 270;

/** What a sender's encodings are adjusted to. */
export interface Wishes {
  /** What {@link encodingsOf} said. */
  configured: readonly Encoding[];
  /** Which of them anybody gets, in the offer's order; those without an entry are sent. */
  active: readonly boolean[];
  /** The track's picture, where it is known. */
  picture: { width?: number; height?: number };
}

/**
 * Changes a sender's encodings to hold for what the answer left of them and for the picture's size,
 * and not to send what nobody gets.
 *
 * @returns whether anything is different
 */
export function adjust(encodings: readonly Encoding[], { configured, active, picture }: Wishes): boolean {
  if (configured.length < 2) return false;
  const pixels = (picture.width ?? 0) * (picture.height ?? 0);
  const worthwhile = pixels === 0 || pixels >= PIXELS_FOR_THREE ? 3 : pixels >= PIXELS_FOR_TWO ? 2 : 1;
  // A relay without simulcast leaves the first encoding alone: it is then the whole picture.
  const count = Math.min(encodings.length, worthwhile);
  let changed = false;
  const set = <K extends keyof Encoding>(encoding: Encoding, key: K, value: Encoding[K]): void => {
    changed ||= encoding[key] !== value;
    encoding[key] = value;
  };
  for (const [index, encoding] of encodings.entries()) {
    const sent = index < count;
    const rate = configured[encodings.length === 1 ? configured.length - 1 : index]?.maxBitrate;
    set(encoding, "active", sent && (count === 1 || (active[index] ?? true)));
    if (sent) set(encoding, "scaleResolutionDownBy", 2 ** (count - 1 - index));
    if (rate !== undefined) set(encoding, "maxBitrate", rate);
  }
  return changed;
}
