/** Looks at a call's figures once a second, and tells tiles how their pictures fare. */
import type { RemoteTrack, Room, RoomStats } from "../src/index.js";
import { announce } from "./dom.js";
import { NO_QUALITY, type Quality, QualityMeter } from "./quality.js";
import type { Tile } from "./tile.js";

const INTERVAL_MS = 1_000;

export interface Watched {
  tile: Tile;
  /** The picture in the tile; `undefined` for one's own, and for tiles without. */
  picture: RemoteTrack | undefined;
  own: boolean;
  inView: boolean;
}

export interface WatchSource {
  room: Pick<Room, "stats" | "isPaused">;
  tiles(): Iterable<Watched>;
  onStats(stats: RoomStats): void;
}

export class QualityWatch {
  readonly #source: WatchSource;
  readonly #meters = new Map<string, QualityMeter>();
  readonly #timer: ReturnType<typeof setInterval>;
  #stats: RoomStats | undefined;

  constructor(source: WatchSource) {
    this.#source = source;
    this.#timer = setInterval(() => void this.#look(), INTERVAL_MS);
  }

  dispose(): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    const stats = await this.#source.room.stats();
    this.#stats = stats;
    this.#source.onStats(stats);
    this.draw();
  }

  /** Draws anew from the newest figures: something was paused, or resumed. */
  draw(): void {
    const seen = new Set<string>();
    for (const watched of this.#source.tiles()) {
      const { tile } = watched;
      seen.add(tile.key);
      const before = tile.quality.state;
      tile.setQuality(this.#judge(watched));
      const { state, message } = tile.quality;
      if (before === "withheld" && state === "good") announce(`${tile.name}: the picture is back, in full`);
      else if (before === "paused" && state === "good") announce(`${tile.name}: the picture is back`);
      else if (message && before !== state) announce(`${tile.name}: ${message}`);
    }
    for (const key of this.#meters.keys()) if (!seen.has(key)) this.#meters.delete(key);
  }

  #judge({ tile, picture, own, inView }: Watched): Quality {
    if (!this.#stats || (!own && !picture)) return NO_QUALITY;
    let meter = this.#meters.get(tile.key);
    if (!meter) {
      meter = new QualityMeter();
      this.#meters.set(tile.key, meter);
    }
    if (!picture) return meter.sent(this.#stats.sending.find(({ source }) => source === "camera"));
    const stats = this.#stats.receiving.find(({ track }) => track === picture.track);
    const expected = !picture.muted && picture.blocked === undefined && inView && !document.hidden;
    return meter.received(stats, picture.source, expected, this.#source.room.isPaused(picture), performance.now());
  }
}
