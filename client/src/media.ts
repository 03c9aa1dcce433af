/**
 * One media session: a peer connection with the lines this client sends on and the slots it
 * receives in. A session is never repaired; when its transport fails, a new one with the same MIDs
 * takes its place (docs/PROTOCOL.md §5).
 */
import type { Sealing } from "./e2ee/sealing.js";
import { Emitter } from "./emitter.js";
import { ProtocolError } from "./errors.js";
import { VIDEO_CODECS, type VideoCodec, type VideoSource, adjust, encodingsOf } from "./encodings.js";
import { DATA_CHANNEL_LABEL, type DataNotice, type Kind, type Source, decodeNotice, kindOf } from "./protocol.js";
import type { SlotRef } from "./slots.js";

/** A sending m-line's description, which outlives the peer connection it is realised in. */
export interface SendLine {
  /** Names the line to the sealing worker. */
  readonly line: string;
  /** What it is for, on which its encodings depend. */
  readonly source: Source;
  track: MediaStreamTrack | null;
}

export interface MediaLayout {
  /** In the order in which they were made; the first {@link reserved} stand in the first offer. */
  readonly lines: SendLine[];
  readonly reserved: number;
  readonly slots: Readonly<Record<Kind, number>>;
  /** The codec to prefer for each purpose. */
  readonly codecs: Readonly<Record<VideoSource, VideoCodec>>;
}

/** Bytes that wait on the data channel before it takes no more: what is fleeting is late by then. */
const MAX_BUFFERED = 64 * 1024;

interface MediaEvents {
  state: "connected" | "disconnected" | "failed";
  notice: Exclude<DataNotice, { type: "encodings" }>;
  /** A sealed message of another participant. */
  data: Uint8Array<ArrayBuffer>;
  /** The data channel carried something that the protocol does not allow. */
  violation: ProtocolError;
}

/** A line's realisation in a peer connection. */
interface Sending {
  readonly line: SendLine;
  readonly transceiver: RTCRtpTransceiver;
  /** Which encodings the relay wants, in the offer's order; empty before it says so. */
  wanted: boolean[];
  /** The last change of parameters: one at a time, as the browser demands. */
  change: Promise<void>;
}

export class MediaSession extends Emitter<MediaEvents> {
  readonly #pc: RTCPeerConnection;
  readonly #layout: MediaLayout;
  readonly #sealing: Sealing;
  readonly #channel: RTCDataChannel;
  readonly #senders = new Map<string, Sending>();
  readonly #slots: Record<Kind, RTCRtpTransceiver[]> = { audio: [], video: [] };
  #closed = false;

  constructor(layout: MediaLayout, sealing: Sealing) {
    super();
    this.#layout = layout;
    this.#sealing = sealing;
    this.#pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.#pc.onconnectionstatechange = () => this.#onState();
    for (const line of layout.lines.slice(0, layout.reserved)) this.#addSender(line);
    for (const kind of ["audio", "video"] as const) {
      for (let index = 0; index < layout.slots[kind]; index++) this.#addSlot({ kind, index });
    }
    this.#channel = this.#pc.createDataChannel(DATA_CHANNEL_LABEL, { ordered: true });
    this.#channel.binaryType = "arraybuffer";
    this.#channel.onmessage = ({ data }: MessageEvent<unknown>) => this.#onData(data);
  }

  /** An offer with every line of the layout; to be answered with {@link accept}. */
  async offer(): Promise<string> {
    await this.#pc.setLocalDescription();
    // Lines added later in the room's life have MIDs after the data channel's. A new peer
    // connection gives them the same MIDs if it, too, adds them to an offer that has one.
    const later = this.#layout.lines.slice(this.#layout.reserved);
    const added = later.filter(({ line }) => !this.#senders.has(line));
    if (added.length > 0) {
      for (const line of added) this.#addSender(line);
      await this.#pc.setLocalDescription();
    }
    const description = this.#pc.localDescription;
    if (!description) throw new ProtocolError("the browser made no offer");
    return description.sdp;
  }

  async accept(sdp: string): Promise<void> {
    try {
      await this.#pc.setRemoteDescription({ type: "answer", sdp });
    } catch (cause) {
      throw new ProtocolError("the browser refused the relay's answer", { cause });
    }
    await Promise.all([...this.#senders.values()].map((sending) => this.#adjust(sending)));
  }

  /** Puts a line's {@link SendLine.track} on the wire, or takes it off. */
  async replaceTrack({ line, track }: SendLine): Promise<void> {
    const sending = this.#senders.get(line);
    if (!sending) return;
    await sending.transceiver.sender.replaceTrack(track);
    if (track) await this.#adjust(sending);
  }

  /** The MID of a sending line; `undefined` before it was offered. */
  midOfLine(line: string): string | undefined {
    return this.#senders.get(line)?.transceiver.mid ?? undefined;
  }

  midOfSlot({ kind, index }: SlotRef): string | undefined {
    return this.#slots[kind][index]?.mid ?? undefined;
  }

  slotOfMid(mid: string): SlotRef | undefined {
    for (const kind of ["audio", "video"] as const) {
      const index = this.#slots[kind].findIndex((transceiver) => transceiver.mid === mid);
      if (index >= 0) return { kind, index };
    }
    return undefined;
  }

  /** What a slot receives; the browser gives each slot one track for its whole life. */
  slotMedia({ kind, index }: SlotRef): MediaStreamTrack | undefined {
    return this.#slots[kind][index]?.receiver.track;
  }

  /** Sends a sealed message over the data channel. False where it is not open, or lags behind. */
  sendData(message: Uint8Array<ArrayBuffer>): boolean {
    if (this.#channel.readyState !== "open" || this.#channel.bufferedAmount > MAX_BUFFERED) return false;
    this.#channel.send(message);
    return true;
  }

  getStats(): Promise<RTCStatsReport> {
    return this.#pc.getStats();
  }

  close(): void {
    this.#closed = true;
    this.#pc.close();
  }

  #addSender(line: SendLine): void {
    const { source } = line;
    const transceiver = this.#pc.addTransceiver(line.track ?? kindOf(source), {
      direction: "sendonly",
      ...(source === "audio" ? {} : { sendEncodings: encodingsOf(source, this.#layout.codecs[source]) }),
    });
    // Set before anything is negotiated: there is no moment in which a frame could leave unsealed.
    transceiver.sender.transform = this.#sealing.transform({ role: "sender", line: line.line });
    preferCodecs(transceiver, kindOf(source), source === "audio" ? REDUNDANT_AUDIO : this.#layout.codecs[source]);
    this.#senders.set(line.line, { line, transceiver, wanted: [], change: Promise.resolve() });
  }

  #addSlot(slot: SlotRef): void {
    const transceiver = this.#pc.addTransceiver(slot.kind, { direction: "recvonly" });
    transceiver.receiver.transform = this.#sealing.transform({ role: "receiver", slot: slotName(slot) });
    preferCodecs(transceiver, slot.kind, this.#layout.codecs.camera);
    this.#slots[slot.kind][slot.index] = transceiver;
  }

  #onState(): void {
    if (this.#closed) return;
    const state = this.#pc.connectionState;
    if (state === "connected" || state === "disconnected" || state === "failed") this.emit("state", state);
  }

  #onData(data: unknown): void {
    if (this.#closed) return;
    try {
      if (data instanceof ArrayBuffer) {
        this.emit("data", new Uint8Array(data));
        return;
      }
      if (typeof data !== "string") throw new ProtocolError("the relay sent a data message of no known kind");
      const notice = decodeNotice(data);
      if (notice?.type === "encodings") this.#onEncodings(notice.mid, notice.active);
      else if (notice) this.emit("notice", notice);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.emit("violation", error);
    }
  }

  #onEncodings(mid: string, active: boolean[]): void {
    const sending = [...this.#senders.values()].find(({ transceiver }) => transceiver.mid === mid);
    if (!sending) return;
    sending.wanted = active;
    void this.#adjust(sending);
  }

  /** Fits what a line sends to its picture, to what the relay wants, and to the answer. */
  #adjust(sending: Sending): Promise<void> {
    const { line, transceiver } = sending;
    if (line.source === "audio") return Promise.resolve();
    const configured = encodingsOf(line.source, this.#layout.codecs[line.source]);
    sending.change = sending.change.then(async () => {
      const parameters = transceiver.sender.getParameters();
      const picture = line.track?.getSettings() ?? {};
      if (!adjust(parameters.encodings, { configured, active: sending.wanted, picture })) return;
      try {
        await transceiver.sender.setParameters(parameters);
      } catch (error) {
        // Encodings that nobody gets are then sent all the same, which costs and harms nothing.
        if (!this.#closed) console.warn("sealcast: the browser did not change its encodings:", error);
      }
    });
    return sending.change;
  }
}

/** A slot's name to the sealing worker, the same in every media session. */
export function slotName({ kind, index }: SlotRef): string {
  return `${kind}-${index}`;
}

/** RED repeats each frame of Opus with the next, for who can: it is sent where the relay takes it. */
const REDUNDANT_AUDIO = "audio/red";

/** The room's codecs, and only those: an offer with nine slots is long enough. */
const ROOM_CODECS: Record<Kind, readonly string[]> = {
  audio: ["audio/opus", REDUNDANT_AUDIO],
  video: VIDEO_CODECS,
};

function preferCodecs(transceiver: RTCRtpTransceiver, kind: Kind, preferred?: string): void {
  const capabilities = RTCRtpReceiver.getCapabilities(kind)?.codecs ?? [];
  const others = ROOM_CODECS[kind].filter((mime) => mime !== preferred);
  const wanted = preferred === undefined ? others : [preferred, ...others];
  const codecs = wanted.flatMap((mime) =>
    capabilities.filter((codec) => codec.mimeType.toLowerCase() === mime.toLowerCase()),
  );
  const repair = capabilities.filter((codec) => codec.mimeType.toLowerCase() === `${kind}/rtx`);
  if (codecs.length > 0) transceiver.setCodecPreferences([...codecs, ...repair]);
}
