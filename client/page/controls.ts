/** The bar of buttons under the call. */
import { el, fill } from "./dom.js";
import { icon, type IconName } from "./icons.js";

export type ControlName = "microphone" | "camera" | "screen" | "invite" | "people" | "chat" | "network" | "help" | "leave";

interface ControlSpec {
  name: ControlName;
  label: string;
  icon: IconName;
  /** Icon while off, for controls that are on or off. */
  offIcon?: IconName;
  shortcut: string;
}

const CONTROLS: readonly ControlSpec[] = [
  { name: "microphone", label: "Microphone", icon: "mic", offIcon: "micOff", shortcut: "M" },
  { name: "camera", label: "Camera", icon: "camera", offIcon: "cameraOff", shortcut: "V" },
  { name: "screen", label: "Share screen", icon: "screen", shortcut: "S" },
  { name: "invite", label: "Invite", icon: "link", shortcut: "I" },
  { name: "people", label: "People", icon: "people", shortcut: "P" },
  { name: "chat", label: "Chat", icon: "chat", shortcut: "C" },
  { name: "network", label: "Network", icon: "chart", shortcut: "N" },
  { name: "help", label: "Keyboard", icon: "help", shortcut: "?" },
  { name: "leave", label: "Leave", icon: "leave", shortcut: "Shift + L" },
];

export class Controls {
  readonly element: HTMLElement;
  readonly #buttons = new Map<ControlName, HTMLButtonElement>();

  constructor(available: (name: ControlName) => boolean, run: (name: ControlName) => void) {
    const buttons = CONTROLS.filter(({ name }) => available(name)).map((spec) => {
      const button = el(
        "button",
        {
          type: "button",
          class: `control control-${spec.name}`,
          id: `control-${spec.name}`,
          title: `${spec.label} (${spec.shortcut})`,
          onclick: () => run(spec.name),
        },
        el("span", { class: "control-icon" }, icon(spec.icon)),
        el("span", { class: "control-label" }, spec.label),
      );
      this.#buttons.set(spec.name, button);
      return button;
    });
    this.element = el("div", { class: "controls", role: "group", "aria-label": "Call" }, ...buttons);
  }

  button(name: ControlName): HTMLButtonElement | null {
    return this.#buttons.get(name) ?? null;
  }

  setPressed(name: ControlName, pressed: boolean): void {
    const button = this.#buttons.get(name);
    const spec = CONTROLS.find((candidate) => candidate.name === name);
    if (!button || !spec) return;
    button.setAttribute("aria-pressed", String(pressed));
    const holder = button.querySelector(".control-icon");
    if (holder && spec.offIcon) fill(holder, icon(pressed ? spec.icon : spec.offIcon));
  }
}
