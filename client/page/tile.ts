/** One tile of the call: a person, or a shared screen. */
import { el, fill, setText } from "./dom.js";
import { icon } from "./icons.js";
import { type PixelSize, watchSize } from "../src/index.js";
import { NO_QUALITY, type Quality } from "./quality.js";
import { MARK_ICONS, type Mark } from "./seal.js";

export interface TileOptions {
  /** Stable within the page; tests find tiles by it. */
  key: string;
  name: string;
  kind: "person" | "screen" | "self";
  onDetails: () => void;
  /** Device pixels that the picture has on screen. */
  onSize?: (size: PixelSize) => void;
  /** The pin was pressed; tiles without it cannot be pinned. */
  onPin?: () => void;
}

const WAITING: Mark = { state: "waiting", label: "Waiting", explanation: "No frame has arrived yet." };

export class Tile {
  readonly element: HTMLElement;
  readonly key: string;
  #name: string;
  mark: Mark = WAITING;
  /** Apart from the voice, so that pictures start even where a browser holds sound back. */
  readonly #video = el("video", { autoplay: true, playsinline: true });
  readonly #audio = el("audio", { autoplay: true });
  readonly #mutedBadge = el("span", { class: "tile-muted" }, icon("micOff"), visuallyHidden("Microphone off"));
  readonly #note = el("p", { class: "tile-note" });
  readonly #mark: HTMLButtonElement;
  readonly #kind: TileOptions["kind"];
  readonly #label = el("span", { class: "tile-label" });
  readonly #avatar = el("span", { class: "tile-avatar" });
  readonly #quality = el("span", { class: "tile-quality" });
  /** Over the picture, where something keeps it from being live. */
  readonly #trouble = el("p", { class: "tile-trouble" });
  readonly #pin: HTMLButtonElement | undefined;
  readonly #stopWatching: (() => void) | undefined;
  quality: Quality = NO_QUALITY;

  constructor({ key, name, kind, onDetails, onSize, onPin }: TileOptions) {
    this.key = key;
    this.#name = name;
    this.#kind = kind;
    this.#label.textContent = name;
    this.#avatar.append(avatar(name, kind));
    this.#video.muted = true;
    this.#mutedBadge.hidden = true;
    this.#pin = onPin && el("button", { type: "button", class: "tile-pin", onclick: onPin }, icon("pin"));
    this.#mark = el("button", { type: "button", class: "seal-mark", onclick: onDetails });
    this.element = el(
      "div",
      { class: `tile tile-${kind}`, role: "group", "aria-label": name, "data-tile": key },
      el("div", { class: "tile-placeholder", "aria-hidden": "true" }, this.#avatar, this.#note),
      this.#video,
      this.#audio,
      this.#trouble,
      el("div", { class: "tile-top" }, this.#quality, this.#pin),
      el(
        "div",
        { class: "tile-bar" },
        el("span", { class: "tile-name" }, this.#mutedBadge, this.#label),
        this.#mark,
      ),
    );
    this.#stopWatching = onSize && watchSize(this.element, onSize);
    this.setVideo(undefined);
    this.setMark(WAITING);
    this.setPinned(false);
  }

  get name(): string {
    return this.#name;
  }

  setName(name: string): void {
    if (this.#name === name) return;
    this.#name = name;
    setText(this.#label, name);
    fill(this.#avatar, avatar(name, this.#kind));
    this.element.setAttribute("aria-label", name);
    this.#mark.setAttribute("aria-label", `${name}: ${this.mark.label}. Show details`);
    this.#labelPin();
  }

  setVideo(track: MediaStreamTrack | undefined): void {
    play(this.#video, track);
    this.element.classList.toggle("has-video", track !== undefined);
  }

  setAudio(track: MediaStreamTrack | undefined): void {
    play(this.#audio, track);
  }

  setMuted(muted: boolean): void {
    this.#mutedBadge.hidden = !muted;
  }

  /** A line in the middle of a tile without picture. */
  setNote(text: string): void {
    setText(this.#note, text);
  }

  setMark(mark: Mark): void {
    const drawn = this.#mark.dataset["state"];
    this.mark = mark;
    this.element.dataset["seal"] = mark.state;
    if (drawn === mark.state && this.#mark.textContent === mark.label) return;
    this.#mark.dataset["state"] = mark.state;
    fill(this.#mark, icon(MARK_ICONS[mark.state]), el("span", { class: "seal-label" }, mark.label));
    this.#mark.setAttribute("aria-label", `${this.name}: ${mark.label}. Show details`);
    this.#mark.title = mark.explanation;
  }

  setQuality(quality: Quality): void {
    this.quality = quality;
    this.element.dataset["quality"] = quality.state;
    setText(this.#quality, quality.label);
    setText(this.#trouble, quality.message);
  }

  setSpeaking(speaking: boolean): void {
    this.element.classList.toggle("speaking", speaking);
  }

  setPinned(pinned: boolean): void {
    this.#pin?.setAttribute("aria-pressed", String(pinned));
    this.#labelPin();
  }

  focusPin(): void {
    this.#pin?.focus();
  }

  dispose(): void {
    this.#stopWatching?.();
    play(this.#video, undefined);
    play(this.#audio, undefined);
    this.element.remove();
  }

  #labelPin(): void {
    if (!this.#pin) return;
    const label = `Keep ${this.#name} large`;
    this.#pin.setAttribute("aria-label", label);
    this.#pin.title = label;
  }
}

function play(element: HTMLMediaElement, track: MediaStreamTrack | undefined): void {
  const playing = element.srcObject instanceof MediaStream ? element.srcObject.getTracks()[0] : undefined;
  if (playing === track) return;
  element.srcObject = track ? new MediaStream([track]) : null;
  // Refused where no gesture of the user has allowed sound; joining by a click was one.
  if (track) element.play().catch(() => undefined);
}

function avatar(name: string, kind: TileOptions["kind"]): HTMLElement {
  if (kind === "screen") return el("span", { class: "avatar" }, icon("screen"));
  const initials = initialsOf(name.replace(/\s*\(.*\)$/, ""));
  return el("span", { class: "avatar" }, initials || icon("person"));
}

/** `Dr. Haas` → `DH`; a guest's number stands for itself, since all guests begin alike. */
function initialsOf(name: string): string {
  const guest = /^Guest (.{2})/.exec(name)?.[1];
  if (guest) return guest;
  const letters = name.split(/\s+/).map((word) => word.charAt(0));
  return letters
    .filter((char) => /[\p{L}\p{N}]/u.test(char))
    .slice(0, 2)
    .join("")
    .toUpperCase();
}

function visuallyHidden(text: string): HTMLElement {
  return el("span", { class: "visually-hidden" }, text);
}
