/** The network figures beside the call, as often as they come while they are shown. */
import type { EncodingStats, ReceiveStats, RoomStats, SendStats } from "../src/index.js";
import { el, fill } from "./dom.js";
import { icon } from "./icons.js";

export class NetworkPanel {
  readonly element: HTMLElement;
  readonly #nameOf: (participant: string) => string;
  readonly #body = el("div", { class: "panel-body" });
  #newest: RoomStats | undefined;

  constructor(nameOf: (participant: string) => string, close: () => void) {
    this.#nameOf = nameOf;
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
    if (this.#newest) this.update(this.#newest);
  }

  update(stats: RoomStats): void {
    this.#newest = stats;
    if (!this.shown) return;
    const people = Map.groupBy(stats.receiving, ({ participant }) => participant);
    fill(
      this.#body,
      transport(stats),
      group("You, sending", stats.sending.map(sendRow)),
      ...[...people].map(([participant, tracks]) => group(this.#nameOf(participant), tracks.map(receiveRow))),
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
      figure("Estimate, to the relay", bitrate(facts.estimate)),
      figure("Estimate, from the relay", bitrate(facts.relayEstimate)),
      figure("Hop encryption", facts.dtls ?? "–"),
      figure("SRTP", facts.srtpProfile ?? "–"),
    ),
  );
}

function group(title: string, rows: HTMLElement[]): HTMLElement {
  const content = rows.length > 0 ? rows : [el("p", { class: "muted" }, "Nothing at the moment.")];
  return el("section", { class: "panel-group" }, el("h3", {}, title), ...content);
}

function sendRow(stats: SendStats): HTMLElement {
  const { encodings } = stats;
  const layers =
    encodings.length > 1
      ? encodings.map((encoding) => figure(`Layer ${encoding.rid ?? ""}`, layer(encoding)))
      : encodings.flatMap(({ scalabilityMode }) => (scalabilityMode ? [figure("Layers", scalabilityMode)] : []));
  const limitation = encodings.find((e) => e.active && e.limitation !== null && e.limitation !== "none")?.limitation;
  return row(stats, [
    ...layers,
    ...(limitation ? [figure("Held down by", LIMITATIONS[limitation] ?? limitation)] : []),
    ...(stats.kind === "video" ? [figure("Sent again", count(total(encodings, ({ repairs }) => repairs)))] : []),
    figure("Round trip", ms(stats.rttMs)),
  ]);
}

const LIMITATIONS: Readonly<Record<string, string>> = { bandwidth: "the connection", cpu: "this device" };

function layer({ active, width, height, bitrate: rate }: EncodingStats): string {
  if (!active) return "not needed";
  return width && height ? `${width} × ${height}, ${bitrate(rate)}` : "not sent";
}

function receiveRow(stats: ReceiveStats): HTMLElement {
  const opened = stats.seal ? stats.seal.opened.toLocaleString("en") : "–";
  const picture =
    stats.kind === "video"
      ? [
          figure("Stood still", freezes(stats)),
          figure("Repaired", `${count(stats.repaired)} of ${count(stats.nacks)} asked`),
          figure("Key frames asked", count(stats.keyFrameRequests)),
        ]
      : [];
  return row(stats, [figure("Jitter", ms(stats.jitterMs)), ...picture, figure("Frames opened", opened)]);
}

function freezes({ freezes: times, frozenMs }: ReceiveStats): string {
  if (times === null) return "–";
  return times === 0 ? "never" : `${times} ×, ${((frozenMs ?? 0) / 1_000).toFixed(1)} s`;
}

function total<T>(items: readonly T[], of: (item: T) => number | null): number | null {
  const known = items.flatMap((item) => of(item) ?? []);
  return known.length > 0 ? known.reduce((sum, value) => sum + value, 0) : null;
}

function count(value: number | null): string {
  return value === null ? "–" : value.toLocaleString("en");
}

function row(stats: SendStats | ReceiveStats, more: HTMLElement[]): HTMLElement {
  const size = stats.width && stats.height ? `${stats.width} × ${stats.height}` : "–";
  const paused = "paused" in stats && stats.paused;
  const picture =
    stats.kind === "video"
      ? [figure("Picture", paused ? "paused: does not fit" : size), figure("Frames a second", stats.fps === null ? "–" : stats.fps.toFixed(0))]
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
