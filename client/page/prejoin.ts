/** Before the call: which camera and microphone, how one looks and sounds, and the link to share. */
import { type Link, formatLink } from "../src/index.js";
import { copyButton, developmentNotice, notice, plainPage } from "./chrome.js";
import { type DeviceKind, listDevices, meterLevel, openCamera, openMicrophone } from "./devices.js";
import { el, fill } from "./dom.js";
import { icon } from "./icons.js";
import type { RelayConfig } from "./relay.js";
import { plainDeviceError } from "./words.js";

export interface Choice {
  name: string;
  camera: MediaStreamTrack | undefined;
  microphone: MediaStreamTrack | undefined;
}

export interface Prejoin {
  element: HTMLElement;
  /** Stops the devices, unless they were handed over by joining. */
  dispose(): void;
}

type Device = "camera" | "microphone";

const LABELS: Record<Device, { title: string; kind: DeviceKind; on: "camera" | "mic"; off: "cameraOff" | "micOff" }> = {
  camera: { title: "Camera", kind: "videoinput", on: "camera", off: "cameraOff" },
  microphone: { title: "Microphone", kind: "audioinput", on: "mic", off: "micOff" },
};

export function prejoinPage(link: Link, config: RelayConfig, join: (choice: Choice) => void): Prejoin {
  const page = new PrejoinPage(link, config, join);
  return { element: page.element, dispose: () => page.dispose() };
}

class PrejoinPage {
  readonly element: HTMLElement;
  readonly #join: (choice: Choice) => void;
  readonly #tracks: Record<Device, MediaStreamTrack | undefined> = { camera: undefined, microphone: undefined };
  readonly #video = el("video", { class: "preview-video", autoplay: true, muted: true, playsinline: true });
  readonly #placeholder = el("div", { class: "preview-placeholder" }, icon("cameraOff"), el("span", {}, "Camera is off"));
  readonly #level = el("div", { class: "level-fill" });
  readonly #problem = el("div", { class: "device-problems", role: "alert" });
  readonly #problems = new Map<Device, string>();
  readonly #toggles: Record<Device, HTMLButtonElement>;
  readonly #selects: Record<Device, HTMLSelectElement>;
  readonly #name = el("input", {
    id: "own-name",
    type: "text",
    maxlength: 60,
    autocomplete: "name",
    placeholder: "For example Dr. Haas",
  });
  #stopMeter: (() => void) | undefined;
  #joined = false;
  #disposed = false;

  constructor(link: Link, config: RelayConfig, join: (choice: Choice) => void) {
    this.#join = join;
    this.#video.muted = true;
    this.#toggles = { camera: this.#toggle("camera"), microphone: this.#toggle("microphone") };
    this.#selects = { camera: this.#select("camera"), microphone: this.#select("microphone") };
    this.element = plainPage(
      [
        el(
          "div",
          { class: "prejoin-columns" },
          this.#previewSection(link, config),
          this.#formSection(link, config),
        ),
      ],
      { version: config.version, wide: true },
    );
    void this.#startAll();
  }

  dispose(): void {
    this.#disposed = true;
    this.#stopMeter?.();
    if (!this.#joined) for (const track of Object.values(this.#tracks)) track?.stop();
  }

  #previewSection(link: Link, config: RelayConfig): HTMLElement {
    return el(
      "section",
      { class: "preview", "aria-label": "Your camera and microphone" },
      el(
        "div",
        { class: "preview-frame" },
        this.#placeholder,
        this.#video,
        el("div", { class: "preview-controls" }, this.#toggles.microphone, this.#toggles.camera),
      ),
      el(
        "div",
        { class: "level-row" },
        icon("mic"),
        el("div", { class: "level", role: "img", "aria-label": "Microphone level" }, this.#level),
      ),
      this.#problem,
      link.key || config.groupKeys ? invitation(link) : undefined,
    );
  }

  #formSection(link: Link, config: RelayConfig): HTMLElement {
    const hasKeys = link.key !== undefined || config.groupKeys;
    const hint =
      link.key || !config.groupKeys
        ? "Stays on this device; others see a guest number."
        : "Sent sealed: the others in the consult see it, the relay does not.";
    const submit = (event: Event): void => {
      event.preventDefault();
      this.#joined = true;
      this.#join({ name: this.#name.value.trim(), ...this.#tracks });
    };
    return el(
      "form",
      { class: "card prejoin-form", onsubmit: submit },
      el("h1", {}, "Ready to join?"),
      config.development ? developmentNotice() : undefined,
      hasKeys ? undefined : missingKey(),
      field("own-name", "Your name", this.#name, hint),
      field("choose-microphone", "Microphone", this.#selects.microphone),
      field("choose-camera", "Camera", this.#selects.camera),
      el(
        "button",
        { type: "submit", class: "button primary large", id: "join" },
        el("span", {}, hasKeys ? "Join the consult" : "Join without a key"),
        icon("arrow"),
      ),
    );
  }

  #toggle(device: Device): HTMLButtonElement {
    return el("button", {
      type: "button",
      class: "round-button",
      onclick: () => void (this.#tracks[device] ? this.#stop(device) : this.#start(device)),
    });
  }

  #select(device: Device): HTMLSelectElement {
    return el("select", {
      id: `choose-${device}`,
      onchange: () => void this.#start(device, this.#selects[device].value),
    });
  }

  async #startAll(): Promise<void> {
    this.#draw();
    // One after the other: browsers ask for one permission at a time.
    await this.#start("microphone");
    await this.#start("camera");
  }

  async #start(device: Device, deviceId?: string): Promise<void> {
    this.#stop(device);
    this.#problems.delete(device);
    try {
      const track = await (device === "camera" ? openCamera(deviceId) : openMicrophone(deviceId));
      if (this.#disposed) {
        track.stop();
        return;
      }
      this.#tracks[device] = track;
      track.addEventListener("ended", () => {
        if (this.#tracks[device] === track) this.#stop(device);
      });
    } catch (error) {
      this.#problems.set(device, plainDeviceError(error, device));
    }
    await this.#fillSelect(device);
    this.#draw();
  }

  #stop(device: Device): void {
    this.#tracks[device]?.stop();
    this.#tracks[device] = undefined;
    this.#draw();
  }

  async #fillSelect(device: Device): Promise<void> {
    const devices = await listDevices(LABELS[device].kind);
    const current = this.#tracks[device]?.getSettings().deviceId;
    const options = devices.map(({ deviceId, label }, index) =>
      el("option", { value: deviceId, selected: deviceId === current }, label || `${LABELS[device].title} ${index + 1}`),
    );
    if (options.length === 0) options.push(el("option", { value: "" }, `No ${device} found`));
    fill(this.#selects[device], ...options);
    this.#selects[device].disabled = devices.length === 0;
  }

  #draw(): void {
    for (const device of ["camera", "microphone"] as const) {
      const { title, on, off } = LABELS[device];
      const active = this.#tracks[device] !== undefined;
      fill(this.#toggles[device], icon(active ? on : off));
      this.#toggles[device].setAttribute("aria-pressed", String(active));
      this.#toggles[device].setAttribute("aria-label", `${title}, ${active ? "on" : "off"}`);
      this.#toggles[device].title = `Turn the ${device} ${active ? "off" : "on"}`;
    }
    const { camera, microphone } = this.#tracks;
    this.#video.srcObject = camera ? new MediaStream([camera]) : null;
    this.#video.hidden = !camera;
    this.#placeholder.hidden = camera !== undefined;
    this.#stopMeter?.();
    this.#stopMeter = microphone ? meterLevel(microphone, (level) => this.#showLevel(level)) : undefined;
    if (!microphone) this.#showLevel(0);
    fill(this.#problem, ...[...this.#problems.values()].map((text) => notice("warning", text)));
  }

  #showLevel(level: number): void {
    this.#level.style.setProperty("--level", level.toFixed(2));
  }
}

function field(id: string, label: string, control: HTMLElement, hint?: string): HTMLElement {
  if (hint) control.setAttribute("aria-describedby", `${id}-hint`);
  return el(
    "div",
    { class: "field" },
    el("label", { for: id }, label),
    control,
    hint ? el("p", { class: "hint", id: `${id}-hint` }, hint) : undefined,
  );
}

function invitation(link: Link): HTMLElement {
  return el(
    "div",
    { class: "invitation" },
    el(
      "p",
      {},
      el("strong", {}, "Invite others. "),
      link.key
        ? "The link carries the key: send it only to people who belong in the consult, by a channel you trust."
        : "Whoever has the link can ask to join. You see who is in, and keys change as people come and go.",
    ),
    copyButton("Copy the link", () => formatLink(location.href, link)),
  );
}

function missingKey(): HTMLElement {
  return notice(
    "danger",
    el("strong", {}, "Your link has no key."),
    " You would see and hear nobody, and nobody would see or hear you. Open the complete link you were sent.",
  );
}
