/** Watching how large an element is shown. */
import type { PixelSize } from "./protocol.js";

/**
 * Reports an element's size in device pixels, now and whenever it changes; `[0, 0]` while it is not
 * in view. To be passed on to `Room.setSize`.
 *
 * @returns what stops it
 */
export function watchSize(element: Element, report: (size: PixelSize) => void): () => void {
  let size: PixelSize = [0, 0];
  // Until the observers have looked, an element is taken to be in view: showing a picture late is
  // worse than sending one for nothing.
  let inView = true;
  const tell = (): void => report(inView ? size : [0, 0]);
  const resized = new ResizeObserver(([entry]) => {
    if (!entry) return;
    const { width, height } = entry.contentRect;
    size = [width * devicePixelRatio, height * devicePixelRatio];
    tell();
  });
  const seen = new IntersectionObserver((entries) => {
    inView = entries.at(-1)?.isIntersecting ?? inView;
    tell();
  });
  resized.observe(element);
  seen.observe(element);
  return () => {
    resized.disconnect();
    seen.disconnect();
  };
}
