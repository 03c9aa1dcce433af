/** Joining a room. */
import { Connection } from "./connection.js";
import { Sealing, assertSupported } from "./e2ee/sealing.js";
import { type IdentityOptions, RoomGroup } from "./group.js";
import type { MediaLayout } from "./media.js";
import type { VideoCodec, VideoSource } from "./encodings.js";
import type { Kind, Source } from "./protocol.js";
import { Room } from "./room.js";
import { VERSION } from "./version.js";

export interface ConnectOptions {
  /**
   * A join token, or a function that gets one. The function is asked again when the room has to be
   * joined afresh after a long outage, by when the first token may have expired.
   */
  token: string | (() => Promise<string>);
  /** Where given, it must be the token's room. */
  room?: string;
  /**
   * The key of the join link, 32 bytes. Without it, keys are those of the room's group; in rooms of
   * a relay that has no group keys, nothing can be published then, and nothing opens.
   */
  linkKey?: Uint8Array<ArrayBuffer>;
  /** Who this person is, and whose word on others is believed; for rooms with group keys. */
  identity?: IdentityOptions;
  /**
   * How many tracks of each kind can be received at a time. Default 9 and 9. Each adds some 3 KB to
   * an offer, of which a relay takes 128 KiB.
   */
  slots?: Readonly<Record<Kind, number>>;
  /**
   * The video codec to prefer, for all or for each purpose. Default `video/VP8`, which every browser
   * encodes at little cost. See encodings.ts for what each is sent as.
   */
  videoCodec?: VideoCodec | Readonly<Partial<Record<VideoSource, VideoCodec>>>;
  /** Show every track as it comes, as far as there are slots. Default true. */
  autoSubscribe?: boolean;
  /** Play tracks that are not sealed, where the room allows them. Default false. */
  acceptUnsealed?: boolean;
  /** Makes the worker; default: `worker.js` beside this module. */
  worker?: () => Worker;
  /** The crypto module; default: `sealcast.wasm` beside this module. */
  wasm?: string | URL;
}

const DEFAULT_CODEC: VideoCodec = "video/VP8";
const DEFAULT_SLOTS: Readonly<Record<Kind, number>> = { audio: 9, video: 9 };

/**
 * Joins a room.
 *
 * @param url the relay, as `https://relay.example` or `wss://relay.example/v1/signal`
 * @returns the room once it is joined and media has been negotiated; media connects after that
 * @throws UnsupportedBrowserError, WorkerError, RelayError, ConnectionLostError, TimeoutError,
 *   ProtocolError
 */
export async function connect(url: string | URL, options: ConnectOptions): Promise<Room> {
  assertSupported();
  const layout = makeLayout(options);
  const makeWorker =
    options.worker ?? (() => new Worker(new URL("./worker.js", import.meta.url), { type: "module" }));
  const wasm = options.wasm ?? new URL("./sealcast.wasm", import.meta.url);
  const sealing = await Sealing.start(makeWorker, String(wasm), options.linkKey);
  const connection = new Connection({
    url: signalUrl(url),
    token: options.token,
    room: options.room,
    client: `sealcast-js/${VERSION}`,
    layout,
    sealing,
  });
  const policy = {
    autoSubscribe: options.autoSubscribe ?? true,
    acceptUnsealed: options.acceptUnsealed ?? false,
  };
  const group = new RoomGroup(connection, sealing, options.identity ?? {});
  const room = new Room(connection, sealing, layout, policy, group);
  try {
    await connection.start();
  } catch (error) {
    sealing.close();
    throw error;
  }
  return room;
}

/** Lines for a microphone, a camera and a screen stand in the first offer, so that starting any of
 * them later needs no renegotiation. */
function makeLayout(options: ConnectOptions): MediaLayout {
  const sources: Source[] = ["audio", "camera", "screen"];
  const { videoCodec = {} } = options;
  const codecs = { camera: DEFAULT_CODEC, screen: DEFAULT_CODEC, imaging: DEFAULT_CODEC };
  return {
    lines: sources.map((source, index) => ({ line: `line-${index}`, source, track: null })),
    reserved: sources.length,
    slots: options.slots ?? DEFAULT_SLOTS,
    codecs:
      typeof videoCodec === "string"
        ? { camera: videoCodec, screen: videoCodec, imaging: videoCodec }
        : { ...codecs, ...videoCodec },
  };
}

/** `https://relay.example` → `wss://relay.example/v1/signal`. */
export function signalUrl(url: string | URL): string {
  const signal = new URL(url);
  signal.protocol = signal.protocol.replace(/^http/, "ws");
  if (signal.pathname === "/") signal.pathname = "/v1/signal";
  signal.hash = "";
  return signal.href;
}
