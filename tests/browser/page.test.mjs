/** What people meet before and instead of a call: the pages around it, in both browsers. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launchChromium, launchFirefox } from "./lib/browsers.mjs";
import { newConsult } from "./lib/consult.mjs";
import { startRelay } from "./lib/relay.mjs";

let browsers;
let relay;

before(async () => {
  relay = await startRelay();
  browsers = await Promise.all([launchChromium(), launchFirefox()]);
});

after(async () => {
  for (const browser of browsers ?? []) await browser.close();
  await relay?.stop();
});

/** Runs `check` on `address` in each browser. */
async function inEach(address, check) {
  for (const browser of browsers) {
    const page = await browser.open(address);
    try {
      await check(page, browser);
    } finally {
      await page.close();
    }
  }
}

const shows = (text) => new Function(`return document.body.innerText.includes(${JSON.stringify(text)})`);

test("the start page comes up, and its own policy stops nothing that it needs", async () => {
  await inEach(relay.url, async (page) => {
    await page.waitFor("the start page", shows("A private consult"));
    assert.deepEqual(page.errors, []);
  });
});

test("a link that is damaged is refused before anything is asked of the relay", async () => {
  await inEach(`${relay.url}/#room=a&key=tooshort`, async (page) => {
    await page.waitFor("the error", () => Boolean(document.querySelector('[data-code="bad_link"]')));
  });
});

test("a token of another issuer's key leads to plain words, with the code for support", async () => {
  const other = await startRelay();
  try {
    const consult = newConsult();
    const address = consult.href({ url: relay.url, token: other.token });
    await inEach(address, async (page) => {
      await page.waitFor("the pre-join page", () => Boolean(document.querySelector("#join")));
      await page.click("#join");
      await page.waitFor("the error", () => Boolean(document.querySelector('[data-code="unauthorized"]')));
      assert.ok(await page.evaluate(shows("Your invitation was not accepted")));
    });
  } finally {
    await other.stop();
  }
});

test("a token for another room is told apart from a bad one", async () => {
  const consult = newConsult();
  const address = consult.href({ url: relay.url, token: () => relay.token("another-room") });
  await inEach(address, async (page) => {
    await page.waitFor("the pre-join page", () => Boolean(document.querySelector("#join")));
    await page.click("#join");
    await page.waitFor("the error", () => Boolean(document.querySelector('[data-code="wrong_room"]')));
  });
});

test("a browser without encoded transforms gets a clear word, and no way around it", async () => {
  for (const browser of browsers) {
    const page = await browser.open(newConsult().href(relay), () => {
      delete window.RTCRtpScriptTransform;
    });
    await page.waitFor("the error", () => Boolean(document.querySelector('[data-code="unsupported_browser"]')));
    assert.equal(await page.evaluate(() => document.querySelector("#join")), null);
    await page.close();
  }
});

test("everything on the pre-join page is reachable and named for the keyboard", async () => {
  await inEach(newConsult().href(relay), async (page) => {
    await page.waitFor("the pre-join page", () => Boolean(document.querySelector("#join")));
    const unnamed = await page.evaluate(() =>
      [...document.querySelectorAll("button, input, select")]
        .filter((control) => {
          const label = control.getAttribute("aria-label") ?? control.labels?.[0]?.textContent ?? control.textContent;
          return label.trim() === "" || control.tabIndex < 0;
        })
        .map((control) => control.outerHTML.slice(0, 120)),
    );
    assert.deepEqual(unnamed, []);
  });
});
