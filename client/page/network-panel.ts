/** The network figures beside the call, once a second while they are shown. */
import type { ReceiveStats, RoomStats, SendStats } from "../src/index.js";
import { el, fill } from "./dom.js";
import { icon } from "./icons.js";

const INTERVAL_MS = 1_000;

export interface NetworkSource {
  stats(): Promise<RoomStats>;
  nameOf(participant: string): string;
}

export class NetworkPanel {
  readonly element: HTMLElement;
  readonly #source: NetworkSource;
  readonly #body = el("div", { class: "panel-body" });
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(source: NetworkSource, close: () => void) {
    this.#source = source;
    this.element = el(
      "aside",
      { class: "panel", id: "network-panel", "aria-label": "Network figures", hidden: true },
      el(
        "header",
        { class: "panel-header" },
        el("h2", {}, "Network"),
        el("button", { type: "button", class: "icon-button", "aria-label": "Close", onclick: close }, icon("close")),
      ),
      this.#body,
    );
  }

  get shown(): boolean {
    return !this.element.hidden;
  }

  show(shown: boolean): void {
    this.element.hidden = !shown;
    clearInterval(this.#timer);
    if (!shown) return;
    const refresh = (): void => void this.#refresh();
    refresh();
    this.#timer = setInterval(refresh, INTERVAL_MS);
  }

  dispose(): void {
    clearInterval(this.#timer);
  }

  async #refresh(): Promise<void> {
    const stats = await this.#source.stats();
    const people = Map.groupBy(stats.receiving, ({ participant }) => participant);
    fill(
      this.#body,
      transport(stats),
      group("You, sending", stats.sending.map(sendRow)),
      ...[...people].map(([participant, tracks]) => group(this.#source.nameOf(participant), tracks.map(receiveRow))),
    );
  }
}

const LABELS = { audio: "Voice", camera: "Camera", screen: "Screen", imaging: "Imaging" } as const;

function transport({ transport: facts }: RoomStats): HTMLElement {
  return el(
    "section",
    { class: "panel-group" },
    el("h3", {}, "Path to the relay"),
    el(
      "dl",
      { class: "figures" },
      figure("Transport", facts.protocol?.toUpperCase() ?? "–"),
      figure("Round trip", ms(facts.rttMs)),
      figure("Hop encryption", facts.dtls ?? "–"),
      figure("SRTP profile", facts.srtpProfile ?? "–"),
    ),
  );
}

function group(title: string, rows: HTMLElement[]): HTMLElement {
  const content = rows.length > 0 ? rows : [el("p", { class: "muted" }, "Nothing at the moment.")];
  return el("section", { class: "panel-group" }, el("h3", {}, title), ...content);
}

function sendRow(stats: SendStats): HTMLElement {
  return row(stats, [figure("Round trip", ms(stats.rttMs))]);
}

function receiveRow(stats: ReceiveStats): HTMLElement {
  const opened = stats.seal ? stats.seal.opened.toLocaleString("en") : "–";
  return row(stats, [figure("Jitter", ms(stats.jitterMs)), figure("Frames opened", opened)]);
}

function row(stats: SendStats | ReceiveStats, more: HTMLElement[]): HTMLElement {
  const size = stats.width && stats.height ? `${stats.width} × ${stats.height}` : "–";
  const picture =
    stats.kind === "video"
      ? [figure("Picture", size), figure("Frames a second", stats.fps === null ? "–" : stats.fps.toFixed(0))]
      : [];
  return el(
    "div",
    { class: "panel-track" },
    el("h4", {}, LABELS[stats.source], el("span", { class: "muted" }, stats.codec ?? "")),
    el(
      "dl",
      { class: "figures" },
      ...picture,
      figure("Bit rate", bitrate(stats.bitrate)),
      figure("Loss", stats.lossRatio === null ? "–" : `${(stats.lossRatio * 100).toFixed(1)} %`),
      ...more,
    ),
  );
}

function figure(label: string, value: string): HTMLElement {
  return el("div", { class: "figure" }, el("dt", {}, label), el("dd", {}, value));
}

function ms(value: number | null): string {
  return value === null ? "–" : `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ms`;
}

function bitrate(value: number | null): string {
  if (value === null) return "–";
  return value >= 1e6 ? `${(value / 1e6).toFixed(2)} Mbit/s` : `${(value / 1e3).toFixed(0)} kbit/s`;
}
