/** What this client publishes, and keeping the relay in step with it. */
import type { Connection } from "./connection.js";
import type { SealCounters } from "./e2ee/messages.js";
import type { Sealing } from "./e2ee/sealing.js";
import { ConnectionLostError, ProtocolError, SealcastError } from "./errors.js";
import type { MediaLayout, SendLine } from "./media.js";
import { encodingsOf } from "./encodings.js";
import type { OwnTrackInfo, Source } from "./protocol.js";

/** A track that this client publishes. It outlives reconnections; its `track` id may change. */
export interface Publication {
  readonly source: Source;
  /** The relay's id; `null` while the relay has still to be told. */
  readonly track: string | null;
  readonly media: MediaStreamTrack | null;
  readonly muted: boolean;
  /** How sealing goes; `null` before the first report. */
  readonly seal: SealCounters | null;
}

class OwnPublication implements Publication {
  track: string | null = null;
  muted = false;
  seal: SealCounters | null = null;

  constructor(
    readonly source: Source,
    readonly line: SendLine,
    public contexts: number[],
  ) {}

  get media(): MediaStreamTrack | null {
    return this.line.track;
  }
}

export class Publications {
  readonly #connection: Connection;
  readonly #sealing: Sealing;
  readonly #layout: MediaLayout;
  readonly #publications = new Map<SendLine, OwnPublication>();

  constructor(connection: Connection, sealing: Sealing, layout: MediaLayout) {
    this.#connection = connection;
    this.#sealing = sealing;
    this.#layout = layout;
  }

  all(): OwnPublication[] {
    return [...this.#publications.values()];
  }

  byTrack(track: string): OwnPublication | undefined {
    return this.all().find((publication) => publication.track === track);
  }

  byLine(line: string): OwnPublication | undefined {
    return this.all().find((publication) => publication.line.line === line);
  }

  async publish(media: MediaStreamTrack, source: Source): Promise<Publication> {
    const line = this.#freeLine(source);
    const publication = new OwnPublication(source, line, []);
    this.#publications.set(line, publication);
    try {
      publication.contexts = await this.#seal(line);
      if (this.#connection.media?.midOfLine(line.line) === undefined) await this.#connection.negotiate();
      await this.#announce(publication);
      // The encoder starts after the relay knows the track, so that its first key frame counts.
      await this.#carry(publication, media);
    } catch (error) {
      await this.#discard(publication);
      throw error;
    }
    return publication;
  }

  async unpublish(publication: OwnPublication): Promise<void> {
    const { track } = publication;
    await this.#discard(publication);
    if (track !== null) await this.#connection.request("unpublish", { track });
  }

  /** Sends `media` instead, or nothing; the publication stays what it is to others. */
  async replace(publication: OwnPublication, media: MediaStreamTrack | null): Promise<void> {
    await this.#carry(publication, media);
  }

  async mute(publication: OwnPublication, muted: boolean): Promise<void> {
    this.#setMuted(publication, muted);
    if (publication.track === null) return;
    try {
      await this.#connection.request("mute", { track: publication.track, muted });
    } catch (error) {
      // Muted here is muted: the relay hears of it when the socket is back (see `resync`).
      if (!(error instanceof ConnectionLostError)) throw error;
    }
  }

  /** Somebody else muted or unmuted it. Unmuting stays with the person whose microphone it is. */
  onMutedByOther(publication: OwnPublication, muted: boolean): void {
    if (muted) this.#setMuted(publication, true);
  }

  /** After joining afresh: everything is published anew, each under a fresh key id. */
  async republish(): Promise<void> {
    for (const publication of this.all()) {
      publication.track = null;
      publication.contexts = await this.#seal(publication.line);
      await this.#announce(publication);
    }
  }

  /** After resuming: what the relay missed while the socket was down. */
  async resync(known: readonly OwnTrackInfo[]): Promise<void> {
    for (const publication of this.all()) {
      const mid = this.#connection.media?.midOfLine(publication.line.line);
      const remembered = known.find((info) => info.mid === mid);
      if (!remembered) await this.#announce(publication);
      else {
        publication.track = remembered.track;
        if (remembered.muted !== publication.muted) {
          await this.#connection.request("mute", { track: remembered.track, muted: publication.muted });
        }
      }
    }
    const lines = new Set(this.all().map(({ line }) => this.#connection.media?.midOfLine(line.line)));
    for (const { mid, track } of known) {
      if (!lines.has(mid)) await this.#connection.request("unpublish", { track });
    }
  }

  /** A key id for each encoding, all under the one name of the line. */
  #seal({ line, source }: SendLine): Promise<number[]> {
    const encodings = source === "audio" ? 1 : encodingsOf(source, this.#layout.codecs[source]).length;
    return this.#sealing.seal(line, encodings);
  }

  async #announce(publication: OwnPublication): Promise<void> {
    const mid = this.#connection.media?.midOfLine(publication.line.line);
    if (mid === undefined) throw new ProtocolError(`${publication.source} has no m-line`);
    const { track } = await this.#connection.request("publish", {
      mid,
      source: publication.source,
      seal: { contexts: publication.contexts },
    });
    publication.track = track;
    if (publication.muted) await this.#connection.request("mute", { track, muted: true });
  }

  async #carry(publication: OwnPublication, media: MediaStreamTrack | null): Promise<void> {
    publication.line.track = media;
    if (media && (publication.source === "screen" || publication.source === "imaging")) {
      // Text and images, not film: sharpness before smoothness. The application may know better.
      media.contentHint ||= "detail";
    }
    if (media) media.enabled = !publication.muted;
    await this.#connection.media?.replaceTrack(publication.line);
  }

  #setMuted(publication: OwnPublication, muted: boolean): void {
    publication.muted = muted;
    if (publication.media) publication.media.enabled = !muted;
  }

  async #discard(publication: OwnPublication): Promise<void> {
    this.#publications.delete(publication.line);
    publication.track = null;
    this.#sealing.unseal(publication.line.line);
    await this.#carry(publication, null).catch((error: unknown) => {
      if (error instanceof SealcastError) throw error;
      // The browser refuses only on a closed peer connection, which carries nothing anyway.
    });
  }

  #freeLine(source: Source): SendLine {
    const free = this.#layout.lines.find((line) => line.source === source && !this.#publications.has(line));
    if (free) return free;
    const line: SendLine = { line: `line-${this.#layout.lines.length}`, source, track: null };
    this.#layout.lines.push(line);
    return line;
  }
}

export type { OwnPublication };
