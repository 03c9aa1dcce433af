/** One tile of the call: a person, or a shared screen. */
import { el, fill, setText } from "./dom.js";
import { icon } from "./icons.js";
import { MARK_ICONS, type Mark } from "./seal.js";

export interface TileOptions {
  /** Stable within the page; tests find tiles by it. */
  key: string;
  name: string;
  kind: "person" | "screen" | "self";
  onDetails: () => void;
}

const WAITING: Mark = { state: "waiting", label: "Waiting", explanation: "No frame has arrived yet." };

export class Tile {
  readonly element: HTMLElement;
  readonly key: string;
  readonly name: string;
  mark: Mark = WAITING;
  readonly #media = new MediaStream();
  readonly #video = el("video", { autoplay: true, playsinline: true });
  readonly #mutedBadge = el("span", { class: "tile-muted" }, icon("micOff"), visuallyHidden("Microphone off"));
  readonly #note = el("p", { class: "tile-note" });
  readonly #mark: HTMLButtonElement;

  constructor({ key, name, kind, onDetails }: TileOptions) {
    this.key = key;
    this.name = name;
    this.#video.srcObject = this.#media;
    // One's own voice is never played back.
    this.#video.muted = kind === "self";
    this.#mutedBadge.hidden = true;
    this.#mark = el("button", { type: "button", class: "seal-mark", onclick: onDetails });
    this.element = el(
      "div",
      { class: `tile tile-${kind}`, role: "group", "aria-label": name, "data-tile": key },
      el("div", { class: "tile-placeholder", "aria-hidden": "true" }, avatar(name, kind), this.#note),
      this.#video,
      el(
        "div",
        { class: "tile-bar" },
        el("span", { class: "tile-name" }, this.#mutedBadge, el("span", { class: "tile-label" }, name)),
        this.#mark,
      ),
    );
    this.setVideo(undefined);
    this.setMark(WAITING);
  }

  setVideo(track: MediaStreamTrack | undefined): void {
    this.#replace("video", track);
    this.element.classList.toggle("has-video", track !== undefined);
  }

  setAudio(track: MediaStreamTrack | undefined): void {
    this.#replace("audio", track);
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

  dispose(): void {
    this.#video.srcObject = null;
    this.element.remove();
  }

  #replace(kind: "audio" | "video", track: MediaStreamTrack | undefined): void {
    const present = kind === "audio" ? this.#media.getAudioTracks() : this.#media.getVideoTracks();
    if (present.length === (track ? 1 : 0) && present[0] === track) return;
    for (const old of present) this.#media.removeTrack(old);
    if (!track) return;
    this.#media.addTrack(track);
    // Refused only before the user's first gesture; joining was one.
    this.#video.play().catch(() => undefined);
  }
}

function avatar(name: string, kind: TileOptions["kind"]): HTMLElement {
  if (kind === "screen") return el("span", { class: "avatar" }, icon("screen"));
  const initials = name
    .split(/\s+/)
    .map((word) => word.charAt(0))
    .filter((char) => /[\p{L}\p{N}]/u.test(char))
    .slice(0, 2)
    .join("")
    .toUpperCase();
  return el("span", { class: "avatar" }, initials || icon("person"));
}

function visuallyHidden(text: string): HTMLElement {
  return el("span", { class: "visually-hidden" }, text);
}
