/** A room without a relay: painted pictures, invented counts. For looks only. */
import type { CallRoom } from "../page/call.js";
import type { RemoteParticipant, RemoteTrack } from "../src/directory.js";
import { Emitter } from "../src/emitter.js";
import type {
  EncodingStats,
  GroupSnapshot,
  MemberSnapshot,
  OpenCounters,
  Publication,
  RoomEvents,
  RoomState,
  RoomStats,
  Source,
} from "../src/index.js";

export interface FakeRoomOptions {
  others: number;
  screen: boolean;
  /** How many of the others' tiles cannot be opened. */
  broken: number;
  /** How many are not sealed. */
  clear: number;
  state: string;
  hasKey: boolean;
  /** The first camera is paused for bandwidth. */
  paused: boolean;
  /** The second camera stands still. */
  frozen: boolean;
  /** A diagnostic picture is shared, and does not fit this path. */
  withheld: boolean;
  /** Which of the others speaks, from 0. */
  speaking: number;
  /** One's own connection does not carry one's picture. */
  limited: boolean;
  /** Keys are a group's: people have names and can write to each other. */
  group: boolean;
}

const NAMES = ["Dr. Ada Haas", "Ben Okoro", "Prof. Cleo Lindqvist-Marinescu", "Dev Patel"];

interface FakePublication extends Publication {
  source: Source;
  track: string;
  media: MediaStreamTrack;
  muted: boolean;
  seal: { sealed: number; withheld: number; keyIds: string[]; state: "sealing"; since: number };
}

/** What the fake room's own camera is sent as: a simulcast whose largest picture nobody gets. */
const ENCODINGS: EncodingStats[] = [
  ["q", 320, 180, 142_000],
  ["h", 640, 360, 468_000],
  ["f", 1280, 720, 0],
].map(([rid, width, height, bitrate]) => ({
  rid: String(rid),
  active: bitrate !== 0,
  scalabilityMode: "L1T3",
  bitrate: Number(bitrate),
  width: Number(width),
  height: Number(height),
  fps: bitrate === 0 ? 0 : 30,
  limitation: "none",
  nacks: 3,
  repairs: 3,
  keyFrameRequests: 1,
}));

const LIMITED: EncodingStats[] = ENCODINGS.map((encoding) => ({ ...encoding, limitation: "bandwidth" }));

export class FakeRoom extends Emitter<RoomEvents> implements CallRoom {
  readonly participants = new Map<string, RemoteParticipant>();
  readonly grants = { publish: ["audio", "camera", "screen"] as Source[], subscribe: true, unsealed: false, moderate: false };
  readonly state: RoomState;
  readonly hasKey: boolean;
  readonly #options: FakeRoomOptions;
  readonly #seals = new Map<string, OpenCounters>();
  readonly #started = Date.now();

  constructor(options: FakeRoomOptions) {
    super();
    this.#options = options;
    this.state = options.state as RoomState;
    this.hasKey = options.hasKey;
  }

  populate(): void {
    const { others, screen, broken, clear } = this.#options;
    for (let index = 0; index < others; index++) {
      const participant = { participant: `PA_${(0x3fa2c5d1 + index * 0x0f1e2d3c).toString(16).slice(-8)}`, tracks: new Map() };
      this.participants.set(participant.participant, participant);
      this.emit("participant-joined", participant);
      const state = index < broken ? "failing" : index < broken + clear ? "clear" : "open";
      const cameraOff = index % 4 === 3;
      this.#add(participant, "audio", state, index % 3 === 2);
      this.#add(participant, "camera", state, cameraOff, index);
      if (screen && index === 0) this.#add(participant, "screen", "open", false, 100);
    }
    if (this.#options.withheld) {
      const [first] = this.participants.values();
      if (first) this.#add(first, "imaging", "open", false, 101);
    }
    const speaker = [...this.participants.keys()][this.#options.speaking];
    if (speaker !== undefined) {
      this.speaker = speaker;
      this.emit("speaker", speaker);
    }
    setInterval(() => {
      for (const seal of this.#seals.values()) {
        if (seal.state !== "open") continue;
        seal.opened += 25;
        seal.lastOpened = Date.now();
      }
      this.emit("seals", undefined);
    }, 1_000);
    this.emit("seals", undefined);
  }

  get keys(): "group" | "link" {
    return this.#options.group ? "group" : "link";
  }

  readonly participant = "PA_own";
  speaker: string | undefined;

  pin(): void {}
  setSize(): void {}
  setVisible(): void {}

  isPaused({ participant, source }: RemoteTrack): boolean {
    const isFirst = participant === [...this.participants.keys()][0];
    return isFirst && ((source === "camera" && this.#options.paused) || (source === "imaging" && this.#options.withheld));
  }

  get group(): GroupSnapshot | undefined {
    return undefined;
  }

  memberOf(participant: string): MemberSnapshot | undefined {
    if (!this.#options.group) return undefined;
    const leaf = [...this.participants.keys()].indexOf(participant);
    const name = NAMES[leaf % NAMES.length] ?? null;
    const verified = leaf % 3 !== 1;
    return { leaf, own: false, participant, name, nameVerified: verified, verified, subject: `s-${leaf}`, reason: null };
  }

  async say(): Promise<void> {}

  unopened(): { participant: string; source: Source; since: number }[] {
    const [first] = this.participants.keys();
    if (!this.#options.group || this.#options.broken === 0 || first === undefined) return [];
    return [{ participant: first, source: "audio", since: this.#started }];
  }

  /** Others write, point and draw. */
  talk(): void {
    const [first, second] = [...this.participants.values()];
    const screen = [...(first?.tracks.values() ?? [])].find(({ source }) => source === "screen");
    const says = (who: RemoteParticipant | undefined, body: unknown): void => {
      if (who) this.emit("message", { participant: who.participant, body });
    };
    says(first, { kind: "chat", text: "The second sequence is up. Look at the left lower lobe." });
    says(second, { kind: "chat", text: "I see it. Could you go two slices up?" });
    if (!screen) return;
    says(second, { kind: "pointer", track: screen.track, at: [0.62, 0.4] });
    const circle = Array.from({ length: 49 }, (_, n) => [0.38 + 0.08 * Math.cos(n / 7.6), 0.55 + 0.12 * Math.sin(n / 7.6)]);
    says(first, { kind: "stroke", track: screen.track, stroke: 1, points: circle });
  }

  waiting(): RemoteTrack[] {
    return [];
  }

  sealOf(track: string): OpenCounters | undefined {
    return this.#seals.get(track);
  }

  async publish(media: MediaStreamTrack, { source }: { source: Source }): Promise<Publication> {
    const seal = { sealed: 2_418, withheld: 0, keyIds: ["5c81d09f3ab27e"], state: "sealing" as const, since: this.#started };
    const publication: FakePublication = { source, track: `TR_own_${source}`, media, muted: false, seal };
    return publication;
  }

  async unpublish(): Promise<void> {}
  async replaceTrack(): Promise<void> {}
  async mute(): Promise<void> {}

  async stats(): Promise<RoomStats> {
    const common = { packets: 900, packetsLost: 2, lossRatio: 0.002, jitterMs: 4.2, rttMs: 18 };
    return {
      at: Date.now(),
      group: null,
      transport: { protocol: "udp", rttMs: 18.3, dtls: "DTLS 1.3", srtpProfile: "AEAD_AES_256_GCM", estimate: 2_400_000, relayEstimate: 3_100_000 },
      sending: [
        { ...common, kind: "video", codec: "VP8", bitrate: 1_240_000, width: 1280, height: 720, fps: 30, track: "TR_own", source: "camera", mid: "1", encodings: this.#options.limited ? LIMITED : ENCODINGS, seal: null },
      ],
      receiving: [...this.participants.values()].flatMap(({ participant, tracks }) =>
        [...tracks.values()].map((track) => {
          const video = track.source !== "audio";
          return {
            ...common,
            kind: video ? ("video" as const) : ("audio" as const),
            codec: video ? "VP8" : "opus",
            bitrate: video ? 843_000 : 32_400,
            width: video ? 640 : null,
            height: video ? 360 : null,
            fps: video ? 30 : null,
            framesDecoded: video ? this.#framesOf(participant) : null,
            framesDropped: video ? 0 : null,
            keyFramesDecoded: video ? 2 : null,
            freezes: video ? 1 : null,
            frozenMs: video ? 420 : null,
            nacks: video ? 14 : null,
            repaired: video ? 13 : null,
            keyFrameRequests: video ? 1 : null,
            paused: this.isPaused(track),
            track: track.track,
            participant,
            source: track.source,
            mid: "3",
            seal: this.sealOf(track.track) ?? null,
          };
        }),
      ),
    };
  }

  #framesOf(participant: string): number {
    const stands = this.#options.frozen && participant === [...this.participants.keys()][1];
    return stands ? 300 : Math.round((Date.now() - this.#started) / 33) + 300;
  }

  #add(participant: RemoteParticipant, source: Source, state: OpenCounters["state"], muted: boolean, scene = 0): void {
    const track: RemoteTrack = {
      participant: participant.participant,
      track: `TR_${participant.participant}_${source}`,
      source,
      muted,
      codec: source === "audio" ? "opus" : "VP8",
      sealed: state !== "clear",
    };
    participant.tracks.set(track.track, track);
    const failing = state === "failing";
    this.#seals.set(track.track, {
      opened: failing ? 0 : 1_200,
      repeated: 0,
      unknownKey: 0,
      inauthentic: failing ? 318 : 0,
      malformed: 0,
      misattributed: 0,
      held: 0,
      duplicate: 3,
      empty: 0,
      clear: state === "clear" ? 800 : 0,
      keyId: failing ? null : "1f90c27ab45e03",
      lastOpened: failing ? null : this.#started,
      state,
      since: this.#started,
    });
    this.emit("track-published", track);
    if (source !== "audio") this.emit("track-shown", { track, media: paintedTrack(scene) });
  }
}

/** A moving picture in quiet colours, standing in for a camera. */
export function paintedTrack(scene: number): MediaStreamTrack {
  const canvas = document.createElement("canvas");
  const screen = scene >= 100;
  [canvas.width, canvas.height] = screen ? [1280, 800] : [640, 360];
  const context = canvas.getContext("2d");
  const paint = (): void => {
    if (!context) return;
    if (screen) paintScan(context);
    else paintPerson(context, scene);
  };
  paint();
  setInterval(paint, 200);
  const track = canvas.captureStream(5).getVideoTracks()[0];
  if (!track) throw new Error("the canvas gives no track");
  return track;
}

function paintPerson(context: CanvasRenderingContext2D, scene: number): void {
  const { width, height } = context.canvas;
  const hue = (scene * 67 + 180) % 360;
  const wall = context.createLinearGradient(0, 0, width, height);
  wall.addColorStop(0, `hsl(${hue} 24% 74%)`);
  wall.addColorStop(1, `hsl(${(hue + 25) % 360} 22% 52%)`);
  context.fillStyle = wall;
  context.fillRect(0, 0, width, height);
  context.fillStyle = `hsl(${hue} 20% 84% / 70%)`;
  context.fillRect(width * 0.07, height * 0.1, width * 0.2, height * 0.42);
  const sway = Math.sin(Date.now() / 900 + scene) * 6;
  const x = width * 0.52 + sway;
  context.fillStyle = `hsl(${(hue + 190) % 360} 32% 34%)`;
  context.beginPath();
  context.ellipse(x, height * 1.08, width * 0.25, height * 0.46, 0, 0, Math.PI * 2);
  context.fill();
  const skin = `hsl(${22 + (scene % 3) * 4} ${40 - (scene % 4) * 4}% ${70 - (scene % 5) * 9}%)`;
  context.fillStyle = skin;
  context.fillRect(x - 24, height * 0.52, 48, 60);
  context.beginPath();
  context.ellipse(x, height * 0.4, 62, 78, 0, 0, Math.PI * 2);
  context.fill();
  context.fillStyle = `hsl(${20 + scene * 13} 22% ${18 + (scene % 4) * 8}%)`;
  context.beginPath();
  context.ellipse(x, height * 0.29, 68, 52, 0, Math.PI, Math.PI * 2);
  context.fill();
}

function paintScan(context: CanvasRenderingContext2D): void {
  const { width, height } = context.canvas;
  context.fillStyle = "#05080a";
  context.fillRect(0, 0, width, height);
  for (const [ring, shade] of [[300, 40], [262, 14], [240, 58], [170, 46], [90, 66]] as const) {
    context.fillStyle = `hsl(205 8% ${shade}%)`;
    context.beginPath();
    context.ellipse(width / 2, height / 2, ring * 1.05, ring * 1.2, 0, 0, Math.PI * 2);
    context.fill();
  }
  context.fillStyle = "#8fb7c9";
  context.font = "20px system-ui";
  context.fillText("Series 3 · Slice 42 / 96", 30, 44);
}
