/** The call: tiles, their marks, the controls, and what the user is told on the way. */
import {
  type Link,
  type PixelSize,
  type Publication,
  type RemoteTrack,
  type Room,
  type SealcastError,
  formatLink,
} from "../src/index.js";
import { Annotations } from "./annotations.js";
import { ChatPanel, badge } from "./chat.js";
import { brand, copyText } from "./chrome.js";
import { type ControlName, Controls } from "./controls.js";
import { type SealDetails, SealDialog, helpDialog } from "./dialogs.js";
import { announce, el, fill, setText } from "./dom.js";
import { icon } from "./icons.js";
import { NetworkPanel } from "./network-panel.js";
import { type OwnDevice, OwnMedia } from "./own-media.js";
import { PeopleDialog } from "./people.js";
import { QualityWatch, type Watched } from "./quality-watch.js";
import { MARK_ICONS, OUTSIDE, callMark, markOf, ownMark } from "./seal.js";
import { shortcutOf } from "./shortcuts.js";
import { Stage } from "./stage.js";
import { parseTalk } from "./talk.js";
import { themeButton } from "./theme.js";
import { Tile } from "./tile.js";
import { TroubleNotices } from "./trouble.js";
import { guestName, plainDeviceError, plainError, plainNotice } from "./words.js";

/** What the page uses of a room. */
export type CallRoom = Pick<
  Room,
  | "on"
  | "participant"
  | "participants"
  | "grants"
  | "state"
  | "hasKey"
  | "keys"
  | "group"
  | "memberOf"
  | "waiting"
  | "sealOf"
  | "stats"
  | "publish"
  | "unpublish"
  | "replaceTrack"
  | "mute"
  | "speaker"
  | "pin"
  | "setSize"
  | "setVisible"
  | "isPaused"
  | "say"
  | "unopened"
>;

export interface CallOptions {
  room: CallRoom;
  link: Link;
  name: string;
  camera: MediaStreamTrack | undefined;
  microphone: MediaStreamTrack | undefined;
  leave: () => void;
}

const SELF = "self";
/** One's own screen, for others' pointers and lines to be seen on. */
const OWN_SCREEN = "own-screen";
const TRACK_LABELS = { audio: "Voice", camera: "Camera", screen: "Screen", imaging: "Imaging" } as const;

/** How long a message stays at the bottom of the call. */
const TOAST_MS = 6_000;

/** Lasting notices shown at a time; older ones go. */
const MAX_NOTICES = 3;

export class CallPage {
  readonly element: HTMLElement;
  readonly #room: CallRoom;
  readonly #options: CallOptions;
  readonly #own: OwnMedia;
  readonly #stage = new Stage();
  readonly #tiles = new Map<string, Tile>();
  /** Media of tracks that a slot shows, by track. */
  readonly #shown = new Map<string, MediaStreamTrack>();
  /** How large tiles are, by tile, in device pixels. */
  readonly #sizes = new Map<string, PixelSize>();
  /** The tile that is kept large. */
  #pinned: string | undefined;
  readonly #quality: QualityWatch;
  readonly #controls: Controls;
  readonly #network: NetworkPanel;
  readonly #chat: ChatPanel;
  readonly #annotations: Annotations;
  readonly #banner = el("div", { class: "banner", role: "status", hidden: true });
  readonly #summary = el("div", { class: "call-seal" });
  readonly #toasts = el("div", { class: "toasts", role: "status" });
  readonly #stop: (() => void)[] = [];
  readonly #notices = el("div", { class: "notices", role: "alert" });
  readonly #trouble = new TroubleNotices();
  #people: PeopleDialog | undefined;
  /** The track of one's own screen, while it has a tile. */
  #sharedScreen: string | undefined;
  #sealDialog: { key: string; dialog: SealDialog } | undefined;

  constructor(options: CallOptions) {
    this.#options = options;
    this.#room = options.room;
    this.#own = new OwnMedia(options.room, () => this.#drawOwn());
    this.#controls = new Controls(
      (name) => this.#isAvailable(name),
      (name) => this.#run(name),
    );
    this.#network = new NetworkPanel(
      (participant) => this.#nameOf(participant),
      () => this.#run("network"),
    );
    this.#quality = new QualityWatch({
      room: this.#room,
      tiles: () => this.#watched(),
      onStats: (stats) => this.#network.update(stats),
    });
    this.#chat = new ChatPanel({
      send: (text) => this.#room.say({ kind: "chat", text }),
      close: () => this.#showChat(false),
      unread: (count) => badge(this.#controls.button("chat"), "Chat", count),
    });
    this.#annotations = new Annotations({
      // Over the data channel, which may not be open at this moment.
      tell: (talk) => void this.#room.say(talk, { fleeting: true }).catch(() => undefined),
      nameOf: (participant) => this.#nameOf(participant),
    });
    this.element = el(
      "div",
      { class: "call" },
      el("header", { class: "call-header" }, brand(), this.#summary, themeButton()),
      this.#banner,
      this.#notices,
      this.#trouble.element,
      el("main", { class: "call-main", id: "main" }, this.#stage.element, this.#chat.element, this.#network.element),
      this.#toasts,
      el("footer", { class: "call-footer" }, this.#controls.element),
    );
    this.#addTile(SELF, options.name ? `${options.name} (you)` : "You", "self");
    this.#listen();
    this.#drawOwn();
    this.#drawState();
    void this.#begin();
  }

  dispose(): void {
    for (const stop of this.#stop) stop();
    this.#quality.dispose();
    this.#annotations.dispose();
    this.#stage.dispose();
    this.#sealDialog?.dialog.element.close();
    this.#people?.element.close();
    for (const tile of this.#tiles.values()) tile.dispose();
    this.#own.stop();
  }

  async #begin(): Promise<void> {
    const { microphone, camera } = this.#options;
    await Promise.all([
      microphone && this.#attempt("microphone", () => this.#own.begin("microphone", microphone)),
      camera && this.#attempt("camera", () => this.#own.begin("camera", camera)),
    ]);
  }

  #listen(): void {
    const room = this.#room;
    const onKey = (event: KeyboardEvent): void => {
      const name = shortcutOf(event);
      if (!name || !this.#isAvailable(name)) return;
      event.preventDefault();
      this.#run(name);
    };
    addEventListener("keydown", onKey);
    const onVisibility = (): void => room.setVisible(!document.hidden);
    document.addEventListener("visibilitychange", onVisibility);
    onVisibility();
    this.#stop.push(
      () => removeEventListener("keydown", onKey),
      () => document.removeEventListener("visibilitychange", onVisibility),
      room.on("participant-joined", ({ participant }) => {
        this.#addTile(participant, this.#nameOf(participant), "person");
        announce(`${this.#nameOf(participant)} joined`);
      }),
      room.on("participant-left", ({ participant }) => {
        const name = this.#tiles.get(participant.participant)?.name ?? guestName(participant.participant);
        this.#removeTile(participant.participant);
        this.#annotations.forget(participant.participant);
        announce(`${name} left`);
      }),
      room.on("track-published", (track) => this.#onTrack(track)),
      room.on("track-updated", (track) => this.#onTrack(track)),
      room.on("track-unpublished", ({ track }) => this.#onTrackGone(track)),
      room.on("track-shown", ({ track, media }) => {
        this.#shown.set(track.track, media);
        this.#onTrack(track);
      }),
      room.on("track-hidden", ({ track }) => {
        this.#shown.delete(track.track);
        this.#onTrack(track);
      }),
      room.on("track-paused", () => {
        this.#quality.draw();
        this.#drawMarks();
      }),
      room.on("speaker", () => this.#drawSpeaker()),
      room.on("subscription-refused", ({ error }) => this.#complain(error)),
      room.on("publication-updated", ({ publication, blocked }) => {
        if (blocked !== undefined) this.#toast("The relay stopped forwarding your picture or voice. Turn it off and on again.");
        else this.#toast("Whoever leads the consult muted you.");
        this.#own.onMuted(publication);
      }),
      room.on("seals", () => {
        this.#drawMarks();
        this.#drawTrouble();
      }),
      room.on("unopened", () => this.#drawTrouble()),
      room.on("group", () => this.#drawGroup()),
      room.on("message", ({ participant, body }) => this.#onMessage(participant, body)),
      room.on("group-notice", (notice) => this.#onNotice(plainNotice(notice))),
      room.on("state", () => this.#drawState()),
      room.on("going-away", () => this.#toast("The relay is restarting. The call continues as soon as it is back.")),
      room.on("warning", (error) => this.#complain(error)),
    );
  }

  // Tiles.

  #addTile(key: string, name: string, kind: "person" | "screen" | "self"): Tile {
    const known = this.#tiles.get(key);
    if (known) return known;
    const tile = new Tile({
      key,
      name,
      kind,
      onDetails: () => this.#openSealDialog(key),
      ...(kind === "self" ? {} : { onSize: (size) => this.#onSize(key, size), onPin: () => this.#pin(key) }),
    });
    this.#tiles.set(key, tile);
    this.#stage.place(tile.element, kind === "screen");
    this.#drawMarks();
    return tile;
  }

  #onSize(key: string, size: PixelSize): void {
    this.#sizes.set(key, size);
    const picture = this.#pictureOf(key);
    if (picture) this.#room.setSize(picture, size);
  }

  /** The picture in somebody else's tile. */
  #pictureOf(key: string): RemoteTrack | undefined {
    return this.#tracksOf(key).find(({ source }) => source !== "audio");
  }

  *#watched(): Iterable<Watched> {
    for (const [key, tile] of this.#tiles) {
      const picture = this.#pictureOf(key);
      const inView = (this.#sizes.get(key)?.[0] ?? 0) > 0;
      yield { tile, own: key === SELF, picture: picture && this.#shown.has(picture.track) ? picture : undefined, inView };
    }
  }

  /** Keeps one tile large, and its slots; pressed again, gives that up. */
  #pin(key: string): void {
    const before = this.#pinned;
    this.#pinned = before === key ? undefined : key;
    for (const changed of [before, this.#pinned]) {
      const tile = changed === undefined ? undefined : this.#tiles.get(changed);
      if (changed === undefined || !tile) continue;
      const pinned = changed === this.#pinned;
      tile.setPinned(pinned);
      this.#stage.place(tile.element, pinned || tile.element.classList.contains("tile-screen"));
      if (this.#room.participants.has(changed)) this.#room.pin(changed, pinned);
    }
    this.#tiles.get(key)?.focusPin();
  }

  #drawSpeaker(): void {
    const { speaker } = this.#room;
    for (const [key, tile] of this.#tiles) {
      tile.setSpeaking(speaker !== undefined && key === (speaker === this.#room.participant ? SELF : speaker));
    }
  }

  #removeTile(key: string): void {
    this.#tiles.get(key)?.dispose();
    this.#tiles.delete(key);
    this.#sizes.delete(key);
    if (this.#pinned === key) this.#pinned = undefined;
    this.#stage.layOut();
    this.#drawMarks();
  }

  #onTrack(track: RemoteTrack): void {
    const isScreen = track.source === "screen" || track.source === "imaging";
    const owner = this.#nameOf(track.participant);
    const tile = isScreen
      ? this.#addTile(track.track, `${owner}, ${TRACK_LABELS[track.source].toLowerCase()}`, "screen")
      : this.#tiles.get(track.participant);
    if (!tile) return;
    if (isScreen && this.#room.keys === "group") this.#annotations.attach(track.track, tile.element);
    const media = this.#shown.get(track.track);
    if (track.source === "audio") {
      tile.setAudio(media);
      tile.setMuted(track.muted);
    } else {
      tile.setVideo(track.muted ? undefined : media);
      const size = this.#sizes.get(tile.key);
      if (size) this.#room.setSize(track, size);
    }
    tile.setNote(this.#noteFor(track.participant));
    this.#drawMarks();
  }

  /** What a person's tile says where a picture would be. */
  #noteFor(participant: string): string {
    const waiting = this.#room.waiting().filter((track) => track.participant === participant);
    if (waiting.some(({ source }) => source === "audio")) return "Not heard: all places are taken";
    if (waiting.some(({ source }) => source === "camera")) return "Not shown: all places are taken";
    const camera = this.#tracksOf(participant).find(({ source }) => source === "camera");
    return camera && !camera.muted ? "" : "Camera is off";
  }

  #onTrackGone(track: RemoteTrack): void {
    this.#shown.delete(track.track);
    this.#annotations.detach(track.track);
    if (track.source === "screen" || track.source === "imaging") this.#removeTile(track.track);
    const tile = this.#tiles.get(track.participant);
    if (track.source === "audio") tile?.setAudio(undefined);
    if (track.source === "camera") tile?.setVideo(undefined);
    this.#drawMarks();
  }

  /** The tracks behind a tile of somebody else. */
  #tracksOf(key: string): RemoteTrack[] {
    const person = this.#room.participants.get(key);
    if (person) {
      return [...person.tracks.values()].filter(({ source }) => source === "audio" || source === "camera");
    }
    return [...this.#room.participants.values()].flatMap(({ tracks }) => tracks.get(key) ?? []);
  }

  /** The publications behind a tile of one's own. */
  #ownBehind(key: string): Publication[] {
    if (this.#sharedScreen === undefined) return this.#own.publications();
    return this.#own.publications().filter(({ source }) => (source === "screen") === (key === OWN_SCREEN));
  }

  // The group.

  /** By the person's own sealed word; the relay knows pseudonyms only. */
  #nameOf(participant: string): string {
    return this.#room.memberOf(participant)?.name ?? guestName(participant);
  }

  #drawGroup(): void {
    for (const { participant, tracks } of this.#room.participants.values()) {
      this.#tiles.get(participant)?.setName(this.#nameOf(participant));
      for (const { track, source } of tracks.values()) {
        this.#tiles.get(track)?.setName(`${this.#nameOf(participant)}, ${TRACK_LABELS[source].toLowerCase()}`);
      }
    }
    this.#people?.update();
    this.#drawMarks();
  }

  #onNotice({ text, lasting }: { text: string; lasting: boolean }): void {
    if (!lasting) {
      this.#toast(text);
      return;
    }
    // A relay that tries again and again must not fill the page.
    if ([...this.#notices.children].some(({ textContent }) => textContent === text)) return;
    const close = el("button", { type: "button", class: "icon-button", "aria-label": "Dismiss" }, icon("close"));
    const notice = el("div", { class: "notice notice-danger" }, icon("alert"), el("div", {}, text), close);
    close.addEventListener("click", () => {
      notice.remove();
      this.#stage.layOut();
    });
    this.#notices.append(notice);
    while (this.#notices.childElementCount > MAX_NOTICES) this.#notices.firstElementChild?.remove();
    this.#stage.layOut();
  }

  /** What another member's page said, sealed. */
  #onMessage(participant: string, body: unknown): void {
    const talk = parseTalk(body);
    if (!talk) return;
    if (talk.kind !== "chat") {
      this.#annotations.show(participant, talk);
      return;
    }
    const name = this.#nameOf(participant);
    const member = this.#room.memberOf(participant);
    this.#chat.receive({ name, verified: member?.nameVerified ?? false }, talk.text);
    // The log itself speaks while it is shown.
    if (!this.#chat.shown) announce(`${name} wrote: ${talk.text}`);
  }

  #showChat(shown: boolean): void {
    // On a phone there is room for one of the two.
    if (shown && this.#network.shown) this.#run("network");
    this.#chat.show(shown);
    this.#controls.setPressed("chat", shown);
    if (!shown) this.#controls.button("chat")?.focus();
    this.#stage.layOut();
  }

  #showPeople(): void {
    const people = new PeopleDialog(() => this.#room.group);
    this.#people = people;
    people.element.addEventListener("close", () => {
      this.#people = undefined;
    });
  }

  // Marks.

  #drawMarks(): void {
    for (const [key, tile] of this.#tiles) {
      const before = tile.mark.state;
      tile.setMark(this.#markFor(key));
      if (tile.mark.state === "broken" && before !== "broken") announce(`${tile.name}: ${tile.mark.label}`);
    }
    const summary = callMark([...this.#tiles.values()].map(({ mark }) => mark));
    if (this.#summary.dataset["state"] !== summary.state || this.#summary.textContent !== summary.label) {
      this.#summary.dataset["state"] = summary.state;
      fill(this.#summary, icon(MARK_ICONS[summary.state]), el("span", {}, summary.label));
    }
    this.#sealDialog?.dialog.update();
  }

  /** Who cannot open whom. */
  #drawTrouble(): void {
    if (this.#trouble.update(this.#room, (participant) => this.#nameOf(participant))) this.#stage.layOut();
  }

  #markFor(key: string): Tile["mark"] {
    const { hasKey, keys } = this.#room;
    if (isOwn(key)) return ownMark(this.#ownBehind(key).map(({ seal }) => seal), hasKey);
    const tracks = this.#tracksOf(key).map((track) => ({
      seal: this.#room.sealOf(track.track),
      muted: track.muted,
      withheld: !this.#shown.has(track.track) || this.#room.isPaused(track),
      ...(track.blocked === undefined ? {} : { blocked: track.blocked }),
    }));
    const mark = markOf(tracks, hasKey, Date.now(), keys);
    const person = tracks.length === 0 || this.#room.participants.has(key);
    return keys === "group" && person && mark.state === "waiting" && !this.#room.memberOf(key) ? OUTSIDE : mark;
  }

  #openSealDialog(key: string): void {
    const dialog = new SealDialog(() => this.#sealDetails(key));
    this.#sealDialog = { key, dialog };
    dialog.element.addEventListener("close", () => {
      this.#sealDialog = undefined;
    });
  }

  #sealDetails(key: string): SealDetails | undefined {
    const tile = this.#tiles.get(key);
    if (!tile) return undefined;
    const tracks =
      isOwn(key)
        ? this.#ownBehind(key).map(({ source, seal }) => ({ label: TRACK_LABELS[source], sealed: seal }))
        : this.#tracksOf(key).map(({ source, track }) => ({
            label: TRACK_LABELS[source],
            opened: this.#room.sealOf(track),
          }));
    return { name: tile.name, mark: tile.mark, tracks };
  }

  // Controls.

  #isAvailable(name: ControlName): boolean {
    const { publish } = this.#room.grants;
    if (name === "microphone") return publish.includes("audio");
    if (name === "camera") return publish.includes("camera");
    if (name === "screen") return publish.includes("screen") && "getDisplayMedia" in navigator.mediaDevices;
    if (name === "invite") return this.#room.hasKey;
    if (name === "people" || name === "chat") return this.#room.keys === "group";
    return true;
  }

  #run(name: ControlName): void {
    switch (name) {
      case "microphone":
      case "camera":
      case "screen":
        void this.#attempt(name, () => this.#own.toggle(name));
        break;
      case "invite":
        void this.#copyInvitation();
        break;
      case "people":
        this.#showPeople();
        break;
      case "chat":
        this.#showChat(!this.#chat.shown);
        break;
      case "network":
        if (!this.#network.shown && this.#chat.shown) this.#showChat(false);
        this.#network.show(!this.#network.shown);
        this.#controls.setPressed("network", this.#network.shown);
        this.#stage.layOut();
        break;
      case "help":
        helpDialog();
        break;
      case "leave":
        this.#options.leave();
        break;
    }
  }

  async #attempt(device: OwnDevice, action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      // Dismissing the browser's screen chooser is a choice, not a fault.
      if (device === "screen" && error instanceof DOMException && error.name === "NotAllowedError") return;
      if (error instanceof DOMException) this.#toast(plainDeviceError(error, device));
      else this.#complain(error);
    }
  }

  async #copyInvitation(): Promise<void> {
    const copied = await copyText(formatLink(location.href, this.#options.link));
    const { key } = this.#options.link;
    const words = key ? "Invitation link copied. It carries the key: share it with care." : "Invitation link copied.";
    this.#toast(copied ? words : "Copying failed.");
  }

  #drawOwn(): void {
    const tile = this.#tiles.get(SELF);
    for (const device of ["microphone", "camera", "screen"] as const) {
      this.#controls.setPressed(device, this.#own.isOn(device));
    }
    tile?.setVideo(this.#own.track("camera"));
    tile?.setMuted(!this.#own.isOn("microphone"));
    tile?.setNote(this.#own.isOn("camera") ? "" : "Camera is off");
    this.#drawOwnScreen();
    this.#drawMarks();
  }

  /** Shown to oneself only where others can point at it. */
  #drawOwnScreen(): void {
    const shared = this.#own.publications().find(({ source }) => source === "screen");
    if (this.#sharedScreen !== undefined && this.#sharedScreen !== shared?.track) {
      this.#annotations.detach(this.#sharedScreen);
      this.#removeTile(OWN_SCREEN);
      this.#sharedScreen = undefined;
    }
    if (!shared?.track || this.#room.keys !== "group") return;
    this.#sharedScreen = shared.track;
    const tile = this.#addTile(OWN_SCREEN, "Your screen", "screen");
    tile.setVideo(this.#own.track("screen"));
    this.#annotations.attach(shared.track, tile.element);
  }

  #drawState(): void {
    const words = {
      connecting: "Connecting sound and pictures…",
      reconnecting: "The connection dropped. Reconnecting…",
      connected: "",
      closed: "",
    }[this.#room.state];
    setText(this.#banner, words);
    this.#banner.hidden = words === "";
    this.element.dataset["state"] = this.#room.state;
    this.#stage.layOut();
  }

  #complain(error: unknown): void {
    const plain = plainError(error);
    this.#toast(`${plain.title}. ${plain.text}`);
    console.warn("sealcast:", (error as SealcastError).code, error);
  }

  #toast(text: string): void {
    const toast = el("div", { class: "toast" }, text);
    this.#toasts.append(toast);
    setTimeout(() => toast.remove(), TOAST_MS);
  }
}

function isOwn(key: string): boolean {
  return key === SELF || key === OWN_SCREEN;
}
