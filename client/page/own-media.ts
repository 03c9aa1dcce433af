/** The user's own microphone, camera and screen in a call. */
import type { Publication, Room } from "../src/index.js";
import { openCamera, openMicrophone, openScreen } from "./devices.js";

export type OwnDevice = "microphone" | "camera" | "screen";
export type MediaRoom = Pick<Room, "publish" | "unpublish" | "replaceTrack" | "mute" | "hasKey">;

const SOURCES = { microphone: "audio", camera: "camera", screen: "screen" } as const;

/**
 * Turning a device off releases it, so that its light goes out; except for the microphone, which
 * stays open while muted, since reopening it would cut off the first words.
 */
export class OwnMedia {
  readonly #room: MediaRoom;
  readonly #changed: () => void;
  readonly #tracks = new Map<OwnDevice, MediaStreamTrack>();
  readonly #publications = new Map<OwnDevice, Publication>();
  readonly #muted = new Set<OwnDevice>();
  /** The last change under way for each device: changes of one device follow each other. */
  readonly #changes = new Map<OwnDevice, Promise<void>>();

  constructor(room: MediaRoom, changed: () => void) {
    this.#room = room;
    this.#changed = changed;
  }

  track(device: OwnDevice): MediaStreamTrack | undefined {
    return this.#tracks.get(device);
  }

  publications(): Publication[] {
    return [...this.#publications.values()];
  }

  isOn(device: OwnDevice): boolean {
    return this.#tracks.has(device) && !this.#muted.has(device);
  }

  /** Takes over a track that the pre-join page opened. */
  async begin(device: OwnDevice, track: MediaStreamTrack): Promise<void> {
    this.#take(device, track);
    await this.#publish(device, track);
  }

  /** @throws what the device or the relay refuses with */
  toggle(device: OwnDevice): Promise<void> {
    const former = this.#changes.get(device) ?? Promise.resolve();
    const change = former
      .catch(() => undefined)
      .then(() => (this.isOn(device) ? this.#turnOff(device) : this.#turnOn(device)))
      .finally(() => this.#changed());
    this.#changes.set(device, change);
    return change;
  }

  /** A moderator muted one of the publications. */
  onMuted(publication: Publication): void {
    for (const [device, own] of this.#publications) {
      if (own === publication && publication.muted) this.#muted.add(device);
    }
    this.#changed();
  }

  stop(): void {
    for (const track of this.#tracks.values()) track.stop();
    this.#tracks.clear();
  }

  async #turnOn(device: OwnDevice): Promise<void> {
    const publication = this.#publications.get(device);
    if (!this.#tracks.has(device)) this.#take(device, await open(device));
    this.#muted.delete(device);
    const track = this.#tracks.get(device);
    if (!track) return;
    if (!publication) {
      await this.#publish(device, track);
      return;
    }
    await this.#room.replaceTrack(publication, track);
    await this.#room.mute(publication, false);
  }

  async #turnOff(device: OwnDevice): Promise<void> {
    const publication = this.#publications.get(device);
    if (device === "microphone") {
      this.#muted.add(device);
      this.#changed();
      if (publication) await this.#room.mute(publication, true);
      return;
    }
    this.#release(device);
    if (!publication) return;
    if (device === "screen") {
      this.#publications.delete(device);
      await this.#room.unpublish(publication);
    } else {
      await this.#room.mute(publication, true);
      await this.#room.replaceTrack(publication, null);
    }
  }

  async #publish(device: OwnDevice, track: MediaStreamTrack): Promise<void> {
    // Without a key nothing can be sealed, and nothing is sent.
    if (!this.#room.hasKey) return;
    const publication = await this.#room.publish(track, { source: SOURCES[device] });
    this.#publications.set(device, publication);
    this.#changed();
  }

  #take(device: OwnDevice, track: MediaStreamTrack): void {
    this.#tracks.set(device, track);
    // The browser's own "stop sharing", or a camera that was unplugged.
    track.addEventListener("ended", () => {
      if (this.#tracks.get(device) === track) void this.toggle(device).catch(() => this.#changed());
    });
    this.#changed();
  }

  #release(device: OwnDevice): void {
    const track = this.#tracks.get(device);
    this.#tracks.delete(device);
    track?.stop();
    this.#changed();
  }
}

function open(device: OwnDevice): Promise<MediaStreamTrack> {
  if (device === "microphone") return openMicrophone();
  return device === "camera" ? openCamera() : openScreen();
}
