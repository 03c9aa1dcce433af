import assert from "node:assert/strict";
import { test } from "node:test";
import { MIN_TILE_WIDTH, fitGrid } from "../page/layout.js";
import { STALLED_MS, callMark, formatKeyId, markOf, ownMark, timeOfDay } from "../page/seal.js";
import { troubleWords } from "../page/trouble.js";
import type { OpenCounters, OpenState } from "../src/e2ee/messages.js";

const NOW = 1_000_000;

const sealIn = (state: OpenState): OpenCounters => ({
  opened: state === "open" ? 100 : 0,
  repeated: 0,
  unknownKey: 0,
  inauthentic: 0,
  misattributed: 0,
  held: 0,
  malformed: 0,
  duplicate: 0,
  empty: 0,
  clear: 0,
  keyId: null,
  lastOpened: state === "open" ? NOW : null,
  state,
  since: 0,
});
const tile = (...states: OpenState[]): { seal: OpenCounters; muted: boolean }[] =>
  states.map((state) => ({ seal: sealIn(state), muted: false }));

test("a tile's mark is the worst that holds for any of its tracks", () => {
  assert.equal(markOf(tile("open", "open"), true, NOW).state, "sealed");
  assert.equal(markOf(tile("open", "waiting"), true, NOW).state, "sealed");
  assert.equal(markOf(tile("open", "failing"), true, NOW).state, "broken");
  assert.equal(markOf(tile("failing", "clear"), true, NOW).state, "clear");
  assert.equal(markOf(tile("waiting"), true, NOW).state, "waiting");
  assert.equal(markOf([], true, NOW).state, "waiting");
});

test("a mark claims nothing that no frame has shown", () => {
  assert.equal(markOf([{ seal: undefined, muted: false }], true, NOW).state, "waiting");
  assert.equal(markOf([{ seal: undefined, muted: true }], true, NOW).state, "waiting");
  assert.equal(markOf([{ seal: sealIn("open"), muted: false, blocked: "unsealed" }], true, NOW).state, "broken");
  assert.match(markOf(tile("failing"), false, NOW).explanation, /no key/);
  assert.equal(ownMark([], false).state, "broken");
  assert.equal(ownMark([null], true).state, "waiting");
});

test("frames that stopped coming are not called live, silence beside a live picture is", () => {
  const stale = { ...sealIn("open"), lastOpened: NOW - STALLED_MS - 1 };
  assert.equal(markOf([{ seal: stale, muted: false }], true, NOW).label, "Stalled");
  assert.equal(markOf([{ seal: stale, muted: false }, ...tile("open")], true, NOW).state, "sealed");
  assert.equal(markOf([{ seal: stale, muted: true }], true, NOW).state, "sealed");
  const withheld = { seal: stale, muted: false, withheld: true };
  assert.equal(markOf([withheld], true, NOW).label, "Not received");
  assert.equal(markOf([withheld, { seal: stale, muted: false }], true, NOW).label, "Stalled");
  assert.equal(markOf([withheld, ...tile("open")], true, NOW).state, "sealed");
});

test("the call is sealed only if every tile is", () => {
  const marks = (...tiles: OpenState[]) => tiles.map((state) => markOf(tile(state), true, NOW));
  assert.equal(callMark(marks("open", "open")).state, "sealed");
  assert.equal(callMark(marks("open", "failing")).label, "1 tile cannot be opened");
  assert.equal(callMark(marks("open", "failing", "clear")).state, "clear");
  assert.equal(callMark([]).state, "waiting");
});

test("key ids are grouped for comparing", () => {
  assert.equal(formatKeyId("abc1234def5678"), "00ab c123 4def 5678");
  assert.equal(formatKeyId(null), "none yet");
});

test("tiles always fit the stage, or fill its width and scroll", () => {
  for (const [width, height] of [[1400, 760], [390, 640], [800, 600], [300, 200], [1200, 300]] as const) {
    for (let count = 1; count <= 40; count++) {
      const fit = fitGrid(count, width, height, 10);
      const usedWidth = fit.columns * fit.width + (fit.columns - 1) * 10;
      const usedHeight = fit.rows * fit.height + (fit.rows - 1) * 10;
      assert.ok(fit.columns * fit.rows >= count);
      assert.ok(usedWidth <= width, `${count} tiles in ${width}×${height} are too wide`);
      assert.ok(fit.width >= MIN_TILE_WIDTH, `${count} tiles in ${width}×${height} are too narrow`);
      if (usedHeight > height) {
        const next = Math.ceil(count / Math.max(1, fit.columns)) * (MIN_TILE_WIDTH * 9) / 16;
        assert.ok(next > height || usedWidth > width - MIN_TILE_WIDTH - 10);
      }
    }
  }
});

test("one tile fills the stage, nine stand three by three on a desktop", () => {
  assert.deepEqual(fitGrid(1, 1600, 900, 10), { columns: 1, rows: 1, width: 1600, height: 900 });
  const nine = fitGrid(9, 1400, 760, 10);
  assert.deepEqual([nine.columns, nine.rows], [3, 3]);
  const phone = fitGrid(3, 390, 640, 8);
  assert.equal(phone.columns, 1);
});

test("who cannot open whom is said once for each person, since the earliest", () => {
  const at = (seconds: number): number => new Date(2026, 0, 1, 10, 0, seconds).getTime();
  const [incoming, outgoing] = troubleWords(
    [
      { name: "Ada", source: "camera", since: at(5) },
      { name: "Ada", source: "audio", since: at(3) },
    ],
    [{ name: "Ben", source: "screen", since: at(9) }],
  );
  assert.ok(incoming?.startsWith(`You cannot open Ada’s camera and voice since ${timeOfDay(at(3))}.`), incoming);
  assert.ok(outgoing?.startsWith(`Ben cannot open your screen since ${timeOfDay(at(9))}.`), outgoing);
  assert.deepEqual(troubleWords([], []), []);
});
