/** Statistics of a room, digested from the browser's `getStats` and the sealing worker's counts. */
import type { OpenCounters, SealCounters } from "./e2ee/messages.js";
import type { Kind, Source } from "./protocol.js";

export interface TransportStats {
  /** How media reaches the relay; `null` before it does. */
  protocol: "udp" | "tcp" | null;
  /** Round trip to the relay, in ms. */
  rttMs: number | null;
  /** `DTLS 1.3`, for example, as the browser or the relay names it. */
  dtls: string | null;
  srtpProfile: string | null;
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
  seal: OpenCounters | null;
}

export interface SendStats extends MediaStats {
  track: string | null;
  source: Source;
  mid: string;
  seal: SealCounters | null;
}

export interface RoomStats {
  /** Milliseconds since the epoch. */
  at: number;
  transport: TransportStats;
  receiving: ReceiveStats[];
  sending: SendStats[];
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
    inbound: Map<string, MediaStats & { framesDecoded: number | null }>;
    outbound: Map<string, MediaStats>;
  } {
    const rows = new Map<string, Row>();
    for (const row of report) rows.set((row as Row).id, row as Row);
    const samples = new Map<string, Sample>();
    const inbound = new Map<string, MediaStats & { framesDecoded: number | null }>();
    const outbound = new Map<string, MediaStats>();
    for (const row of rows.values()) {
      const mid = text(row["mid"]);
      if (mid === null) continue;
      if (row.type === "inbound-rtp") {
        const lost = number(row["packetsLost"]) ?? 0;
        const stats = this.#mediaStats(row, rows, samples, "Received", lost);
        inbound.set(mid, { ...stats, framesDecoded: number(row["framesDecoded"]) });
      } else if (row.type === "outbound-rtp") {
        const remote = rows.get(text(row["remoteId"]) ?? "");
        const lost = number(remote?.["packetsLost"]) ?? 0;
        const stats = this.#mediaStats(row, rows, samples, "Sent", lost);
        stats.rttMs = milliseconds(remote?.["roundTripTime"]);
        stats.jitterMs = milliseconds(remote?.["jitter"]);
        outbound.set(mid, stats);
      }
    }
    this.#previous = samples;
    return { transport: transportStats(rows), inbound, outbound };
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
