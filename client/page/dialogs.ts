/** The dialogs of the call: what a tile's mark is made of, and the keyboard's shortcuts. */
import type { OpenCounters, SealCounters } from "../src/index.js";
import { el, fill } from "./dom.js";
import { icon } from "./icons.js";
import { MARK_ICONS, type Mark, formatKeyId, timeOfDay } from "./seal.js";

export const SHORTCUTS: readonly (readonly [string, string])[] = [
  ["M", "Microphone on or off"],
  ["V", "Camera on or off"],
  ["S", "Share the screen, or stop"],
  ["I", "Copy the invitation link"],
  ["P", "Who is in, and the code to compare"],
  ["C", "Show or hide the chat"],
  ["N", "Show or hide network figures"],
  ["?", "Show this list"],
  ["Shift + L", "Leave the consult"],
];

export function helpDialog(): HTMLDialogElement {
  const rows = SHORTCUTS.map(([keys, does]) =>
    el("div", { class: "shortcut" }, el("dt", {}, ...keys.split(" + ").map((key) => el("kbd", {}, key))), el("dd", {}, does)),
  );
  return dialog("help-title", "Keyboard", [el("dl", { class: "shortcuts" }, ...rows)]);
}

export interface SealDetails {
  name: string;
  mark: Mark;
  tracks: { label: string; opened?: OpenCounters | undefined; sealed?: SealCounters | null }[];
}

/** A dialog about one tile's seal that stays current: call `update` when counts arrive. */
export class SealDialog {
  readonly element: HTMLDialogElement;
  readonly #read: () => SealDetails | undefined;
  readonly #body = el("div", { class: "seal-details" });

  constructor(read: () => SealDetails | undefined) {
    this.#read = read;
    this.element = dialog("seal-title", "How this is sealed", [this.#body]);
    this.update();
  }

  update(): void {
    const details = this.#read();
    if (!details) {
      this.element.close();
      return;
    }
    const { name, mark, tracks } = details;
    fill(
      this.#body,
      el(
        "div",
        { class: "seal-verdict", "data-state": mark.state },
        icon(MARK_ICONS[mark.state]),
        el("div", {}, el("strong", {}, `${name}: ${mark.label}`), el("p", {}, mark.explanation)),
      ),
      ...tracks.map(({ label, opened, sealed }) =>
        el(
          "section",
          {},
          el("h3", {}, label),
          opened ? openTable(opened) : sealed ? sealTable(sealed) : el("p", { class: "muted" }, "Nothing yet."),
        ),
      ),
    );
  }
}

function openTable(counters: OpenCounters): HTMLElement {
  const rows: [string, string, boolean?][] = [
    ["Frames opened", format(counters.opened)],
    ["And saved by redundancy", format(counters.repeated)],
    ["Under a key you do not have", format(counters.unknownKey), counters.unknownKey > 0],
    ["Altered, or sealed with another key", format(counters.inauthentic), counters.inauthentic > 0],
    ["Of somebody else than this tile's owner", format(counters.misattributed), counters.misattributed > 0],
    ["Before it was known whose they are", format(counters.held)],
    ["Not sealed at all", format(counters.malformed), counters.malformed > 0],
    ["Copies left out", format(counters.duplicate)],
  ];
  if (counters.clear > 0) rows.push(["Shown without a seal", format(counters.clear), true]);
  rows.push(["Key id", formatKeyId(counters.keyId)], ["Like this since", timeOfDay(counters.since)]);
  return table(rows);
}

function sealTable(counters: SealCounters): HTMLElement {
  return table([
    ["Frames sealed", format(counters.sealed)],
    ["Held back for want of a key", format(counters.withheld), counters.withheld > 0],
    ...(counters.keyIds.length > 0 ? counters.keyIds : [null]).map((id): [string, string] => ["Key id", formatKeyId(id)]),
    ["Like this since", timeOfDay(counters.since)],
  ]);
}

function table(rows: readonly [string, string, boolean?][]): HTMLElement {
  return el(
    "dl",
    { class: "figures" },
    ...rows.map(([label, value, bad]) =>
      el("div", { class: bad ? "figure bad" : "figure" }, el("dt", {}, label), el("dd", {}, value)),
    ),
  );
}

export function dialog(titleId: string, title: string, content: Node[]): HTMLDialogElement {
  const close = (): void => element.close();
  const element = el(
    "dialog",
    { class: "dialog", "aria-labelledby": titleId },
    el(
      "header",
      { class: "dialog-header" },
      el("h2", { id: titleId }, title),
      el("button", { type: "button", class: "icon-button", "aria-label": "Close", onclick: close }, icon("close")),
    ),
    ...content,
  );
  element.addEventListener("close", () => element.remove());
  // A click on the backdrop hits the dialog itself, a click inside hits what it contains.
  element.addEventListener("click", (event) => {
    if (event.target === element) close();
  });
  document.body.append(element);
  element.showModal();
  return element;
}

function format(count: number): string {
  return count.toLocaleString("en");
}

