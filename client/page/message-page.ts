/** Pages that say one thing: what went wrong, or that the consult is over. */
import { plainPage } from "./chrome.js";
import { type Child, el } from "./dom.js";
import { icon, type IconName } from "./icons.js";
import { plainError } from "./words.js";

export interface PageAction {
  label: string;
  primary?: boolean;
  run(): void;
}

export function errorPage(error: unknown, actions: { retry: () => void; home: () => void }): HTMLElement {
  const plain = plainError(error);
  const home: PageAction = { label: "Back to the start", run: actions.home };
  const retry: PageAction = { label: "Try again", primary: true, run: actions.retry };
  return messagePage("alert", plain.title, [el("p", {}, plain.text)], plain.retry ? [retry, home] : [home], plain.code);
}

export function leftPage(actions: { rejoin: () => void; home: () => void }): HTMLElement {
  return messagePage(
    "check",
    "You have left the consult",
    [el("p", {}, "Your camera and microphone are off, and nothing of you is sent any more.")],
    [
      { label: "Join again", primary: true, run: actions.rejoin },
      { label: "Back to the start", run: actions.home },
    ],
  );
}

function messagePage(
  name: IconName,
  title: string,
  text: Child[],
  actions: PageAction[],
  code?: string,
): HTMLElement {
  const heading = el("h1", { tabindex: "-1" }, title);
  queueMicrotask(() => heading.focus());
  return plainPage([
    el(
      "section",
      { class: `card message-card message-${name}`, ...(code ? { "data-code": code, role: "alert" } : {}) },
      el("div", { class: "message-icon" }, icon(name)),
      heading,
      ...text,
      el(
        "div",
        { class: "button-row" },
        ...actions.map(({ label, primary, run }) =>
          el("button", { type: "button", class: primary ? "button primary" : "button", onclick: run }, label),
        ),
      ),
      code ? el("p", { class: "error-code" }, "Code: ", el("code", {}, code)) : undefined,
    ),
  ]);
}
