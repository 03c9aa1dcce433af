// Looks for byte strings in a process's memory and in the files it wrote.

import { closeSync, openSync, readFileSync, readSync } from "node:fs";

const CHUNK = 8 * 1024 * 1024;

/**
 * Counts the occurrences of each needle in the readable memory of a process.
 * Needs the right to trace it: root, or a descendant of this process.
 * @param {number} pid
 * @param {Record<string, Buffer>} needles at least 8 bytes each
 * @returns {{counts: Record<string, number>, scanned: number}} `scanned` in bytes
 */
export function scanMemory(pid, needles) {
  const counts = Object.fromEntries(Object.keys(needles).map((name) => [name, 0]));
  const overlap = Math.max(...Object.values(needles).map((needle) => needle.length)) - 1;
  const fd = openSync(`/proc/${pid}/mem`, "r");
  const buffer = Buffer.alloc(CHUNK + overlap);
  let scanned = 0;
  try {
    for (const [start, end] of regions(pid)) {
      // Each chunk is read with the overlap of its successor, and only matches that start in the
      // chunk proper count, so that none is missed or counted twice.
      for (let at = start; at < end; at += CHUNK) {
        const want = Math.min(CHUNK + overlap, end - at);
        let got = 0;
        try {
          got = readSync(fd, buffer, 0, want, at);
        } catch {
          continue; // a guard page or device mapping
        }
        scanned += Math.min(got, CHUNK);
        const view = buffer.subarray(0, got);
        for (const [name, needle] of Object.entries(needles)) {
          for (let i = view.indexOf(needle); i >= 0 && i < CHUNK; i = view.indexOf(needle, i + 1)) counts[name]++;
        }
      }
    }
  } finally {
    closeSync(fd);
  }
  return { counts, scanned };
}

function* regions(pid) {
  for (const line of readFileSync(`/proc/${pid}/maps`, "utf8").split("\n")) {
    const match = /^([0-9a-f]+)-([0-9a-f]+) r\S+ \S+ \S+ \S+\s*(.*)$/.exec(line);
    if (!match || match[3] === "[vvar]" || match[3] === "[vsyscall]") continue;
    yield [parseInt(match[1], 16), parseInt(match[2], 16)];
  }
}
