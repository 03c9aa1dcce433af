/**
 * One media session: a peer connection with the lines this client sends on and the slots it
 * receives in. A session is never repaired; when its transport fails, a new one with the same MIDs
 * takes its place (docs/PROTOCOL.md §5).
 */
import type { Sealing } from "./e2ee/sealing.js";
import { Emitter } from "./emitter.js";
import { ProtocolError } from "./errors.js";
import { DATA_CHANNEL_LABEL, type Kind, type SlotNotice, decodeSlotNotice } from "./protocol.js";
import type { SlotRef } from "./slots.js";

/** A sending m-line's description, which outlives the peer connection it is realised in. */
export interface SendLine {
  /** Names the line to the sealing worker. */
  readonly line: string;
  readonly kind: Kind;
  track: MediaStreamTrack | null;
}

export interface MediaLayout {
  /** In the order in which they were made; the first {@link reserved} stand in the first offer. */
  readonly lines: SendLine[];
  readonly reserved: number;
  readonly slots: Readonly<Record<Kind, number>>;
  /** The codec to prefer, as `video/VP8`. */
  readonly videoCodec: string;
}

interface MediaEvents {
  state: "connected" | "disconnected" | "failed";
  slot: SlotNotice;
  /** The data channel carried something that the protocol does not allow. */
  violation: ProtocolError;
}

export class MediaSession extends Emitter<MediaEvents> {
  readonly #pc: RTCPeerConnection;
  readonly #layout: MediaLayout;
  readonly #sealing: Sealing;
  readonly #senders = new Map<string, RTCRtpTransceiver>();
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
    const channel = this.#pc.createDataChannel(DATA_CHANNEL_LABEL, { ordered: true });
    channel.onmessage = ({ data }: MessageEvent<unknown>) => this.#onData(data);
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
  }

  /** Puts a line's {@link SendLine.track} on the wire, or takes it off. */
  async replaceTrack({ line, track }: SendLine): Promise<void> {
    await this.#senders.get(line)?.sender.replaceTrack(track);
  }

  /** The MID of a sending line; `undefined` before it was offered. */
  midOfLine(line: string): string | undefined {
    return this.#senders.get(line)?.mid ?? undefined;
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

  getStats(): Promise<RTCStatsReport> {
    return this.#pc.getStats();
  }

  close(): void {
    this.#closed = true;
    this.#pc.close();
  }

  #addSender(line: SendLine): void {
    const transceiver = this.#pc.addTransceiver(line.track ?? line.kind, { direction: "sendonly" });
    // Set before anything is negotiated: there is no moment in which a frame could leave unsealed.
    transceiver.sender.transform = this.#sealing.transform({ role: "sender", line: line.line });
    preferCodecs(transceiver, line.kind, this.#layout.videoCodec);
    this.#senders.set(line.line, transceiver);
  }

  #addSlot(slot: SlotRef): void {
    const transceiver = this.#pc.addTransceiver(slot.kind, { direction: "recvonly" });
    transceiver.receiver.transform = this.#sealing.transform({ role: "receiver", slot: slotName(slot) });
    preferCodecs(transceiver, slot.kind, this.#layout.videoCodec);
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
      if (typeof data !== "string") throw new ProtocolError("the relay sent a binary data message");
      const notice = decodeSlotNotice(data);
      if (notice) this.emit("slot", notice);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.emit("violation", error);
    }
  }
}

/** A slot's name to the sealing worker, the same in every media session. */
export function slotName({ kind, index }: SlotRef): string {
  return `${kind}-${index}`;
}

/** The room's codecs, and only those: an offer with nine slots is long enough. */
const ROOM_CODECS: Record<Kind, readonly string[]> = {
  audio: ["audio/opus"],
  video: ["video/VP8", "video/VP9", "video/AV1", "video/H264"],
};

function preferCodecs(transceiver: RTCRtpTransceiver, kind: Kind, preferred: string): void {
  const capabilities = RTCRtpReceiver.getCapabilities(kind)?.codecs ?? [];
  const wanted = [preferred, ...ROOM_CODECS[kind].filter((mime) => mime !== preferred)];
  const codecs = wanted.flatMap((mime) =>
    capabilities.filter((codec) => codec.mimeType.toLowerCase() === mime.toLowerCase()),
  );
  const repair = capabilities.filter((codec) => codec.mimeType.toLowerCase() === `${kind}/rtx`);
  if (codecs.length > 0) transceiver.setCodecPreferences([...codecs, ...repair]);
}
