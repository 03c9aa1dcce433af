/** A room that has been joined: the public face of everything below it. */
import type { Connection } from "./connection.js";
import { Directory, type DirectoryChange, type RemoteParticipant, type RemoteTrack } from "./directory.js";
import type { GroupCounters, GroupNotice, GroupSnapshot, MemberSnapshot, OpenCounters } from "./e2ee/messages.js";
import type { Sealing } from "./e2ee/sealing.js";
import { Emitter } from "./emitter.js";
import { ClosedError, NoKeyError, ProtocolError, SealcastError } from "./errors.js";
import type { RoomGroup } from "./group.js";
import type { MediaLayout } from "./media.js";
import type { EventOf, Grants, Joined, PixelSize, RelayEvent, Source } from "./protocol.js";
import { type OwnPublication, type Publication, Publications } from "./publications.js";
import { REPORT_INTERVAL_MS, Reporter } from "./report.js";
import { type RoomStats, StatsSampler } from "./stats.js";
import { Subscriptions } from "./subscriptions.js";

/**
 * `connecting`: joined, media is on its way up for the first time. `reconnecting`: the socket or
 * media dropped and is being brought back; what is on screen may stand still.
 */
export type RoomState = "connecting" | "connected" | "reconnecting" | "closed";

export interface RoomEvents {
  state: RoomState;
  "participant-joined": RemoteParticipant;
  "participant-left": { participant: RemoteParticipant; reason: string };
  "track-published": RemoteTrack;
  "track-unpublished": { track: RemoteTrack; reason: string };
  /** It was muted, unmuted or blocked. */
  "track-updated": RemoteTrack;
  /** A slot shows the track from here on: `media` is to be played. */
  "track-shown": { track: RemoteTrack; media: MediaStreamTrack };
  "track-hidden": { track: RemoteTrack };
  /**
   * The relay stopped sending the track because the path to this client does not carry it, or goes
   * on. Imaging that does not fit whole is paused, never shown degraded: say so where it was.
   */
  "track-paused": { track: RemoteTrack; paused: boolean };
  /** Whose voice is the loudest now, oneself included; read it from `speaker`. */
  speaker: string | undefined;
  /** The relay refuses to show a track to this participant. */
  "subscription-refused": { track: RemoteTrack; error: SealcastError };
  /** An own publication changed: a moderator muted it, or the relay blocked it. */
  "publication-updated": { publication: Publication; blocked?: string };
  /** Once a second: how sealing and opening goes; read it from `sealOf` and `Publication.seal`. */
  seals: undefined;
  /** Others could not open what this participant sends, or can again: read it from `unopened`. */
  unopened: undefined;
  /** The group changed: who is in, its code, its keys. Read it from `group`. */
  group: GroupSnapshot;
  /** Something about the group that people should be told. */
  "group-notice": GroupNotice;
  /** Another member sent a message; sealed on the way. */
  message: { participant: string; body: unknown };
  "media-connected": { transport: string; dtls: string; srtpProfile: string };
  /** The relay stops in so many seconds; the client reconnects by itself. */
  "going-away": { seconds: number };
  /** An action that the client took by itself (after reconnecting, for example) failed. */
  warning: SealcastError;
  /** The room is over. Without an error, because it was left. */
  closed: SealcastError | undefined;
}

const NO_GRANTS: Grants = { publish: [], subscribe: false, unsealed: false, moderate: false };

export interface RoomPolicy {
  /** Show every track as it comes, as far as there are slots. */
  autoSubscribe: boolean;
  /** Play tracks that their publishers do not seal, where the room allows them. */
  acceptUnsealed: boolean;
}

export class Room extends Emitter<RoomEvents> {
  readonly #connection: Connection;
  readonly #sealing: Sealing;
  readonly #policy: RoomPolicy;
  readonly #group: RoomGroup;
  readonly #reporter = new Reporter();
  #reportTimer: ReturnType<typeof setInterval> | undefined;
  readonly #directory = new Directory();
  readonly #publications: Publications;
  readonly #subscriptions: Subscriptions;
  readonly #sampler = new StatsSampler();
  #opened: Record<string, OpenCounters> = {};
  #groupCounters: GroupCounters | null = null;
  /** By participant and own track. */
  readonly #unopened = new Map<string, { participant: string; source: Source; since: number }>();
  #joined: Joined | undefined;
  /** Changes not reported yet, until whoever called `connect` had the chance to listen. */
  #unreported: DirectoryChange[] | undefined = [];
  #state: RoomState = "connecting";
  #speaker: string | undefined;
  #relayEstimate: number | null = null;
  #mediaWasUp = false;
  #mediaFacts: EventOf<"media_connected"> | undefined;

  /** Use {@link connect}. */
  constructor(
    connection: Connection,
    sealing: Sealing,
    layout: MediaLayout,
    policy: RoomPolicy,
    group: RoomGroup,
  ) {
    super();
    this.#group = group;
    this.#connection = connection;
    this.#sealing = sealing;
    this.#policy = policy;
    this.#publications = new Publications(connection, sealing, layout);
    this.#subscriptions = new Subscriptions(
      connection,
      sealing,
      layout.slots,
      (track) => this.#mustOpen(track),
      (track) => this.#directory.track(track)?.participant ?? "",
    );
    this.#listen();
  }

  /** This participant's pseudonym; changes if the room had to be joined afresh. */
  get participant(): string {
    return this.#joined?.participant ?? "";
  }

  get name(): string {
    return this.#joined?.room ?? "";
  }

  get grants(): Grants {
    return this.#joined?.grants ?? NO_GRANTS;
  }

  get state(): RoomState {
    return this.#state;
  }

  /** Where keys come from: the room's group, the join link, or nowhere. */
  get keys(): "group" | "link" | "none" {
    if (this.#sealing.hasLinkKey) return "link";
    return this.#sealing.hasKey ? "group" : "none";
  }

  /** The room's group; `undefined` without group keys, and before the first news of it. */
  get group(): GroupSnapshot | undefined {
    return this.#group.snapshot;
  }

  /** Who a participant is by its own sealed word; `undefined` until that has come. */
  memberOf(participant: string): MemberSnapshot | undefined {
    return this.#group.memberOf(participant);
  }

  /**
   * Sends a message to everybody in the group, sealed. Resolves once the relay has handed it on.
   *
   * @param body what JSON can hold, up to 15 KiB
   * @param options `fleeting`: what is out of date in a moment, such as a pointer's position, goes
   *   over the data channel and may be lost there
   * @throws RelayError (`rate_limited`), ConnectionLostError, WorkerError where there is no key yet
   */
  async say(body: unknown, { fleeting = false }: { fleeting?: boolean } = {}): Promise<void> {
    this.#assertOpen();
    await this.#group.say(body, fleeting);
  }

  /** Asks the group for new keys. */
  rotateKeys(): void {
    this.#group.rotate();
  }

  /** Whether there are keys, or will be. Without any, nothing opens and nothing can be sent. */
  get hasKey(): boolean {
    return this.#sealing.hasKey;
  }

  /** The others, by pseudonym. */
  get participants(): ReadonlyMap<string, RemoteParticipant> {
    return this.#directory.participants;
  }

  get publications(): readonly Publication[] {
    return this.#publications.all();
  }

  /** Publishes a track, sealed. @throws NoKeyError, RelayError (`forbidden`, `limit`, …) */
  async publish(media: MediaStreamTrack, options: { source: Source }): Promise<Publication> {
    this.#assertOpen();
    if (!this.hasKey) throw new NoKeyError("the room was joined without a key, nothing can be sealed");
    return this.#publications.publish(media, options.source);
  }

  unpublish(publication: Publication): Promise<void> {
    return this.#publications.unpublish(this.#own(publication));
  }

  /** Sends another track, or nothing, under the same publication: no renegotiation. */
  replaceTrack(publication: Publication, media: MediaStreamTrack | null): Promise<void> {
    return this.#publications.replace(this.#own(publication), media);
  }

  /** Mutes an own publication, or (`moderate`) somebody else's track. */
  async mute(target: Publication | RemoteTrack, muted: boolean): Promise<void> {
    this.#assertOpen();
    if ("participant" in target) {
      await this.#connection.request("mute", { track: target.track, muted });
    } else await this.#publications.mute(this.#own(target), muted);
  }

  /** Removes a participant (`moderate`). */
  async remove(participant: string): Promise<void> {
    await this.#connection.request("remove", { participant });
  }

  /** Asks for a slot for the track; `track-shown` follows when one shows it. */
  subscribe(track: RemoteTrack): void {
    this.#assertOpen();
    this.#subscriptions.want(track);
  }

  unsubscribe(track: RemoteTrack): void {
    this.#subscriptions.drop(track.track);
  }

  /** Wanted tracks for which all slots are taken, longest waiting first. */
  waiting(): RemoteTrack[] {
    return this.#subscriptions.waiting().flatMap((id) => this.#directory.track(id) ?? []);
  }

  /** The participant who speaks; `undefined` before anybody has, and when they left. */
  get speaker(): string | undefined {
    return this.#speaker;
  }

  /** Keeps slots for a participant's voice and camera, where there are more people than slots. */
  pin(participant: string, pinned: boolean): void {
    this.#subscriptions.pin(participant, pinned);
  }

  /**
   * Says how large a track is shown, in device pixels; `[0, 0]` while it cannot be seen, which stops
   * it. The relay sends no more than fills it. See {@link watchSize}.
   */
  setSize(track: RemoteTrack, size: PixelSize): void {
    this.#subscriptions.setSize(track.track, size);
  }

  /** Stops and resumes all pictures; voices go on. For pages that are hidden. */
  setVisible(visible: boolean): void {
    this.#subscriptions.setVisible(visible);
  }

  /** Whether the relay withholds a track because the path to this client does not carry it. */
  isPaused(track: RemoteTrack): boolean {
    return this.#subscriptions.isPaused(track.track);
  }

  /** Who says that they cannot open what this participant sends, which source, and since when. */
  unopened(): { participant: string; source: Source; since: number }[] {
    return [...this.#unopened.values()];
  }

  /** What became of a remote track's frames; `undefined` before the first. */
  sealOf(track: string): OpenCounters | undefined {
    return this.#opened[track];
  }

  async stats(): Promise<RoomStats> {
    const media = this.#connection.media;
    const report = media ? await media.getStats() : new Map<string, unknown>();
    const { transport, inbound, outbound } = this.#sampler.digest(report.values());
    transport.srtpProfile ??= this.#mediaFacts?.srtp_profile ?? null;
    transport.relayEstimate = this.#relayEstimate;
    transport.dtls ??= this.#mediaFacts ? `DTLS ${this.#mediaFacts.dtls}` : null;
    const receiving = [...this.#directory.participants.values()]
      .flatMap(({ tracks }) => [...tracks.values()])
      .flatMap(({ track, participant, source }) => {
        const slot = this.#subscriptions.slotShowing(track);
        const mid = slot && media?.midOfSlot(slot);
        const stats = mid === undefined ? undefined : inbound.get(mid);
        if (mid === undefined || !stats) return [];
        const paused = this.#subscriptions.isPaused(track);
        return [{ ...stats, track, participant, source, mid, paused, seal: this.sealOf(track) ?? null }];
      });
    const sending = this.#publications.all().flatMap(({ line, track, source, seal }) => {
      const mid = media?.midOfLine(line.line);
      const stats = mid === undefined ? undefined : outbound.get(mid);
      return mid === undefined || !stats ? [] : [{ ...stats, track, source, mid, seal }];
    });
    return { at: Date.now(), transport, receiving, sending, group: this.#groupCounters };
  }

  /** Leaves for good. The key goes with the worker. */
  async leave(): Promise<void> {
    await this.#connection.close();
  }

  /** Drops the signalling socket as a failing network would; for tests of recovery. */
  dropSignalling(): void {
    this.#connection.dropSocket();
  }

  #listen(): void {
    const connection = this.#connection;
    connection.on("joined", (joined) => this.#onJoined(joined));
    connection.on("negotiated", () => this.#onNegotiated());
    connection.on("resumed", (resumed) => {
      this.#group.onResumed();
      const changes = this.#directory.reset(this.participant, resumed.participants, resumed.seq);
      this.#report(changes);
      this.#subscriptions.reset(resumed.slots);
      this.#inBackground(this.#publications.resync(resumed.tracks));
    });
    connection.on("event", (event) => this.#onEvent(event));
    connection.on("notice", (notice) => {
      if (notice.type === "slot") this.#subscriptions.onNotice(notice);
      else if (notice.type === "speaker") this.#onSpeaker(notice.track);
      else this.#relayEstimate = notice.bitrate;
    });
    connection.on("media-replaced", () => this.#subscriptions.onMediaReplaced());
    connection.on("phase", () => this.#updateState());
    connection.on("media-up", () => {
      this.#mediaWasUp = true;
      this.#updateState();
    });
    connection.on("closed", (error) => this.#onClosed(error));
    this.#sealing.on("counters", ({ opened, sealed, group }) => {
      this.#opened = opened;
      this.#groupCounters = group;
      for (const [line, counters] of Object.entries(sealed)) {
        const publication = this.#publications.byLine(line);
        if (publication) publication.seal = counters;
      }
      if (this.#reporter.isDue(opened)) this.#sendReport();
      this.emit("seals", undefined);
    });
    this.#group.on("changed", (group) => this.emit("group", group));
    this.#group.on("notice", (notice) => this.emit("group-notice", notice));
    this.#group.on("said", (message) => this.emit("message", message));
    this.#group.on("failed", (error) => this.emit("warning", error));
    this.#reportTimer = setInterval(() => this.#sendReport(), REPORT_INTERVAL_MS);
    this.#sealing.on("failed", (error) => {
      void connection.close();
      this.#onClosed(error);
    });
    this.#subscriptions.on("shown", ({ track: id, slot }) => {
      const track = this.#directory.track(id);
      const media = connection.media?.slotMedia(slot);
      if (track && media) this.emit("track-shown", { track, media });
    });
    this.#subscriptions.on("hidden", ({ track: id }) => {
      const track = this.#directory.track(id);
      if (track) this.emit("track-hidden", { track });
    });
    this.#subscriptions.on("paused", ({ track: id, paused }) => {
      const track = this.#directory.track(id);
      if (track) this.emit("track-paused", { track, paused });
    });
    this.#subscriptions.on("refused", ({ track: id, error }) => {
      const track = this.#directory.track(id);
      if (track) this.emit("subscription-refused", { track, error });
    });
  }

  #onJoined(joined: Joined): void {
    this.#joined = joined;
    this.#unopened.clear();
    this.#group.onJoined(joined);
    this.#subscriptions.onMediaReplaced();
    this.#report(this.#directory.reset(joined.participant, joined.participants, joined.seq));
  }

  #onNegotiated(): void {
    // A task of its own: by then the caller of `connect` has its room and listens to it.
    setTimeout(() => {
      const held = this.#unreported ?? [];
      this.#unreported = undefined;
      this.#report(held);
    });
    this.#subscriptions.reset([]);
    this.#inBackground(this.#publications.republish());
  }

  #onEvent(event: RelayEvent): void {
    this.#group.onEvent(event);
    this.#report(this.#directory.apply(this.participant, event));
    switch (event.type) {
      case "track_muted":
        if (event.participant === this.participant && event.by !== this.participant) {
          this.#onOwnTrack(event.track, (own) => this.#publications.onMutedByOther(own, event.muted));
        }
        break;
      case "track_blocked":
        this.#onOwnTrack(event.track, () => undefined, event.reason);
        break;
      case "media_connected":
        this.#mediaFacts = event;
        this.emit("media-connected", {
          transport: event.transport,
          dtls: event.dtls,
          srtpProfile: event.srtp_profile,
        });
        break;
      case "track_unopened":
        this.#onUnopened(event);
        break;
      case "participant_left":
        for (const [key, { participant }] of this.#unopened) if (participant === event.participant) this.#unopened.delete(key);
        this.emit("unopened", undefined);
        break;
      case "going_away":
        this.emit("going-away", { seconds: event.seconds });
        break;
      default:
        break;
    }
  }

  /** @param voice the audio track of who speaks */
  #onSpeaker(voice: string | null): void {
    const own = voice !== null && this.#publications.byTrack(voice) ? this.participant : undefined;
    const speaker = voice === null ? undefined : (own ?? this.#directory.track(voice)?.participant);
    if (speaker === this.#speaker) return;
    this.#speaker = speaker;
    if (speaker !== undefined) this.#subscriptions.promote(speaker);
    this.emit("speaker", speaker);
  }

  #onUnopened({ participant, track, failing }: EventOf<"track_unopened">): void {
    const publication = this.#publications.byTrack(track);
    const key = `${participant} ${track}`;
    if (!publication || !failing) this.#unopened.delete(key);
    else this.#unopened.set(key, { participant, source: publication.source, since: Date.now() });
    this.emit("unopened", undefined);
  }

  #onOwnTrack(track: string, change: (own: OwnPublication) => void, blocked?: string): void {
    const publication = this.#publications.byTrack(track);
    if (!publication) return;
    change(publication);
    this.emit("publication-updated", { publication, ...(blocked === undefined ? {} : { blocked }) });
  }

  #report(changes: readonly DirectoryChange[]): void {
    if (this.#unreported) {
      this.#unreported.push(...changes);
      return;
    }
    for (const change of changes) {
      switch (change.type) {
        case "participant-joined":
          this.emit("participant-joined", change.participant);
          break;
        case "participant-left":
          this.emit("participant-left", { participant: change.participant, reason: change.reason });
          break;
        case "track-published":
          this.emit("track-published", change.track);
          if (this.#policy.autoSubscribe && this.grants.subscribe) this.#subscriptions.want(change.track);
          break;
        case "track-unpublished":
          this.#subscriptions.drop(change.track.track);
          this.emit("track-unpublished", { track: change.track, reason: change.reason });
          break;
        case "track-updated":
          this.emit("track-updated", change.track);
          break;
      }
    }
  }

  /** Unsealed media is played only if the room, the publisher and this client all agree on it. */
  #mustOpen(track: string): boolean {
    const unsealed = this.#directory.track(track)?.sealed === false;
    return !(unsealed && this.#policy.acceptUnsealed && this.#joined?.sealed === "optional");
  }

  #sendReport(): void {
    if (this.#connection.phase === "signalling") return;
    const receiving = this.#reporter.take(this.#opened);
    // Figures for operators: one report that gets lost is no harm.
    if (receiving.length > 0) this.#connection.request("report", { receiving }).catch(() => undefined);
  }

  #updateState(): void {
    if (this.#state === "closed") return;
    const steady = this.#connection.phase === "steady";
    const state = !this.#mediaWasUp ? "connecting" : steady ? "connected" : "reconnecting";
    if (state === this.#state) return;
    this.#state = state;
    this.emit("state", state);
  }

  #onClosed(error: SealcastError | undefined): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    clearInterval(this.#reportTimer);
    this.#subscriptions.dispose();
    this.#sealing.close();
    this.emit("state", "closed");
    this.emit("closed", error);
  }

  #inBackground(work: Promise<void>): void {
    work.catch((cause: unknown) => {
      const known = cause instanceof SealcastError;
      this.emit("warning", known ? cause : new ProtocolError("restoring publications failed", { cause }));
    });
  }

  #own(publication: Publication): OwnPublication {
    this.#assertOpen();
    const own = this.#publications.all().find((candidate) => candidate === publication);
    if (!own) throw new ClosedError("this publication has ended");
    return own;
  }

  #assertOpen(): void {
    if (this.#state === "closed") throw new ClosedError("the room has been left");
  }
}
