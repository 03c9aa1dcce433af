/**
 * Pointing and drawing on shared pictures. Everything stands over the picture, in fractions of it,
 * and crosses sealed; the picture itself is never touched.
 */
import { el } from "./dom.js";
import { MAX_POINTS, type Point, type Talk } from "./talk.js";

type Tool = "point" | "draw";

export interface AnnotationHost {
  /** Tells the others; what does not get through is out of date in a moment anyway. */
  tell(talk: Talk): void;
  nameOf(participant: string): string;
}

/** How often a pointer's position or new points of a line go out: within 20 messages a second. */
const SEND_INTERVAL_MS = 70;

/** A pointer that has not moved for this long is taken away: its owner's last word may be lost. */
const POINTER_MS = 5_000;

/** How far an arrow key moves the pointer. */
const KEY_STEP = 0.02;

/** Lines of one person on one picture, and points of all of a person's lines there. */
const MAX_STROKES = 200;
const MAX_STROKE_POINTS = 10_000;

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = ["#ffb454", "#6fd3ff", "#b6f09c", "#ff9ec7", "#d2b4ff", "#fff275"];

/** What stands over one picture. */
class Overlay {
  readonly #host: AnnotationHost;
  readonly #track: string;
  readonly #video: HTMLVideoElement;
  readonly #layer = el("div", { class: "annotations", role: "application", "aria-label": "Pointing and drawing" });
  readonly #lines = document.createElementNS(SVG, "svg");
  readonly #tools = el("div", { class: "annotation-tools", role: "group", "aria-label": "Point and draw" });
  readonly #buttons = new Map<Tool, HTMLButtonElement>();
  readonly #pointers = new Map<string, { dot: HTMLElement; timer: ReturnType<typeof setTimeout> }>();
  /** By author and number of the line. */
  readonly #strokes = new Map<string, { line: SVGPolylineElement; points: Point[] }>();
  readonly #observer = new ResizeObserver(() => this.#fit());
  #tool: Tool | undefined;
  #stroke = 0;
  #drawing = false;
  #unsent: Point[] = [];
  #at: Point = [0.5, 0.5];
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(host: AnnotationHost, track: string, tile: HTMLElement) {
    this.#host = host;
    this.#track = track;
    this.#video = tile.querySelector("video") ?? el("video");
    this.#lines.setAttribute("viewBox", "0 0 1 1");
    this.#lines.setAttribute("preserveAspectRatio", "none");
    this.#lines.setAttribute("aria-hidden", "true");
    this.#layer.append(this.#lines);
    for (const [tool, label] of [["point", "Point"], ["draw", "Draw"]] as const) {
      const button = el("button", { type: "button", "aria-pressed": "false", onclick: () => this.#choose(tool) }, label);
      this.#buttons.set(tool, button);
      this.#tools.append(button);
    }
    this.#tools.append(el("button", { type: "button", onclick: () => this.#clearOwn() }, "Clear mine"));
    tile.append(this.#layer, this.#tools);
    this.#video.addEventListener("resize", this.#onResize);
    this.#observer.observe(tile);
    this.#listen();
    this.#fit();
  }

  dispose(): void {
    clearTimeout(this.#timer);
    for (const { timer } of this.#pointers.values()) clearTimeout(timer);
    this.#observer.disconnect();
    this.#video.removeEventListener("resize", this.#onResize);
    this.#layer.remove();
    this.#tools.remove();
  }

  /** Draws what `author` did; the empty author is this page's own user. */
  show(author: string, talk: Talk): void {
    if (talk.kind === "pointer") this.#showPointer(author, talk.at);
    else if (talk.kind === "stroke") this.#extend(author, talk.stroke, talk.points);
    else if (talk.kind === "clear") this.clear(author);
  }

  /** Takes away what somebody drew, and where they point. */
  clear(author: string): void {
    for (const [key, { line }] of this.#strokes) {
      if (!key.startsWith(`${author} `)) continue;
      line.remove();
      this.#strokes.delete(key);
    }
    this.#showPointer(author, null);
  }

  #onResize = (): void => this.#fit();

  /** Lays the overlay over the picture proper, which may have bars beside it. */
  #fit(): void {
    const { clientWidth, clientHeight, videoWidth, videoHeight } = this.#video;
    const shown = videoWidth > 0 && videoHeight > 0;
    const scale = shown ? Math.min(clientWidth / videoWidth, clientHeight / videoHeight) : 0;
    const [width, height] = shown ? [videoWidth * scale, videoHeight * scale] : [clientWidth, clientHeight];
    this.#layer.style.width = `${width}px`;
    this.#layer.style.height = `${height}px`;
    this.#layer.style.left = `${(clientWidth - width) / 2}px`;
    this.#layer.style.top = `${(clientHeight - height) / 2}px`;
  }

  #listen(): void {
    const layer = this.#layer;
    layer.addEventListener("pointermove", (event) => {
      const at = this.#pointOf(event);
      if (this.#tool === "point") this.#point(at);
      else if (this.#drawing) this.#draw(at);
    });
    layer.addEventListener("pointerdown", (event) => {
      const at = this.#pointOf(event);
      if (this.#tool === "point") this.#point(at);
      if (this.#tool !== "draw") return;
      layer.setPointerCapture(event.pointerId);
      this.#flush();
      this.#stroke += 1;
      this.#drawing = true;
      this.#draw(at);
    });
    for (const name of ["pointerup", "pointercancel"] as const) {
      layer.addEventListener(name, () => {
        this.#drawing = false;
        this.#flush();
      });
    }
    layer.addEventListener("pointerleave", () => {
      if (this.#tool === "point") this.#host.tell({ kind: "pointer", track: this.#track, at: null });
    });
    layer.addEventListener("keydown", (event) => this.#onKey(event));
  }

  #onKey(event: KeyboardEvent): void {
    const moves: Record<string, Point> = {
      ArrowLeft: [-KEY_STEP, 0],
      ArrowRight: [KEY_STEP, 0],
      ArrowUp: [0, -KEY_STEP],
      ArrowDown: [0, KEY_STEP],
    };
    const move = moves[event.key];
    if (event.key === "Escape") this.#choose(undefined);
    if (!move || this.#tool !== "point") return;
    event.preventDefault();
    const [x, y] = this.#at;
    this.#point([clamp(x + move[0]), clamp(y + move[1])]);
    this.show("", { kind: "pointer", track: this.#track, at: this.#at });
  }

  #choose(tool: Tool | undefined): void {
    if (this.#tool === "point") this.#host.tell({ kind: "pointer", track: this.#track, at: null });
    this.#tool = this.#tool === tool ? undefined : tool;
    for (const [name, button] of this.#buttons) button.setAttribute("aria-pressed", String(name === this.#tool));
    this.#layer.dataset["tool"] = this.#tool ?? "";
    if (this.#tool) this.#layer.tabIndex = 0;
    else this.#layer.removeAttribute("tabindex");
    if (this.#tool === "point") this.#layer.focus();
  }

  #point(at: Point): void {
    this.#at = at;
    this.#later();
  }

  #draw(at: Point): void {
    this.#unsent.push(at);
    this.#extend("", this.#stroke, [at]);
    if (this.#unsent.length >= MAX_POINTS) this.#flush();
    this.#later();
  }

  #later(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      if (this.#tool === "point") this.#host.tell({ kind: "pointer", track: this.#track, at: this.#at });
      this.#flush();
    }, SEND_INTERVAL_MS);
  }

  #flush(): void {
    if (this.#unsent.length === 0) return;
    const points = this.#unsent;
    this.#unsent = [];
    this.#host.tell({ kind: "stroke", track: this.#track, stroke: this.#stroke, points });
  }

  #clearOwn(): void {
    this.#unsent = [];
    this.clear("");
    this.#host.tell({ kind: "clear", track: this.#track });
  }

  #pointOf(event: PointerEvent): Point {
    const { left, top, width, height } = this.#layer.getBoundingClientRect();
    return [round(clamp((event.clientX - left) / width)), round(clamp((event.clientY - top) / height))];
  }

  #showPointer(author: string, at: Point | null): void {
    const known = this.#pointers.get(author);
    clearTimeout(known?.timer);
    if (at === null) {
      known?.dot.remove();
      this.#pointers.delete(author);
      return;
    }
    const name = author === "" ? "You" : this.#host.nameOf(author);
    const dot = known?.dot ?? el("div", { class: "annotation-pointer", "data-author": author }, el("span", {}, name));
    dot.style.left = `${at[0] * 100}%`;
    dot.style.top = `${at[1] * 100}%`;
    dot.style.setProperty("--author", colourOf(author));
    if (!known) this.#layer.append(dot);
    const timer = setTimeout(() => this.#showPointer(author, null), POINTER_MS);
    this.#pointers.set(author, { dot, timer });
  }

  #extend(author: string, number: number, points: readonly Point[]): void {
    const key = `${author} ${number}`;
    let stroke = this.#strokes.get(key);
    if (!stroke) {
      const own = [...this.#strokes].filter(([other]) => other.startsWith(`${author} `));
      const total = own.reduce((sum, [, { points }]) => sum + points.length, 0);
      if (own.length >= MAX_STROKES || total >= MAX_STROKE_POINTS) return;
      const line = document.createElementNS(SVG, "polyline");
      line.setAttribute("vector-effect", "non-scaling-stroke");
      line.setAttribute("stroke", colourOf(author));
      this.#lines.append(line);
      stroke = { line, points: [] };
      this.#strokes.set(key, stroke);
    }
    if (stroke.points.length + points.length > MAX_STROKE_POINTS) return;
    stroke.points.push(...points);
    stroke.line.setAttribute("points", stroke.points.map(([x, y]) => `${x},${y}`).join(" "));
  }
}

/** The overlays of a call, by the track whose picture they stand over. */
export class Annotations {
  readonly #host: AnnotationHost;
  readonly #overlays = new Map<string, Overlay>();

  constructor(host: AnnotationHost) {
    this.#host = host;
  }

  /** `tile` shows `track` from here on. */
  attach(track: string, tile: HTMLElement): void {
    if (!this.#overlays.has(track)) this.#overlays.set(track, new Overlay(this.#host, track, tile));
  }

  detach(track: string): void {
    this.#overlays.get(track)?.dispose();
    this.#overlays.delete(track);
  }

  /** Somebody else pointed or drew. */
  show(author: string, talk: Exclude<Talk, { kind: "chat" }>): void {
    this.#overlays.get(talk.track)?.show(author, talk);
  }

  /** Somebody has left, and so has what they drew. */
  forget(author: string): void {
    for (const overlay of this.#overlays.values()) overlay.clear(author);
  }

  dispose(): void {
    for (const track of [...this.#overlays.keys()]) this.detach(track);
  }
}

function clamp(value: number): number {
  return Math.min(1, Math.max(0, value));
}

/** Four digits place a point to a tenth of a pixel. */
function round(value: number): number {
  return Math.round(value * 10_000) / 10_000;
}

/** The same for all pages, but for one's own. */
function colourOf(author: string): string {
  let sum = 0;
  for (const char of author) sum = (sum * 31 + char.charCodeAt(0)) >>> 0;
  return (author === "" ? undefined : COLOURS[sum % COLOURS.length]) ?? "#ff7a59";
}
