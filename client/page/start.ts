/** The start page: begin a consult (on a relay for development), or open a link. */
import { type Link, generateLinkKey, parseLink, SealcastError } from "../src/index.js";
import { brand, developmentNotice, notice, plainPage } from "./chrome.js";
import { el } from "./dom.js";
import { icon } from "./icons.js";
import type { RelayConfig } from "./relay.js";
import { plainError } from "./words.js";

export function startPage(config: RelayConfig, open: (link: Link) => void): HTMLElement {
  const points = [
    "Sealed on each person’s own device, and opened only there.",
    "The relay in between carries what it cannot read.",
    "Nothing to install, no account.",
  ];
  const hero = el(
    "section",
    { class: "hero" },
    el("h1", {}, "A private consult, sealed end to end"),
    el(
      "ul",
      { class: "hero-points" },
      ...points.map((text) => el("li", {}, icon("check"), el("span", {}, text))),
    ),
  );
  const actions = config.development
    ? [developmentNotice(), newConsult(config, open), separator(), joinByLink(open)]
    : [
        notice("info", "To join a consult, open the link your clinic sent you, or paste it here."),
        joinByLink(open),
      ];
  const card = el("section", { class: "card start-card", "aria-label": "Join" }, ...actions);
  return plainPage([el("div", { class: "start-columns" }, hero, card)], { version: config.version, wide: true });
}

/** What is shown where the relay cannot even say what it is. */
export function bootPage(): HTMLElement {
  return el("div", { class: "boot" }, brand(), el("p", { role: "status" }, "Reaching the relay…"));
}

function newConsult(config: RelayConfig, open: (link: Link) => void): HTMLElement {
  const text = config.groupKeys
    ? "You get a room and a link to it. Its keys change whenever somebody joins or leaves."
    : "You get a room and a link with its key. Whoever has the link can join.";
  return el(
    "div",
    { class: "start-action" },
    el("h2", {}, "Start a consult"),
    el("p", { class: "muted" }, text),
    el(
      "button",
      {
        type: "button",
        class: "button primary large",
        id: "new-consult",
        onclick: () => open(newLink(config)),
      },
      el("span", {}, "New consult"),
      icon("arrow"),
    ),
  );
}

function newLink({ groupKeys, issuer }: RelayConfig): Link {
  const room = randomRoom();
  if (!groupKeys) return { room, key: generateLinkKey() };
  return issuer ? { room, issuer } : { room };
}

function joinByLink(open: (link: Link) => void): HTMLElement {
  const input = el("input", {
    id: "join-link",
    type: "url",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: `${location.origin}/#room=…`,
    required: true,
    "aria-describedby": "join-link-error",
  });
  const error = el("p", { class: "field-error", id: "join-link-error", role: "alert" });
  function submit(event: Event): void {
    event.preventDefault();
    try {
      const hash = input.value.indexOf("#");
      const link = hash < 0 ? undefined : parseLink(input.value.slice(hash));
      if (link) open(link);
      else error.textContent = "This is not a link to a consult. A complete one has “#room=” in it.";
    } catch (cause) {
      if (!(cause instanceof SealcastError)) throw cause;
      error.textContent = plainError(cause).text;
    }
  }
  return el(
    "form",
    { class: "start-action", onsubmit: submit, novalidate: true },
    el("h2", {}, "Join with a link"),
    el("label", { for: "join-link", class: "visually-hidden" }, "Link to a consult"),
    el("div", { class: "input-row" }, input, el("button", { type: "submit", class: "button" }, "Join")),
    error,
  );
}

function separator(): HTMLElement {
  return el("div", { class: "separator", role: "separator" }, el("span", {}, "or"));
}

function randomRoom(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return `consult-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
