/** The chat beside the call: sealed messages to everybody who is in. Nothing of it is kept. */
import { el, fill } from "./dom.js";
import { icon } from "./icons.js";
import { timeOfDay } from "./seal.js";
import { MAX_TEXT, cleanText } from "./talk.js";

/** Messages on the page; older ones go. */
const MAX_MESSAGES = 500;

export interface Author {
  name: string;
  /** The application's issuer vouches for the name. */
  verified: boolean;
}

export interface ChatHost {
  /** Sends a message; fails if it did not get through. */
  send(text: string): Promise<void>;
  close(): void;
  /** How many messages have come since the panel was last seen. */
  unread(count: number): void;
}

export class ChatPanel {
  readonly element: HTMLElement;
  readonly #host: ChatHost;
  readonly #log = el("ol", { class: "chat-log", role: "log", "aria-live": "polite", "aria-label": "Messages" });
  readonly #empty = el("p", { class: "muted chat-empty" }, "No messages yet.");
  readonly #input = el("textarea", {
    id: "chat-text",
    rows: 2,
    maxlength: MAX_TEXT,
    placeholder: "Message to everybody",
    "aria-describedby": "chat-note",
    autocomplete: "off",
  });
  #unread = 0;

  constructor(host: ChatHost) {
    this.#host = host;
    this.#input.addEventListener("keydown", (event) => {
      if (event.key === "Escape") host.close();
      // Enter that ends the composition of a character sends nothing.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#submit();
    });
    const form = el(
      "form",
      {
        class: "chat-form",
        onsubmit: (event) => {
          event.preventDefault();
          this.#submit();
        },
      },
      el("label", { for: "chat-text", class: "visually-hidden" }, "Message to everybody"),
      this.#input,
      el("button", { type: "submit", class: "button primary", id: "chat-send" }, "Send"),
    );
    this.element = el(
      "aside",
      { class: "panel chat", id: "chat-panel", "aria-label": "Chat", hidden: true },
      el(
        "header",
        { class: "panel-header" },
        el("h2", {}, "Chat"),
        el("button", { type: "button", class: "icon-button", "aria-label": "Close", onclick: () => host.close() }, icon("close")),
      ),
      el("div", { class: "panel-body chat-body" }, this.#empty, this.#log),
      el("p", { class: "chat-note muted", id: "chat-note" }, icon("lock"), "Sealed for those who are in now. Nothing is kept."),
      form,
    );
  }

  get shown(): boolean {
    return !this.element.hidden;
  }

  show(shown: boolean): void {
    this.element.hidden = !shown;
    if (!shown) return;
    this.#unread = 0;
    this.#host.unread(0);
    this.#scroll();
    this.#input.focus();
  }

  /** A message of somebody else. */
  receive(author: Author, text: string): void {
    this.#add(author, text);
    if (this.shown) return;
    this.#unread += 1;
    this.#host.unread(this.#unread);
  }

  #submit(): void {
    const text = cleanText(this.#input.value);
    if (text === "") return;
    this.#input.value = "";
    void this.#send(text, this.#add({ name: "You", verified: true }, text, true));
  }

  async #send(text: string, entry: HTMLElement): Promise<void> {
    entry.dataset["state"] = "sending";
    try {
      await this.#host.send(text);
      entry.dataset["state"] = "sent";
    } catch {
      entry.dataset["state"] = "failed";
      const again = el("button", { type: "button", class: "chat-again" }, "Not sent. Try again");
      again.addEventListener("click", () => {
        again.remove();
        void this.#send(text, entry);
      });
      entry.append(again);
      this.#scroll();
    }
  }

  #add({ name, verified }: Author, text: string, own = false): HTMLElement {
    const mark = own
      ? undefined
      : el(
          "span",
          { class: "chat-identity", "data-identity": verified ? "verified" : "unverified" },
          icon(verified ? "verified" : "alert"),
          el("span", { class: "visually-hidden" }, verified ? "verified" : "not verified"),
        );
    const entry = el(
      "li",
      { class: own ? "chat-message own" : "chat-message" },
      el("div", { class: "chat-head" }, el("span", { class: "chat-name" }, name), mark, el("time", {}, timeOfDay(Date.now()))),
      el("p", { class: "chat-text" }, text),
    );
    // Whoever reads further up is left there.
    const body = this.#log.parentElement;
    const atEnd = !body || body.scrollHeight - body.scrollTop - body.clientHeight < 60;
    this.#log.append(entry);
    while (this.#log.childElementCount > MAX_MESSAGES) this.#log.firstElementChild?.remove();
    this.#empty.hidden = true;
    if (own || atEnd) this.#scroll();
    return entry;
  }

  #scroll(): void {
    const body = this.#log.parentElement;
    if (body) body.scrollTop = body.scrollHeight;
  }
}

/** A number on a control: how much is unread. */
export function badge(control: HTMLElement | null, label: string, count: number): void {
  if (!control) return;
  control.querySelector(".control-badge")?.remove();
  control.setAttribute("aria-label", count === 0 ? label : `${label}, ${count} unread`);
  if (count === 0) return;
  const mark = el("span", { class: "control-badge", "aria-hidden": "true" });
  fill(mark, count > 99 ? "99+" : String(count));
  control.querySelector(".control-icon")?.append(mark);
}
