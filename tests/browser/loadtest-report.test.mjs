/**
 * The load tester's report in Chromium: the sample in the docs and one of a run just made. No error,
 * no request beyond the page itself, nothing cut off at a phone's width.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";
import { binary, startRelay } from "../lib/relay.mjs";

const root = path.resolve(import.meta.dirname, "../..");
const load = path.join(path.dirname(binary), "sealcast-load");
const PHONE = { width: 390, height: 844 };

/** Opens the page as a phone would, and returns what a test may ask. */
async function look(page, file) {
  const seen = { errors: [], requests: [] };
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("console", (message) => seen.errors.push(message.text()));
  page.on("request", (request) => seen.requests.push(request.url()));
  await page.setViewportSize(PHONE);
  await page.goto(pathToFileURL(file).href);
  const shots = process.env.SEALCAST_REPORT_SHOTS;
  if (shots) await page.screenshot({ path: path.join(shots, `${path.basename(file)}.png`), fullPage: true });
  return {
    ...seen,
    ...(await page.evaluate(() => ({
      width: document.documentElement.scrollWidth,
      title: document.title,
      plots: document.querySelectorAll("svg").length,
      text: document.body.innerText,
      /** Text squeezed to a few letters a line. */
      squeezed: [...document.querySelectorAll("td, th, p, li, figcaption")]
        .filter((e) => {
          const range = document.createRange();
          range.selectNodeContents(e);
          const lines = range.getBoundingClientRect().height / 18;
          return lines >= 4 && e.textContent.length / lines < 8;
        })
        .map((e) => e.textContent),
      /** Text so small that a phone does not show it. */
      tiny: [...document.querySelectorAll("svg text, td, th, p, li")]
        .filter((e) => e.textContent.trim() && e.getBoundingClientRect().height > 0)
        .filter((e) => {
          const scale = e.ownerSVGElement ? e.getScreenCTM().a : 1;
          return parseFloat(getComputedStyle(e).fontSize) * scale < 9;
        })
        .map((e) => e.textContent),
    }))),
  };
}

function check(seen, file) {
  assert.deepEqual(seen.errors, []);
  assert.deepEqual(seen.requests, [pathToFileURL(file).href], "a page of one file");
  assert.ok(seen.width <= PHONE.width, `${seen.width} px wide`);
  assert.ok(seen.plots >= 4, `${seen.plots} plots`);
  assert.deepEqual(seen.tiny, []);
  assert.deepEqual(seen.squeezed, []);
}

test("the report needs nothing but itself and fits a phone", async () => {
  const dir = mkdtempSync(path.join(tmpdir(), "sealcast-report-"));
  const html = path.join(dir, "report.html");
  const relay = await startRelay();
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, chromiumSandbox: false, args: ["--disable-gpu"] });
  try {
    const ran = await new Promise((resolve) => {
      const args = ["run", "consult", "--against", relay.url, "--duration", "5", "--html", html];
      execFile(load, args, (error, stdout) => resolve({ code: error?.code ?? 0, stdout }));
    });
    // Passed, missed or invalid: how fast this machine is does not matter to the page.
    assert.ok([0, 1, 2].includes(ran.code), ran.stdout);
    for (const file of [html, path.join(root, "docs/loadtest-sample.html")]) {
      const context = await browser.newContext({ offline: true });
      const seen = await look(await context.newPage(), file);
      check(seen, file);
      assert.match(seen.title, /consult/);
      assert.match(seen.text, /PASSED|TARGET MISSED|INVALID/);
      await context.close();
    }
  } finally {
    await browser.close();
    await relay.stop();
    rmSync(dir, { recursive: true, force: true });
  }
});
