/** Single-key shortcuts of the call. */
import type { ControlName } from "./controls.js";

/** @returns what a key press asks for; nothing while typing, in dialogs, or with modifiers */
export function shortcutOf(event: KeyboardEvent): ControlName | undefined {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return undefined;
  const target = event.target;
  if (target instanceof Element && target.closest("input, select, textarea, dialog, [contenteditable]")) {
    return undefined;
  }
  if (event.key === "?") return "help";
  if (event.shiftKey) return event.key.toLowerCase() === "l" ? "leave" : undefined;
  switch (event.key.toLowerCase()) {
    case "m":
      return "microphone";
    case "v":
      return "camera";
    case "s":
      return "screen";
    case "i":
      return "invite";
    case "p":
      return "people";
    case "c":
      return "chat";
    case "n":
      return "network";
    default:
      return undefined;
  }
}
