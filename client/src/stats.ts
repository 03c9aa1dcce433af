/** Statistics of a room, digested from the browser's `getStats` and the sealing worker's counts. */
import type { GroupCounters, OpenCounters, SealCounters } from "./e2ee/messages.js";
import type { Kind, Source } from "./protocol.js";

export interface TransportStats {
  /** How media reaches the relay; `null` before it does. */
  protocol: "udp" | "tcp" | null;
  /** Round trip to the relay, in ms. */
  rttMs: number | null;
  /** `DTLS 1.3`, for example, as the browser or the relay names it. */
  dtls: string | null;
  srtpProfile: string | null;
  /** What the browser thinks the path to the relay carries, bits per second. */
  estimate: number | null;
  /** What the relay thinks the path from it carries, bits per second; `null` until it says so. */
  relayEstimate: number | null;
}

interface MediaStats {
  kind: Kind;
  codec: string | null;
  /** Bits per second since the previous sample; `null` in the first one. */
  bitrate: number | null;
  packets: number;
  /** Share of packets lost since the previous sample, 0–1. */
  lossRatio: number | null;
  packetsLost: number;
  jitterMs: number | null;
  rttMs: number | null;
  width: number | null;
  height: number | null;
  fps: number | null;
}

export interface ReceiveStats extends MediaStats {
  track: string;
  participant: string;
  source: Source;
  mid: string;
  framesDecoded: number | null;
  /** Frames that arrived and were not shown: late, or not decodable. */
  framesDropped: number | null;
  keyFramesDecoded: number | null;
  /** How often the picture stood still, for three times the usual or 150 ms longer, and how long. */
  freezes: number | null;
  frozenMs: number | null;
  /** Packets asked for again, packets that came so, key frames asked for. */
  nacks: number | null;
  repaired: number | null;
  keyFrameRequests: number | null;
  /** The relay withholds it because the path does not carry it. */
  paused: boolean;
  seal: OpenCounters | null;
}

/** What a receiver adds to what both sides have. */
type Received = Pick<
  ReceiveStats,
  | "framesDecoded"
  | "framesDropped"
  | "keyFramesDecoded"
  | "freezes"
  | "frozenMs"
  | "nacks"
  | "repaired"
  | "keyFrameRequests"
>;

/** One encoding of a published track. */
export interface EncodingStats {
  /** Its RID; `null` where there is but one. */
  rid: string | null;
  /** Whether anybody gets it. */
  active: boolean;
  scalabilityMode: string | null;
  bitrate: number | null;
  width: number | null;
  height: number | null;
  fps: number | null;
  /** Why it is worse than the source: `none`, `bandwidth`, `cpu` or `other`. */
  limitation: string | null;
  nacks: number | null;
  /** Packets sent again. */
  repairs: number | null;
  keyFrameRequests: number | null;
}

export interface SendStats extends MediaStats {
  track: string | null;
  source: Source;
  mid: string;
  /** Smallest first. The figures above are their sums, and the largest picture sent. */
  encodings: EncodingStats[];
  seal: SealCounters | null;
}

export interface RoomStats {
  /** Milliseconds since the epoch. */
  at: number;
  transport: TransportStats;
  receiving: ReceiveStats[];
  sending: SendStats[];
  /** What became of the group's handshakes and sealed messages; `null` in rooms with link keys. */
  group: GroupCounters | null;
}

/** A row of `getStats`; browsers differ in which members they fill. */
type Row = Record<string, unknown> & { type: string; id: string };

interface Sample {
  at: number;
  bytes: number;
  packets: number;
  lost: number;
}

/** Turns successive reports of one peer connection into rates. */
export class StatsSampler {
  #previous = new Map<string, Sample>();

  /** What came in and went out, by MID. */
  digest(report: Iterable<unknown>): {
    transport: TransportStats;
    inbound: Map<string, MediaStats & Received>;
    outbound: Map<string, MediaStats & { encodings: EncodingStats[] }>;
  } {
    const rows = new Map<string, Row>();
    for (const row of report) rows.set((row as Row).id, row as Row);
    const samples = new Map<string, Sample>();
    const inbound = new Map<string, MediaStats & Received>();
    const outbound = new Map<string, [Row, MediaStats][]>();
    for (const row of rows.values()) {
      const mid = text(row["mid"]);
      if (mid === null) continue;
      if (row.type === "inbound-rtp") {
        const lost = number(row["packetsLost"]) ?? 0;
        const stats = this.#mediaStats(row, rows, samples, "Received", lost);
        inbound.set(mid, { ...stats, ...received(row) });
      } else if (row.type === "outbound-rtp") {
        const remote = rows.get(text(row["remoteId"]) ?? "");
        const lost = number(remote?.["packetsLost"]) ?? 0;
        const stats = this.#mediaStats(row, rows, samples, "Sent", lost);
        stats.rttMs = milliseconds(remote?.["roundTripTime"]);
        stats.jitterMs = milliseconds(remote?.["jitter"]);
        outbound.set(mid, [...(outbound.get(mid) ?? []), [row, stats]]);
      }
    }
    this.#previous = samples;
    return {
      transport: transportStats(rows),
      inbound,
      outbound: new Map([...outbound].map(([mid, encodings]) => [mid, sum(encodings)])),
    };
  }

  #mediaStats(
    row: Row,
    rows: Map<string, Row>,
    samples: Map<string, Sample>,
    direction: "Received" | "Sent",
    lost: number,
  ): MediaStats {
    const now: Sample = {
      at: number(row["timestamp"]) ?? 0,
      bytes: number(row[`bytes${direction}`]) ?? 0,
      packets: number(row[`packets${direction}`]) ?? 0,
      lost,
    };
    samples.set(row.id, now);
    const before = this.#previous.get(row.id);
    const seconds = before ? (now.at - before.at) / 1000 : 0;
    const arrived = before ? now.packets - before.packets : 0;
    const missing = before ? Math.max(0, now.lost - before.lost) : 0;
    const mimeType = text(rows.get(text(row["codecId"]) ?? "")?.["mimeType"]);
    return {
      kind: row["kind"] === "audio" ? "audio" : "video",
      codec: mimeType?.replace(/^.*\//, "") ?? null,
      bitrate: before && seconds > 0 ? ((now.bytes - before.bytes) * 8) / seconds : null,
      packets: now.packets,
      packetsLost: lost,
      lossRatio: arrived + missing > 0 ? missing / (arrived + missing) : null,
      jitterMs: milliseconds(row["jitter"]),
      rttMs: null,
      width: number(row["frameWidth"]),
      height: number(row["frameHeight"]),
      fps: number(row["framesPerSecond"]),
    };
  }
}

function received(row: Row): Received {
  return {
    framesDecoded: number(row["framesDecoded"]),
    framesDropped: number(row["framesDropped"]),
    keyFramesDecoded: number(row["keyFramesDecoded"]),
    freezes: number(row["freezeCount"]),
    frozenMs: milliseconds(row["totalFreezesDuration"]),
    nacks: number(row["nackCount"]),
    repaired: number(row["retransmittedPacketsReceived"]),
    keyFrameRequests: number(row["pliCount"]),
  };
}

/** A line's encodings, and what they come to together. */
function sum(encodings: readonly [Row, MediaStats][]): MediaStats & { encodings: EncodingStats[] } {
  // What was never sent has no size yet; the larger ones are the first to be left out.
  const pixels = ({ width, height }: MediaStats): number => (width !== null && height !== null ? width * height : Infinity);
  const ordered = [...encodings].sort(([, a], [, b]) => (pixels(a) < pixels(b) ? -1 : Number(pixels(a) > pixels(b))));
  const all = ordered.map(([, stats]) => stats);
  const sent = ([row, { bitrate, width }]: [Row, MediaStats]): boolean =>
    row["active"] !== false && bitrate !== 0 && width !== null;
  const largest = ordered.findLast(sent)?.[1] ?? all[0];
  if (!largest) throw new RangeError("a line has at least one encoding");
  const known = all.flatMap(({ bitrate }) => bitrate ?? []);
  const losses = all.flatMap(({ lossRatio }) => lossRatio ?? []);
  return {
    ...largest,
    bitrate: known.length > 0 ? known.reduce((total, bitrate) => total + bitrate, 0) : null,
    packets: all.reduce((total, { packets }) => total + packets, 0),
    packetsLost: all.reduce((total, { packetsLost }) => total + packetsLost, 0),
    lossRatio: losses.length > 0 ? Math.max(...losses) : null,
    encodings: ordered.map(([row, { bitrate, width, height, fps }]) => ({
      rid: text(row["rid"]),
      active: row["active"] !== false,
      scalabilityMode: text(row["scalabilityMode"]),
      bitrate,
      width,
      height,
      fps,
      limitation: text(row["qualityLimitationReason"]),
      nacks: number(row["nackCount"]),
      repairs: number(row["retransmittedPacketsSent"]),
      keyFrameRequests: number(row["pliCount"]),
    })),
  };
}

function transportStats(rows: Map<string, Row>): TransportStats {
  const all = [...rows.values()];
  const transport = all.find(({ type }) => type === "transport");
  const pair =
    rows.get(text(transport?.["selectedCandidatePairId"]) ?? "") ??
    all.find((row) => row.type === "candidate-pair" && (row["selected"] === true || row["nominated"] === true));
  const local = rows.get(text(pair?.["localCandidateId"]) ?? "");
  const protocol = text(local?.["protocol"])?.toLowerCase();
  return {
    protocol: protocol === "udp" || protocol === "tcp" ? protocol : null,
    rttMs: milliseconds(pair?.["currentRoundTripTime"]),
    dtls: dtlsName(text(transport?.["tlsVersion"])),
    srtpProfile: text(transport?.["srtpCipher"])?.replace(/^SRTP_/, "") ?? null,
    estimate: number(pair?.["availableOutgoingBitrate"]),
    relayEstimate: null,
  };
}

/** The version as on the wire in hex (`FEFC`) → `DTLS 1.3`. */
function dtlsName(version: string | null): string | null {
  switch (version?.toUpperCase()) {
    case undefined:
      return null;
    case "FEFC":
      return "DTLS 1.3";
    case "FEFD":
      return "DTLS 1.2";
    default:
      return `DTLS ${version}`;
  }
}

function number(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

function text(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}

function milliseconds(seconds: unknown): number | null {
  const value = number(seconds);
  return value === null ? null : value * 1000;
}
