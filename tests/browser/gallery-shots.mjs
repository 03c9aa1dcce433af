/**
 * Takes pictures of the page's parts in the gallery (`npm run gallery` in client/), for people to
 * look at: `node gallery-shots.mjs http://127.0.0.1:4173 OUT [name…]`.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { launchChromium } from "./lib/browsers.mjs";

const [base, out, ...only] = process.argv.slice(2);
if (!base || !out) throw new Error("usage: node gallery-shots.mjs URL OUT [name…]");
mkdirSync(out, { recursive: true });

const DESKTOP = [1280, 800];
const PHONE = [390, 780];

/** Name, address, viewport, colours, and what to press first. */
const SHOTS = [
  ["start", "view=start", DESKTOP, "light"],
  ["start-dark", "view=start", DESKTOP, "dark"],
  ["start-production", "view=start&production=1", DESKTOP, "light"],
  ["start-phone", "view=start", PHONE, "light"],
  ["prejoin", "view=prejoin", DESKTOP, "light"],
  ["prejoin-dark", "view=prejoin", DESKTOP, "dark"],
  ["prejoin-phone", "view=prejoin", PHONE, "light"],
  ["call-1", "view=call&tiles=1", DESKTOP, "light"],
  ["call-3", "view=call&tiles=3", DESKTOP, "light"],
  ["call-3-dark", "view=call&tiles=3", DESKTOP, "dark"],
  ["call-9", "view=call&tiles=9", DESKTOP, "light"],
  ["call-9-dark-trouble", "view=call&tiles=9&broken=1&clear=1&state=reconnecting", DESKTOP, "dark"],
  ["call-16", "view=call&tiles=16", DESKTOP, "dark"],
  ["call-screen", "view=call&tiles=5&screen=1", DESKTOP, "light"],
  ["call-network", "view=call&tiles=4", DESKTOP, "light", "n"],
  ["call-quality", "view=call&tiles=4&paused=1&frozen=1&limited=1&speaking=2", DESKTOP, "light"],
  ["call-quality-dark", "view=call&tiles=9&paused=1&frozen=1&speaking=4", DESKTOP, "dark"],
  ["call-withheld", "view=call&tiles=5&withheld=1&speaking=0", DESKTOP, "light"],
  ["call-withheld-phone", "view=call&tiles=4&withheld=1&paused=1&speaking=1", PHONE, "dark"],
  ["call-pinned", "view=call&tiles=6&speaking=1", DESKTOP, "light", "click:.tile-person:nth-child(3) .tile-pin"],
  ["call-network-phone", "view=call&tiles=3", PHONE, "light", "n"],
  ["call-help", "view=call&tiles=3", DESKTOP, "light", "?"],
  ["call-chat", "view=call&tiles=4&group=1", DESKTOP, "light", "c"],
  ["call-chat-unread", "view=call&tiles=4&group=1", DESKTOP, "dark"],
  ["call-chat-phone", "view=call&tiles=3&group=1", PHONE, "light", "c"],
  ["call-annotations", "view=call&tiles=4&screen=1&group=1", DESKTOP, "dark", "c"],
  ["call-annotations-phone", "view=call&tiles=3&screen=1&group=1", PHONE, "dark"],
  ["call-phone-3", "view=call&tiles=3", PHONE, "light"],
  ["call-phone-9", "view=call&tiles=9", PHONE, "dark"],
  ["call-phone-screen", "view=call&tiles=4&screen=1", PHONE, "dark"],
  ["call-seal-details", "view=call&tiles=3&broken=1", DESKTOP, "light", "click:.tile-person .seal-mark"],
  ["error", "view=error&code=token_expired", DESKTOP, "light"],
  ["error-dark", "view=error&code=room_full", DESKTOP, "dark"],
  ["left-phone", "view=left", PHONE, "light"],
];

const browser = await launchChromium();
for (const [name, address, viewport, colours, action] of SHOTS) {
  if (only.length > 0 && !only.includes(name)) continue;
  const page = await browser.open(`${base}/?${address}&theme=${colours}`);
  await page.resize(...viewport);
  // Marks of quality take some samples.
  await new Promise((resolve) => setTimeout(resolve, address.includes("limited") ? 7_000 : 3_500));
  if (action?.startsWith("click:")) await page.click(action.slice("click:".length));
  else if (action) await page.press(action);
  await new Promise((resolve) => setTimeout(resolve, 400));
  await page.screenshot(join(out, `${name}.png`));
  if (page.errors.length > 0) console.log(name, page.errors);
  await page.close();
}
await browser.close();
