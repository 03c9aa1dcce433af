/** What every page of the consult has around it. */
import { type Child, el } from "./dom.js";
import { brandMark, icon, type IconName } from "./icons.js";
import { themeButton } from "./theme.js";

export function brand(): HTMLElement {
  return el("div", { class: "brand" }, brandMark(), el("span", { class: "brand-name" }, "Sealcast"));
}

/** A page outside the call: brand and theme above, content in the middle, version below. */
export function plainPage(content: Child[], options: { version?: string; wide?: boolean } = {}): HTMLElement {
  return el(
    "div",
    { class: "plain-page" },
    el("header", { class: "plain-header" }, brand(), themeButton()),
    el("main", { class: options.wide ? "plain-main wide" : "plain-main", id: "main" }, ...content),
    el(
      "footer",
      { class: "plain-footer" },
      el("span", {}, "Sealed end to end with SFrame"),
      options.version ? el("span", {}, `Relay ${options.version}`) : undefined,
    ),
  );
}

export function notice(kind: "info" | "warning" | "danger", ...content: Child[]): HTMLElement {
  const name: IconName = kind === "info" ? "help" : "alert";
  return el("div", { class: `notice notice-${kind}` }, icon(name), el("div", {}, ...content));
}

export function developmentNotice(): HTMLElement {
  return notice(
    "warning",
    el("strong", {}, "This is a development relay."),
    " Anybody who reaches it can join any room on it. Do not use it for real consults.",
  );
}

/** A button that copies `text` and says so. */
export function copyButton(label: string, text: () => string): HTMLButtonElement {
  const caption = el("span", {}, label);
  const button = el("button", { type: "button", class: "button", onclick: () => void copy() }, icon("link"), caption);
  let timer: ReturnType<typeof setTimeout> | undefined;
  async function copy(): Promise<void> {
    caption.textContent = (await copyText(text())) ? "Copied" : "Copying failed";
    clearTimeout(timer);
    timer = setTimeout(() => {
      caption.textContent = label;
    }, 2_000);
  }
  caption.setAttribute("aria-live", "polite");
  return button;
}

/** @returns whether it worked; browsers refuse it without a recent gesture */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
