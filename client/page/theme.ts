/** Light and dark: as the system says, until the user says otherwise. */
import { el, fill } from "./dom.js";
import { icon } from "./icons.js";

const STORAGE_KEY = "sealcast-theme";
type Theme = "light" | "dark";

const systemDark = matchMedia("(prefers-color-scheme: dark)");

/** Applies the remembered choice; call once, before anything is drawn. */
export function applyTheme(): void {
  const chosen = remembered();
  if (chosen) document.documentElement.dataset["theme"] = chosen;
}

export function themeButton(): HTMLButtonElement {
  const button = el("button", { type: "button", class: "icon-button", onclick: toggle });
  function draw(): void {
    const other = current() === "dark" ? "light" : "dark";
    fill(button, icon(other === "dark" ? "moon" : "sun"));
    button.setAttribute("aria-label", `Switch to ${other} colours`);
    button.title = `Switch to ${other} colours`;
  }
  function toggle(): void {
    const other = current() === "dark" ? "light" : "dark";
    document.documentElement.dataset["theme"] = other;
    try {
      localStorage.setItem(STORAGE_KEY, other);
    } catch {
      // Storage may be forbidden; the choice then lasts as long as the page.
    }
    draw();
  }
  draw();
  return button;
}

function current(): Theme {
  const chosen = document.documentElement.dataset["theme"];
  if (chosen === "light" || chosen === "dark") return chosen;
  return systemDark.matches ? "dark" : "light";
}

function remembered(): Theme | undefined {
  try {
    const stored = localStorage.getItem(STORAGE_KEY);
    return stored === "light" || stored === "dark" ? stored : undefined;
  } catch {
    return undefined;
  }
}
