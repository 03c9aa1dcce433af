/**
 * Chromium and Firefox with fake cameras and microphones, behind one small interface:
 * `open(url, before) → page` with `evaluate`, `waitFor`, `screenshot`, `resize` and `close`.
 * `before` runs in the page ahead of its own scripts. Chromium's pages have `evaluateInWorker` too.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import puppeteer from "puppeteer-core";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FIREFOX = process.env.FIREFOX ?? "/usr/bin/firefox-esr";

const CHROMIUM_FLAGS = [
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
  "--allow-loopback-in-peer-connection",
  // Pages in the background must not be slowed down: all of them are in the call.
  "--disable-background-timer-throttling",
  "--disable-backgrounding-occluded-windows",
  "--disable-renderer-backgrounding",
];

const FIREFOX_PREFS = {
  "media.navigator.streams.fake": true,
  "media.navigator.permission.disabled": true,
  "media.peerconnection.ice.loopback": true,
  "media.peerconnection.ice.obfuscate_host_addresses": false,
  "media.autoplay.default": 0,
  "media.autoplay.blocking_policy": 0,
  "permissions.default.camera": 1,
  "permissions.default.microphone": 1,
  "network.connectivity-service.enabled": false,
  "network.captive-portal-service.enabled": false,
  "app.update.enabled": false,
  "datareporting.healthreport.uploadEnabled": false,
  "toolkit.telemetry.enabled": false,
  "media.gmp-manager.updateEnabled": false,
  "media.gmp-provider.enabled": false,
};

/** How often `waitFor` looks, in ms. */
const POLL_MS = 250;

/** @param inside the name of a network namespace to run in */
export async function launchChromium(flags = [], { inside } = {}) {
  const profile = mkdtempSync(join(tmpdir(), "sealcast-chromium-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: inside ? wrapper(profile, inside) : CHROMIUM,
    headless: true,
    chromiumSandbox: false,
    args: [...CHROMIUM_FLAGS, ...flags],
    viewport: { width: 1280, height: 800 },
  });
  return {
    name: "chromium",
    async open(url, before) {
      const page = await context.newPage();
      const errors = listen(page);
      if (before) await page.addInitScript(before);
      await page.goto(url);
      return wrap(page, errors, {
        resize: (width, height) => page.setViewportSize({ width, height }),
        scheme: (colorScheme) => page.emulateMedia({ colorScheme }),
        /** Runs `script` in the page's only worker, which holds the keys. */
        evaluateInWorker: (script, argument) => page.workers()[0].evaluate(script, argument),
      });
    },
    async close() {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}

/**
 * Chromium as people have it: of its tabs only the one in front is visible. (Playwright has every
 * page believe that it is in front.) Its pages have `toFront`.
 */
export async function launchChromiumWithTabs(flags = []) {
  const browser = await puppeteer.launch({
    executablePath: CHROMIUM,
    headless: true,
    args: ["--no-sandbox", ...CHROMIUM_FLAGS, ...flags],
    defaultViewport: { width: 1280, height: 800 },
  });
  return {
    name: "chromium with tabs",
    async open(url, before) {
      const page = await browser.newPage();
      const errors = listen(page);
      if (before) await page.evaluateOnNewDocument(before);
      await page.goto(url);
      return wrap(page, errors, { toFront: () => page.bringToFront() });
    },
    close: () => browser.close(),
  };
}

/** A program that is the browser in a network namespace. */
function wrapper(directory, namespace) {
  const path = join(directory, "chromium-inside");
  writeFileSync(path, `#!/bin/sh\nexec ip netns exec ${namespace} ${CHROMIUM} "$@"\n`, { mode: 0o755 });
  return path;
}

export async function launchFirefox(prefs = {}) {
  const browser = await puppeteer.launch({
    browser: "firefox",
    executablePath: FIREFOX,
    headless: true,
    extraPrefsFirefox: { ...FIREFOX_PREFS, ...prefs },
  });
  return {
    name: "firefox",
    async open(url, before) {
      const page = await browser.newPage();
      const errors = listen(page);
      if (before) await page.evaluateOnNewDocument(before);
      await page.goto(url);
      return wrap(page, errors, {
        resize: (width, height) => page.setViewport({ width, height }),
        scheme: (value) => page.emulateMediaFeatures([{ name: "prefers-color-scheme", value }]),
      });
    },
    close: () => browser.close(),
  };
}

/** Collects what the page complains about, for failing tests to show. */
function listen(page) {
  const errors = [];
  page.on("console", (message) => {
    if (["error", "warn", "warning"].includes(message.type())) errors.push(message.text());
  });
  page.on("pageerror", (error) => errors.push(String(error)));
  return errors;
}

function wrap(page, errors, special) {
  return {
    errors,
    ...special,
    evaluate: (script, argument) => page.evaluate(script, argument),
    click: (selector) => page.click(selector),
    type: (selector, text) => page.type(selector, text),
    press: (key) => page.keyboard.press(key),
    screenshot: (path) => page.screenshot({ path }),
    close: () => page.close(),
    /** Waits until `script` returns something true, and returns that. */
    async waitFor(what, script, argument, timeoutMs = 60_000) {
      const deadline = performance.now() + timeoutMs;
      for (;;) {
        const value = await page.evaluate(script, argument);
        if (value) return value;
        if (performance.now() > deadline) {
          const shown = await page.evaluate(() => document.body.innerText.slice(0, 800));
          throw new Error(`waited ${timeoutMs} ms for ${what}\npage: ${shown}\nconsole: ${errors.join("\n")}`);
        }
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      }
    },
  };
}
