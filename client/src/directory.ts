/**
 * Who is in the room and what they publish: the relay's snapshot, brought up to date by room events.
 */
import type { EventOf, ParticipantInfo, RelayEvent, TrackInfo } from "./protocol.js";

export interface RemoteTrack extends TrackInfo {
  participant: string;
  /** The relay stopped forwarding it, and why. */
  blocked?: string;
}

export interface RemoteParticipant {
  participant: string;
  tracks: Map<string, RemoteTrack>;
}

export type DirectoryChange =
  | { type: "participant-joined"; participant: RemoteParticipant }
  | { type: "participant-left"; participant: RemoteParticipant; reason: string }
  | { type: "track-published"; track: RemoteTrack }
  | { type: "track-unpublished"; track: RemoteTrack; reason: string }
  | { type: "track-updated"; track: RemoteTrack };

export class Directory {
  readonly participants = new Map<string, RemoteParticipant>();
  #seq = 0;

  track(id: string): RemoteTrack | undefined {
    for (const { tracks } of this.participants.values()) {
      const track = tracks.get(id);
      if (track) return track;
    }
    return undefined;
  }

  /** Replaces everything by a snapshot and tells what that changed. `self` is left out. */
  reset(self: string, snapshot: readonly ParticipantInfo[], seq: number): DirectoryChange[] {
    this.#seq = seq;
    const changes: DirectoryChange[] = [];
    const present = new Map(snapshot.map((info) => [info.participant, info]));
    present.delete(self);
    for (const known of [...this.participants.values()]) {
      if (!present.has(known.participant)) changes.push(...this.#leave(known, "left"));
    }
    for (const info of present.values()) changes.push(...this.#merge(info));
    return changes;
  }

  /** Applies a room event; one that the snapshot already includes changes nothing. */
  apply(self: string, event: RelayEvent): DirectoryChange[] {
    if (!("seq" in event)) return [];
    if (event.seq <= this.#seq) return [];
    this.#seq = event.seq;
    if (event.participant === self) return [];
    switch (event.type) {
      case "participant_joined":
        return this.#merge({ participant: event.participant, tracks: [] });
      case "participant_left": {
        const known = this.participants.get(event.participant);
        return known ? this.#leave(known, event.reason) : [];
      }
      case "track_published":
        return this.#publish(event);
      case "track_unpublished": {
        const known = this.participants.get(event.participant);
        const track = known?.tracks.get(event.track);
        if (!known || !track) return [];
        known.tracks.delete(event.track);
        return [{ type: "track-unpublished", track, reason: event.reason }];
      }
      case "track_muted":
        return this.#update(event.track, { muted: event.muted });
      case "track_blocked":
        return this.#update(event.track, { blocked: event.reason });
    }
  }

  #publish(event: EventOf<"track_published">): DirectoryChange[] {
    const participant = this.participants.get(event.participant);
    const track: TrackInfo = {
      track: event.track,
      source: event.source,
      muted: event.muted,
      codec: event.codec ?? "",
      sealed: event.sealed ?? true,
    };
    const tracks = [...(participant?.tracks.values() ?? []), track];
    return this.#merge({ participant: event.participant, tracks });
  }

  #update(id: string, change: Partial<RemoteTrack>): DirectoryChange[] {
    const track = this.track(id);
    if (!track) return [];
    Object.assign(track, change);
    return [{ type: "track-updated", track }];
  }

  /** Makes a participant and its tracks what `info` says. */
  #merge(info: ParticipantInfo): DirectoryChange[] {
    const changes: DirectoryChange[] = [];
    let known = this.participants.get(info.participant);
    if (!known) {
      known = { participant: info.participant, tracks: new Map() };
      this.participants.set(info.participant, known);
      changes.push({ type: "participant-joined", participant: known });
    }
    const ids = new Set(info.tracks.map(({ track }) => track));
    for (const track of [...known.tracks.values()]) {
      if (ids.has(track.track)) continue;
      known.tracks.delete(track.track);
      changes.push({ type: "track-unpublished", track, reason: "left" });
    }
    for (const item of info.tracks) {
      const track = known.tracks.get(item.track);
      if (!track) {
        const added = { ...item, participant: info.participant };
        known.tracks.set(item.track, added);
        changes.push({ type: "track-published", track: added });
      } else if (track.muted !== item.muted) {
        track.muted = item.muted;
        changes.push({ type: "track-updated", track });
      }
    }
    return changes;
  }

  #leave(participant: RemoteParticipant, reason: string): DirectoryChange[] {
    this.participants.delete(participant.participant);
    const unpublished = [...participant.tracks.values()].map(
      (track): DirectoryChange => ({ type: "track-unpublished", track, reason: "left" }),
    );
    return [...unpublished, { type: "participant-left", participant, reason }];
  }
}
