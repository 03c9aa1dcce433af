/**
 * Recording which frames a page really gets from a track, by their RTP timestamps: gaps between
 * them are gaps in what was sent or decoded, however slow the machine is.
 */

const CLOCK_RATE = 90_000;

/** Starts recording the picture that a tile shows. */
export function recordTile(page, tile) {
  return page.evaluate((tile) => {
    const track = document.querySelector(`[data-tile="${tile}"] video`)?.srcObject?.getVideoTracks()[0];
    if (!track) throw new Error(`tile ${tile} shows nothing`);
    // A page that is busy for a moment must not lose frames here.
    const { readable } = new MediaStreamTrackProcessor({ track, maxBufferSize: 200 });
    const recorded = [];
    window.recordings ??= {};
    window.recordings[tile] = recorded;
    const reader = readable.getReader();
    (async () => {
      for (let next = await reader.read(); !next.done; next = await reader.read()) {
        const { rtpTimestamp } = next.value.metadata();
        recorded.push({ rtp: rtpTimestamp ?? null, at: performance.now(), width: next.value.displayWidth, height: next.value.displayHeight });
        next.value.close();
      }
    })();
  }, tile);
}

/** What was recorded so far: `{ rtp, at, width, height }`, `at` in ms of the page's clock. */
export function recordedFrames(page, tile) {
  return page.evaluate((tile) => window.recordings[tile], tile);
}

/** Waits until the newest `count` frames of a tile are of this width. */
export function waitWidth(page, tile, width, count = 15) {
  return page.waitFor(
    `${count} frames of ${width} pixels' width`,
    ({ tile, width, count }) => {
      const newest = window.recordings[tile].slice(-count);
      return newest.length === count && newest.every((frame) => frame.width === width);
    },
    { tile, width, count },
  );
}

/** Milliseconds between frames that follow each other, by what `of` says of one. */
export function gaps(frames, of = mediaTime) {
  return frames.slice(1).map((frame, index) => of(frame) - of(frames[index]));
}

export const arrival = ({ at }) => at;

/** Timestamps wrap every 13 hours, which no test lasts for. */
function mediaTime({ rtp }) {
  return (rtp / CLOCK_RATE) * 1_000;
}

export const longest = (values) => Math.max(0, ...values);
