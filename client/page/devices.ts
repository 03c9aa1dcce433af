/** Cameras and microphones: choosing, starting, and how loud a microphone is. */

import { type Kind, VIDEO_CODECS, type VideoCodec } from "../src/index.js";

export type DeviceKind = "audioinput" | "videoinput";

/** 720p30 is what a consult needs; a camera that cannot do it gives what it has. */
const CAMERA: MediaTrackConstraints = {
  width: { ideal: 1280 },
  height: { ideal: 720 },
  frameRate: { ideal: 30, max: 30 },
};
const MICROPHONE: MediaTrackConstraints = {
  echoCancellation: true,
  noiseSuppression: true,
  autoGainControl: true,
};

export async function openCamera(deviceId?: string): Promise<MediaStreamTrack> {
  const video = { ...CAMERA, ...overrides(), ...(deviceId ? { deviceId: { exact: deviceId } } : {}) };
  const stream = await navigator.mediaDevices.getUserMedia({ video });
  return firstTrack(stream);
}

export async function openMicrophone(deviceId?: string): Promise<MediaStreamTrack> {
  const audio = { ...MICROPHONE, ...(deviceId ? { deviceId: { exact: deviceId } } : {}) };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  return firstTrack(stream);
}

export async function openScreen(): Promise<MediaStreamTrack> {
  const stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { max: 15 } } });
  const track = firstTrack(stream);
  // Text and images, not film: sharpness before smoothness.
  track.contentHint = "detail";
  return track;
}

export async function listDevices(kind: DeviceKind): Promise<MediaDeviceInfo[]> {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter((device) => device.kind === kind && device.deviceId !== "");
}

/**
 * Reports the microphone's level, 0–1, some ten times a second.
 *
 * @returns what stops it
 */
export function meterLevel(track: MediaStreamTrack, report: (level: number) => void): () => void {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
    // −60 dBFS is silence, 0 dBFS is full scale.
    const decibels = 10 * Math.log10(power + 1e-9);
    report(Math.min(1, Math.max(0, (decibels + 60) / 60)));
  }, 100);
  return () => {
    clearInterval(timer);
    void context.close();
  };
}

/** `?codec=VP9` sends pictures in another codec than VP8, where the browser can. */
export function preferredCodec(): VideoCodec | undefined {
  const wanted = `video/${new URLSearchParams(location.search).get("codec") ?? ""}`.toLowerCase();
  return VIDEO_CODECS.find((codec) => codec.toLowerCase() === wanted);
}

/** Of each kind. With more the offer would come near to what a relay takes. */
const MAX_SLOTS = 16;

/** `?slots=4` receives so many voices and pictures at a time, for those who pay for every byte. */
export function slotCounts(): Readonly<Record<Kind, number>> | undefined {
  const wanted = Number(new URLSearchParams(location.search).get("slots"));
  return Number.isInteger(wanted) && wanted >= 1 && wanted <= MAX_SLOTS ? { audio: wanted, video: wanted } : undefined;
}

/** `?video=320x180@15` makes the camera small, for machines that run many pages at once. */
function overrides(): MediaTrackConstraints {
  const wanted = new URLSearchParams(location.search).get("video");
  const match = /^(\d{2,4})x(\d{2,4})@(\d{1,2})$/.exec(wanted ?? "");
  if (!match) return {};
  const [, width, height, frameRate] = match;
  return { width: Number(width), height: Number(height), frameRate: Number(frameRate) };
}

function firstTrack(stream: MediaStream): MediaStreamTrack {
  const track = stream.getTracks()[0];
  if (!track) throw new DOMException("the device gave no track", "NotFoundError");
  return track;
}
